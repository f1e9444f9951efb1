"""``retime``: the networks of several searches, timed side by side on one device."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from hwprof.api.device_checks import device_label, refuse_emulated
from hwprof.api.files import refuse_search_folder
from hwprof.api.finalists import identity
from hwprof.api.searching import load_search
from hwprof.errors import DeviceError, IncompatibleRunError, PlanError
from hwprof.measure.records import (
    DeviceOptions,
    Failure,
    Fingerprint,
    Measurement,
    Precision,
    Result,
    plan_for,
)
from hwprof.progress import ProgressCallback
from hwprof.results import SearchResult
from hwprof.space import Architecture, network_id
from hwprof.store import Run
from hwprof.workload import Workload

log = logging.getLogger(__name__)

KIND = "retime"
"""Of the run folder."""


@dataclass(frozen=True, kw_only=True)
class Retimed:
    """What networks take on one device: a measurement for each, or why there is none.

    ``results`` are by the identity of a network's canonical encoding.
    """

    out: Path
    fingerprint: Fingerprint
    results: Mapping[str, Result]

    @property
    def device(self) -> str:
        """The device's registered name."""
        return str(self.fingerprint.stable["device"])

    @property
    def n_failed(self) -> int:
        """How many networks have no number."""
        return sum(isinstance(r, Failure) for r in self.results.values())

    def to_json(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof retime --json``."""
        return {
            "out": str(self.out),
            "device": self.device,
            "fingerprint": identity(self.fingerprint),
            "n_done": len(self.results) - self.n_failed,
            "n_failed": self.n_failed,
            "networks": [_row(result) for result in self.results.values()],
        }


def retime(
    searches: Sequence[str | Path] | str | Path,
    *,
    out: str | Path,
    device: str = "cpu",
    preset: str = "quick",
    threads: int = 1,
    batch: int = 1,
    precision: Precision = "fp32",
    timeout_s: float = 120.0,
    allow_emulated: bool = False,
    seed: int = 0,
    script: str | None = None,
    progress: ProgressCallback | None = None,
) -> Retimed:
    """Time the networks on the fronts of several searches on one device, in the same rounds.

    For devices A and B: search for each, then retime both searches on A and on B, and give all
    folders to :func:`hwprof.report`, which shows what a network searched for one device does on
    the other. Called again it goes on; with more searches it times their networks too.

    Args:
        searches: folders of ``hwprof search``, of one space at one input size.
        out: the run folder; it keeps every burst as it arrives.
        device: a name that ``hwprof devices`` lists.
        preset: ``quick``, ``standard`` or ``strict``.
        threads: threads of the runtime.
        batch: batch size.
        precision: arithmetic type.
        timeout_s: longest a single step may take before it is ended.
        allow_emulated: take the times of an emulated device, which are refused otherwise.
        seed: of the order of bursts.
        script: steers the ``null`` device only.
        progress: called as measuring goes on.

    Raises:
        IncompatibleRunError: the searches are of several spaces or input sizes, or ``out`` holds
            a search, or times of another device, other options or another protocol.
        DeviceError: the device is not there, or not one network could be timed.
    """
    from hwprof.campaign import measure_into
    from hwprof.devices import device_ref

    refuse_search_folder(out)
    paths = [searches] if isinstance(searches, str | Path) else list(searches)
    found = [load_search(path) for path in paths]
    workloads = _workloads(found, paths)
    options = DeviceOptions(threads=threads, batch=batch, precision=precision, script=script)
    ref = device_ref(device, options)
    if not allow_emulated:
        refuse_emulated(device_label(ref), "a front timed there")
    plan = plan_for(preset, timeout_s=timeout_s, seed=seed)
    # Which networks is no part of it: with more searches a run goes on.
    request = {
        "device": device,
        "options": asdict(options),
        "plan": plan.key_fields(),
        "space": found[0].space,
    }
    with Run.create_or_resume(Path(out), KIND, request) as run:
        finished = run.finished_keys()
        todo = [w for w in workloads if w.key not in finished]
        for result in measure_into(run, todo, ref, plan, progress=progress):
            if isinstance(result, Failure):
                log.warning("%s: %s", result.workload.label, result.why)
        retimed = _read(run)
    if retimed.n_failed == len(retimed.results):
        failures = [r for r in retimed.results.values() if isinstance(r, Failure)]
        again = any(f.retryable for f in failures)
        raise DeviceError(
            f"none of the {len(failures)} networks could be timed on {device!r} "
            f"({failures[0].why}); mend the device and "
            + ("call it again" if again else "name another --out: these are not tried again")
        )
    return retimed


def read_retimed(folder: str | Path) -> Retimed:
    """Read what :func:`retime` left in a folder.

    Raises:
        StoreError: it is no run folder, or nothing has been measured yet.
    """
    with Run.open(folder) as run:
        return _read(run)


def _read(run: Run) -> Retimed:
    # The newest measurement, where there is one; else the newest failure.
    results: list[Result] = [*run.failures(), *run.measurements()]
    return Retimed(
        out=run.path,
        fingerprint=run.fingerprint,
        results={network_id(r.workload.arch): r for r in results if r.workload.arch is not None},
    )


def _workloads(searches: Sequence[SearchResult], paths: Sequence[str | Path]) -> list[Workload]:
    """Return every network on a front once, however it is encoded.

    One of each search in turn: they are timed in groups, and a change of the machine between two
    groups must not come down on one search.
    """
    first: tuple[str, int] | None = None
    for search, path in zip(searches, paths, strict=True):
        for trial in search.front:
            place = (trial.arch.space, trial.arch.resolution_px)
            first = first or place
            if place != first:
                raise IncompatibleRunError(
                    f"{str(path)!r} is of {place[0]} at {place[1]} px, {str(paths[0])!r} of "
                    f"{first[0]} at {first[1]} px: time searches of one space together"
                )
    networks: dict[str, Architecture] = {}
    for turn in zip_longest(*(search.front for search in searches)):
        for trial in filter(None, turn):
            networks.setdefault(network_id(trial.arch), trial.arch)
    if not networks:
        raise PlanError(
            f"no network stands on the fronts of {', '.join(map(str, paths))}: there is nothing "
            "to time; search with a larger --target-ms"
        )
    return [Workload.network(arch) for arch in networks.values()]


def _row(result: Result) -> dict[str, Any]:
    arch = result.workload.arch
    assert arch is not None
    row: dict[str, Any] = {"arch": arch.to_json(), "level_s": None, "ci95_s": None, "verdict": None}
    if isinstance(result, Measurement):
        timed = {"level_s": result.level_s, "ci95_s": list(result.ci95_s)}
        return {**row, **timed, "verdict": result.verdict, "failure": None}
    return {**row, "failure": result.why}
