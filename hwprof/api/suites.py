"""``suite``: what is guarded, measured, held against a baseline, and followed over sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.api.device_checks import device_fingerprint
from hwprof.api.models import as_workload, check_inputs
from hwprof.api.tables import Table
from hwprof.errors import PlanError
from hwprof.measure.records import DeviceOptions, Failure, plan_for
from hwprof.progress import ProgressCallback
from hwprof.regression.records import CompareResult
from hwprof.space import get_space
from hwprof.store import Run
from hwprof.workload import Workload

if TYPE_CHECKING:
    from hwprof.regression.history import Series
    from hwprof.regression.suite import Entry, Suite


@dataclass(frozen=True, kw_only=True)
class SuiteRun:
    """What a call of ``suite run`` added to a baseline."""

    out: Path
    n_sessions: int
    n_measured: int
    failures: tuple[Failure, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what ``hwprof suite run --json`` prints."""
        return {
            "out": str(self.out),
            "n_sessions": self.n_sessions,
            "n_measured": self.n_measured,
            "failures": [f.to_json() for f in self.failures],
        }


def suite_run(
    suite: str | Path = "stock",
    *,
    out: str | Path,
    sessions: int = 3,
    timeout_s: float = 120.0,
    seed: int = 0,
    script: str | None = None,
    progress: ProgressCallback | None = None,
) -> SuiteRun:
    """Measure a suite into a baseline folder; called again it adds sessions.

    Args:
        suite: a suite file, or ``stock``.
        out: the baseline's folder.
        sessions: how many to add; fewer than three in all call nothing below 10 %.
        timeout_s: longest a single step may take before it is ended.
        seed: of inputs, weights and orders; each session draws its own order.
        script: steers the ``null`` device only.
        progress: called as measuring goes on.

    Raises:
        PlanError: the suite cannot be read, or names an unknown device.
        ModelError: a model of the suite is gone; nothing is measured then.
        DeviceError: a device is not there; nothing is measured then.
    """
    from hwprof.devices import device_ref
    from hwprof.measure.engine import measure
    from hwprof.regression.baseline import next_session, write_suite
    from hwprof.regression.suite import read_suite
    from hwprof.store.session_file import SessionFile

    asked = read_suite(suite)
    workloads = suite_workloads(asked, seed)
    refs = {
        c: device_ref(
            c.device, DeviceOptions(threads=c.threads, precision=c.precision, script=script)
        )
        for c in asked.configs
    }
    for ref in refs.values():  # the last one is not to be missed when the others have been measured
        device_fingerprint(ref)
    folder = Path(out)
    write_suite(folder, asked)
    n_measured, failures = 0, []
    for _ in range(sessions):
        session = next_session(folder)
        # By its number, not by its place in this call: one a day would draw one order for ever.
        order = seed + int(session.name) - 1
        plan = plan_for(asked.preset, timeout_s=timeout_s, seed=order)
        for config, ref in refs.items():
            request = {"suite": asked.name, "config": asdict(config), "plan": plan.key_fields()}
            with Run.create(session / str(config), "suite", request) as store:
                results = measure(
                    workloads, ref, plan, sink=store, history=SessionFile(), progress=progress
                )
                for result in results:
                    if isinstance(result, Failure):
                        failures.append(result)
                    else:
                        n_measured += 1
    return SuiteRun(
        out=folder, n_sessions=sessions, n_measured=n_measured, failures=tuple(failures)
    )


def suite_compare(
    base: str | Path,
    new: str | Path,
    *,
    commit: str | None = None,
    threshold: float = 0.01,
) -> CompareResult:
    """Hold a suite's measurements against a baseline.

    Args:
        base: a baseline, or with ``commit`` a folder of baselines named after commits.
        new: the folder of ``suite run`` that is judged.
        commit: the commit whose baseline is meant: its beginning, or what git calls it here.
        threshold: the smallest relative slowdown that matters; stored levels allow 2 % at best.

    Raises:
        StoreError: there is no such baseline, or it is the one that is judged.
    """
    from hwprof.regression.baseline import find_baseline, read_baseline, refuse_itself
    from hwprof.regression.stored import compare_stored

    ours, theirs = find_baseline(Path(base), commit), find_baseline(Path(new))
    refuse_itself(ours, theirs)
    rows = compare_stored(read_baseline(ours), read_baseline(theirs), threshold)
    return CompareResult(rows=rows)


def suite_history(folder: str | Path, *, seed: int = 0) -> Table[Series]:
    """Say of every workload when its level changed: E-divisive over one point a session.

    Args:
        folder: a baseline, or a folder of baselines named after commits.
        seed: of the permutation test; with 0 a baseline's last change is where
            :func:`suite_compare` begins to count its sessions.

    Raises:
        StoreError: there is no baseline, or no session in it.
    """
    from hwprof.regression.history import histories

    return Table(histories(Path(folder), seed))


def suite_workloads(suite: Suite, seed: int) -> list[Workload]:
    """Return everything that a suite lists, each under its own name.

    Raises:
        ModelError: a model is gone.
        SpaceError: there is no such space or network.
        PlanError: two workloads have one name.
    """
    found = [w for entry in suite.entries for w in _workloads(entry, Path(suite.folder), seed)]
    seen: set[tuple[str, str]] = set()
    for workload in found:
        if (name := (workload.role, workload.label)) in seen:
            raise PlanError(
                f"the suite {suite.name!r} lists {workload.label!r} twice; give each one line"
            )
        seen.add(name)
    # Equal keys would be timed once, and the other name have no number: not comparable on the day
    # that two models become equal. Other random inputs are other keys, and the same work.
    n_before: Counter[str] = Counter()
    distinct = []
    for workload in found:
        distinct.append(replace(workload, seed=workload.seed + n_before[workload.key]))
        n_before[workload.key] += 1
    return distinct


def _workloads(entry: Entry, folder: Path, seed: int) -> Iterator[Workload]:
    from hwprof.campaign import isolated_workloads

    if entry.blocks is not None:
        space = get_space(_beside(folder, entry.blocks, ".yaml", ".yml"))
        for block in isolated_workloads(space):
            yield replace(block, label=f"{entry.blocks} {block.label}", seed=seed)
    for name in entry.networks:
        yield as_workload(_beside(folder, name, ".json"), seed=seed)
    if entry.model is not None:
        model = _beside(folder, entry.model, ".onnx", ".tflite")
        workload = as_workload(model, entry.inputs, seed=seed)
        check_inputs(entry.inputs, workload)
        yield replace(workload, label=entry.model)


def _beside(folder: Path, name: str, *suffixes: str) -> str:
    """Return where a file lies that a suite names; what is no file keeps its name."""
    return str(folder / name) if name.endswith(suffixes) else name
