"""Networks that a search came to, measured on a device, and what tells that device from others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hwprof.api.device_checks import (
    device_fingerprint,
    device_label,
    refuse_emulated,
    refuse_idle_options,
)
from hwprof.api.files import make_folder
from hwprof.errors import IncompatibleRunError
from hwprof.measure.records import (
    DeviceOptions,
    Fingerprint,
    Measurement,
    MeasurePlan,
    Result,
    plan_for,
)
from hwprof.progress import ProgressCallback
from hwprof.space import Architecture
from hwprof.store import Run
from hwprof.store.folder import RUN_FILE, RunFile
from hwprof.workload import Workload

KIND = "finalists"
"""Of the run in the folder of a search."""
PRESET = "quick"
TIMEOUT_S = 120.0
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
        plan: MeasurePlan,
        progress: ProgressCallback | None,
    ) -> None:
        """Prepare to measure; no device is opened yet."""
        from hwprof.devices import device_ref

        self.fingerprint: Fingerprint | None = None
        self._folder = folder
        self.ref = device_ref(device, options)
        self.device = device_label(self.ref)
        self._plan = plan
        self._progress = progress

    @property
    def request(self) -> dict[str, Any]:
        """All that must be equal for a measurement that is kept to stand for one asked for now."""
        return {
            "device": self.ref.name,
            "options": asdict(self.ref.options),
            "plan": self._plan.key_fields(),
        }

    def __call__(self, archs: Sequence[Architecture]) -> list[Result]:
        """Return one result for each network."""
        from hwprof.measure.engine import measure
        from hwprof.store.session_file import SessionFile

        workloads = [Workload.network(a) for a in archs]
        if self._folder is None:
            timed = measure(
                workloads, self.ref, self._plan, history=SessionFile(), progress=self._progress
            )
            found = list(timed)
        else:
            found = self._kept(workloads, self._folder)
        measured = [r for r in found if isinstance(r, Measurement)]
        self.fingerprint = measured[0].fingerprint if measured else None
        return found

    def _kept(self, workloads: Sequence[Workload], folder: Path) -> list[Result]:
        from hwprof.campaign import measure_into

        with Run.create_or_resume(folder, KIND, self.request) as store:
            known: dict[str, Result] = {m.workload.key: m for m in store.measurements()}
            todo = [w for w in workloads if w.key not in known]
            fresh = measure_into(store, todo, self.ref, self._plan, progress=self._progress)
            known.update((r.workload.key, r) for r in fresh)
        return [known[w.key] for w in workloads]


def open_measurer(
    folder: Path | None,
    device: str | None,
    options: DeviceOptions,
    *,
    preset: str | None,
    timeout_s: float | None = None,
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
        timeout_s: longest a single step may take, :data:`TIMEOUT_S` where it was not given.
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
        given = None if timeout_s is None else f"{timeout_s:g}s"
        refuse_idle_options(
            options, "--measure-on", preset=preset, timeout=given, finalists=n_finalists
        )
        return None
    timeout_s = TIMEOUT_S if timeout_s is None else timeout_s
    plan = plan_for(preset or PRESET, timeout_s=timeout_s, seed=seed)
    measurer = FinalistMeasurer(folder, device, options, plan, progress)
    if not allow_emulated:
        refuse_emulated(measurer.device, what)
    device_fingerprint(measurer.ref)  # what is not there is told before the search, not behind it
    return measurer


def make_search_folder(folder: Path, measurer: FinalistMeasurer | None) -> None:
    """Make the folder of a search, unless it is that of another run, which a search would hide.

    Args:
        folder: the folder.
        measurer: what is to measure there; what was measured otherwise is told before the search.

    Raises:
        IncompatibleRunError: it is that of another run, or holds other measurements.
        StoreError: it cannot be made.
    """
    make_folder(folder)
    # os.path: of a folder that may not be entered pathlib raises; the search says what is wrong.
    if not os.path.exists(folder / RUN_FILE):
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
