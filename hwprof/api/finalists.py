"""Networks that a search came to, measured on a device, and what tells that device from others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.api.adapting import device_fingerprint, refuse_idle_options
from hwprof.api.boards import device_label, refuse_emulated
from hwprof.errors import IncompatibleRunError, StoreError, next_step
from hwprof.measure.records import DeviceOptions, Fingerprint, Measurement, Result, plan_for
from hwprof.progress import ProgressCallback
from hwprof.space import Architecture

if TYPE_CHECKING:
    from hwprof.workload import Workload

KIND = "finalists"
"""Of the run in the folder of a search."""
PRESET = "quick"
N_FINALISTS = 16


class FinalistMeasurer:
    """Measures finalists, keeping every burst in a folder; called again it goes on.

    Attributes:
        ref: how a worker opens the device.
        device: as it is shown.
        fingerprint: what measured them; None before, and where nothing could be measured.
    """

    def __init__(
        self,
        folder: Path | None,
        device: str,
        options: DeviceOptions,
        preset: str,
        seed: int,
        progress: ProgressCallback | None,
    ) -> None:
        """Prepare to measure; no device is opened yet."""
        from hwprof.devices import device_ref

        self.fingerprint: Fingerprint | None = None
        self._folder = folder
        self._name = device
        self._options = options
        self.ref = device_ref(device, options)
        self.device = device_label(self.ref)
        self._plan = plan_for(preset, seed=seed)
        self._progress = progress

    @property
    def request(self) -> dict[str, Any]:
        """All that must be equal for a measurement that is kept to stand for one asked for now."""
        return {
            "device": self._name,
            "options": asdict(self._options),
            "plan": self._plan.key_fields(),
        }

    def __call__(self, archs: Sequence[Architecture]) -> list[Result]:
        """Return one result for each network."""
        from hwprof.measure.engine import measure
        from hwprof.store.session_file import SessionFile
        from hwprof.workload import Workload

        workloads = [Workload.network(a) for a in archs]
        if self._folder is None:
            found = list(
                measure(
                    workloads,
                    self.ref,
                    self._plan,
                    history=SessionFile(),
                    progress=self._progress,
                )
            )
        else:
            found = self._kept(workloads, self._folder)
        measured = [r for r in found if isinstance(r, Measurement)]
        self.fingerprint = measured[0].fingerprint if measured else None
        return found

    def _kept(self, workloads: Sequence[Workload], folder: Path) -> list[Result]:
        from hwprof.measure.engine import measure
        from hwprof.store import Run
        from hwprof.store.session_file import SessionFile

        with Run.create_or_resume(folder, KIND, self.request) as store:
            known: dict[str, Result] = {m.workload.key: m for m in store.measurements()}
            fresh = measure(
                [w for w in workloads if w.key not in known],
                self.ref,
                self._plan,
                sink=store,
                history=SessionFile(),
                earlier=store.partial_bursts(),
                references=store.reference_bursts(),
                taken=store.workers(),
                progress=self._progress,
            )
            known.update((r.workload.key, r) for r in fresh)
        return [known[w.key] for w in workloads]


def open_measurer(
    folder: Path | None,
    device: str | None,
    options: DeviceOptions,
    *,
    preset: str | None,
    n_finalists: int | None = None,
    allow_emulated: bool,
    what: str,
    seed: int,
    progress: ProgressCallback | None,
) -> FinalistMeasurer | None:
    """Return what measures finalists on a device; None where none is named.

    Args:
        folder: keeps every burst; nothing does where there is none.
        device: the device.
        options: of the device.
        preset: of the measuring, :data:`PRESET` where it was not given.
        n_finalists: as it was given; only to be refused without a device.
        allow_emulated: whether times of an emulated device count.
        what: is measured, as a refusal says it.
        seed: of the order of bursts.
        progress: called as measuring goes on.

    Raises:
        DeviceError: the device is not there.
        PlanError: something of the measuring is given and no device is named, or it is emulated.
    """
    if device is None:
        refuse_idle_options(options, "--measure-on", preset=preset, finalists=n_finalists)
        return None
    measurer = FinalistMeasurer(folder, device, options, preset or PRESET, seed, progress)
    if not allow_emulated:
        refuse_emulated(measurer.device, what)
    device_fingerprint(measurer.ref)  # what is not there is told before the search, not behind it
    return measurer


def make_folder(folder: Path, measurer: FinalistMeasurer | None) -> None:
    """Make the folder of a search, unless it is that of another run, which a search would hide.

    Args:
        folder: the folder.
        measurer: what is to measure there; what was measured otherwise is told before the search.

    Raises:
        IncompatibleRunError: it is that of another run, or holds other measurements.
        StoreError: it cannot be made.
    """
    from hwprof.store.folder import RUN_FILE, RunFile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_run = (folder / RUN_FILE).exists()
    except OSError as error:
        step = next_step(error, "name one that you may write")
        raise StoreError(
            f"cannot make the folder {str(folder)!r}: {error.strerror or error}; {step}"
        ) from error
    if not is_run:
        return
    before = RunFile.read(folder)
    if before.kind != KIND:
        raise IncompatibleRunError(
            f"{str(folder)!r} is a run of {before.kind!r}, not of a search; name another --out"
        )
    if measurer is not None:
        before.grown(folder, KIND, measurer.request)


def identity(fingerprint: Fingerprint | None) -> dict[str, Any] | None:
    """Return what tells one device from another; how it was that day is no part of it."""
    if fingerprint is None:
        return None
    return {"digest": fingerprint.digest, "stable": dict(fingerprint.stable)}
