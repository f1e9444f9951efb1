"""``compare``: is the new one slower than the base?"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwprof.api.device_checks import given_options
from hwprof.api.models import as_workload, check_inputs, require_batch
from hwprof.errors import HwprofError, PlanError, StoreError
from hwprof.measure.records import DeviceOptions, Precision
from hwprof.progress import ProgressCallback
from hwprof.regression.records import CompareResult
from hwprof.space import Architecture
from hwprof.store import Run
from hwprof.store.folder import RUN_FILE
from hwprof.workload import InputSpec

if TYPE_CHECKING:
    from hwprof.regression.stored import Missing, Stored

log = logging.getLogger(__name__)

Comparable = Architecture | str | Path


def compare(
    base: Comparable,
    new: Comparable,
    *,
    device: str = "cpu",
    threads: int = 1,
    batch: int = 1,
    precision: Precision = "fp32",
    threshold: float = 0.01,
    inputs: Sequence[InputSpec | str] = (),
    base_python: str | None = None,
    max_time_s: float = 60.0,
    timeout_s: float = 120.0,
    seed: int = 0,
    script: str | None = None,
    progress: ProgressCallback | None = None,
) -> CompareResult:
    """Say whether ``new`` is slower than ``base``, and by how much.

    Two models are measured now, side by side, in interleaved bursts of fresh workers. Two run
    folders, suite baselines or files of pytest-benchmark are compared as they are stored.

    Args:
        base: a model (as in :func:`hwprof.bench`), a run folder, a suite baseline, or
            pytest-benchmark's JSON.
        new: the same kind of thing.
        device: where models are measured.
        threads: threads of the runtime.
        batch: batch size of networks of a space.
        precision: arithmetic type.
        threshold: the smallest relative slowdown that matters; below 0.01 counts as 0.01.
        inputs: shapes and types of the inputs of both models.
        base_python: the base's workers run on this Python, with another version of the runtime;
            only for devices of this machine.
        max_time_s: longest for one pair of models.
        timeout_s: longest a single step may take before it is ended.
        seed: of inputs, weights and orders.
        script: steers the ``null`` device only.
        progress: called as measuring goes on.

    Raises:
        PlanError: the two are of different kinds, or an option does not go with them.
        StoreError: a run holds no measurement, or what is stored would be compared with itself.
        DeviceError: the device is not there.
    """
    options = DeviceOptions(threads=threads, batch=batch, precision=precision, script=script)
    stored_base, stored_new = _stored(base), _stored(new)
    if stored_base is not None and stored_new is not None:
        if base_python is not None:
            raise PlanError("--base-python goes with two models: these are stored measurements")
        from hwprof.regression.baseline import refuse_itself
        from hwprof.regression.stored import compare_stored

        refuse_itself(Path(str(base)), Path(str(new)))
        _say_idle(device, options, inputs)
        return CompareResult(rows=compare_stored(stored_base, stored_new, threshold))
    if stored_base is not None or stored_new is not None:
        first, second = (
            _unstored(side) if s is None else "stored measurements"
            for s, side in ((stored_base, base), (stored_new, new))
        )
        raise PlanError(
            f"{str(base)!r} is {first} and {str(new)!r} is {second}; expected two models, two "
            "run folders, or two files of pytest-benchmark"
        )
    from hwprof.devices import device_ref, registrations
    from hwprof.regression.environments import interpreter_of
    from hwprof.regression.paired_verdicts import compare_pairs
    from hwprof.regression.side_by_side import PLAN, Pair

    ref = device_ref(device, options)
    if base_python is not None and ref.address is not None:
        raise PlanError(
            f"--base-python is a Python of this machine, and {device!r} is on another one: leave "
            f"it out, or log in there and compare with --device {device.partition('@')[0]}"
        )
    ours, theirs = (as_workload(m, inputs, seed=seed) for m in (base, new))
    for workload in (ours, theirs):
        require_batch(workload, batch)
    check_inputs(inputs, ours, theirs)
    label = ours.label if ours.label == theirs.label else f"{ours.label} -> {theirs.label}"
    with ExitStack() as stack:
        interpreter = None
        if base_python is not None:
            packages = registrations()[device].packages
            interpreter = stack.enter_context(interpreter_of(base_python, packages))
        pair = Pair(label=label, base=ours, new=theirs, base_python=interpreter)
        rows = compare_pairs(
            [pair],
            ref,
            threshold=threshold,
            plan=replace(PLAN, seed=seed, timeout_s=timeout_s),
            cap_s=max_time_s,
            progress=progress,
        )
    return CompareResult(rows=rows)


def _say_idle(device: str, options: DeviceOptions, inputs: Sequence[InputSpec | str]) -> None:
    """Warn of options that say how models are timed, where nothing is timed."""
    given = [f"--device {device}"] if device != "cpu" else []
    given += given_options(options)
    given += ["--input"] if inputs else []
    if given:
        log.warning(
            "%s: not used, since stored measurements are compared as they were taken",
            ", ".join(given),
        )


def _stored(source: Comparable) -> list[Stored | Missing] | None:
    """Return what is stored in a folder or a file; None for a model.

    Raises:
        StoreError: the folder is neither a run nor a baseline, or holds no measurement.
    """
    from hwprof.regression.baseline import is_baseline, read_baseline
    from hwprof.regression.pytest_file import is_pytest_file, read_pytest_file

    # os.path: for a text too long for a path, such as an architecture itself, pathlib raises.
    if isinstance(source, Architecture) or not os.path.exists(source):
        return None
    path = Path(source)
    if path.is_dir():
        if not is_baseline(path) and not (path / RUN_FILE).exists():
            raise StoreError(
                f"{str(path)!r} holds neither a run nor a baseline; expected the --out of `hwprof "
                "profile` or `hwprof suite run` (of a folder of baselines: `hwprof suite compare`)"
            )
        return read_baseline(path) if is_baseline(path) else read_run(path)
    return read_pytest_file(path) if is_pytest_file(path) else None


def _unstored(source: Comparable) -> str:
    """Say what is not stored: a path that is mistyped is no model."""
    if not isinstance(source, Architecture) and source != "-" and not os.path.exists(source):
        try:
            as_workload(source)  # an architecture may be named, or be the text itself
        except HwprofError:
            return "no file or folder"
    return "a model"


def read_run(folder: Path) -> list[Stored | Missing]:
    """Read every workload of a run folder, each measured in one session.

    Raises:
        StoreError: nothing was measured in it.
    """
    from hwprof.regression.stored import Missing, Stored, session_of

    with Run.open(folder) as run:
        found: list[Stored | Missing] = [
            Stored(
                label=m.workload.label,
                match=m.workload.key,
                facts=m.facts,
                sessions=(session_of(m),),
            )
            for m in run.measurements()
        ]
        found += [
            Missing(label=f.workload.label, match=f.workload.key, reason=f.why)
            for f in run.failures()
        ]
    if not found:
        raise StoreError(
            f"nothing was measured in the run {str(folder)!r}, so there is nothing to compare; "
            "expected one of `hwprof profile`, or models (imported latencies have no repeats)"
        )
    return found
