"""``predict`` and ``reduce``: what a profile says about networks that were not measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwprof.api.device_checks import refuse_idle_options, require_same_device
from hwprof.api.files import write_file
from hwprof.api.friendliness import effects as block_effects
from hwprof.api.models import as_architecture
from hwprof.api.runs import latency_model
from hwprof.api.tables import Table
from hwprof.errors import PlanError
from hwprof.measure.records import DeviceOptions, Precision
from hwprof.progress import ProgressCallback
from hwprof.protocols import AccuracySource
from hwprof.space import Architecture, DesignSpace, get_space, reduction_to_yaml
from hwprof.space.reduction import Reduction
from hwprof.store import Run


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A latency that was not measured, with its 95 % prediction interval."""

    arch: Architecture
    latency_s: float
    lo_s: float
    hi_s: float

    def to_row(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof predict --json``."""
        return {
            "arch": self.arch.to_json(),
            "latency_s": self.latency_s,
            "lo_s": self.lo_s,
            "hi_s": self.hi_s,
        }


def predict(
    run: str | Path,
    archs: Sequence[Architecture | str] | str | Path,
    *,
    device: str | None = None,
    threads: int = 1,
    batch: int = 1,
    precision: Precision = "fp32",
    allow_other_device: bool = False,
) -> Table[Prediction]:
    """Predict latencies on the run's device without measuring.

    Args:
        run: the run folder of a profile.
        archs: architectures (objects, JSON files, names), or a CSV file with a column ``arch``.
        device: the device that the predictions are for; without it the run's own is taken.
        threads: of ``device``.
        batch: of ``device``.
        precision: of ``device``.
        allow_other_device: predict also where the run was made on another device than
            ``device``, or with other options.

    Raises:
        IncompatibleRunError: ``device`` as it is used here is not the run's.
        PlanError: options of a device without the device.
        SpaceError: a network is of another space, or holds a block that was never measured.
    """
    from hwprof.estimate.design_matrix import DesignMatrix
    from hwprof.estimate.run_analysis import run_space

    options = DeviceOptions(threads=threads, batch=batch, precision=precision)
    if device is None:
        refuse_idle_options(options, "--device")
    networks = _architectures(archs)
    with Run.open(run) as opened:  # a network of another space is told before the model is fitted
        DesignMatrix(run_space(opened)).encode(networks)
    model, _ = latency_model(run)
    if device is not None and not allow_other_device:
        require_same_device(model, device, options)
    latency_s, half_s = model.predict_many(networks)
    intervals = zip(networks, latency_s.tolist(), half_s.tolist(), strict=True)
    return Table(
        tuple(
            Prediction(arch=network, latency_s=level, lo_s=_bound(level, half), hi_s=level + half)
            for network, level, half in intervals
        )
    )


def reduce(
    run: str | Path | None = None,
    *,
    accuracy: str | AccuracySource | None = None,
    data: str | None = None,
    max_accuracy_drop_pp: float | None = None,
    target_ms: float | tuple[float, float] | None = None,
    goal: str = "front",
    effects: str | Path | None = None,
    space: str | None = None,
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Reduction:
    """Cut a space down to what suits a device, with the evidence beside every cut.

    Args:
        run: the run folder of a profile; or give ``effects`` and ``space`` instead.
        accuracy: an accuracy source, as in :func:`hwprof.effects`.
        data: images for ``supernet:``.
        max_accuracy_drop_pp: percentage points of accuracy that all cuts together may cost.
        target_ms: the latencies that matter: up to this, or from one to another. What other
            networks lose is not counted, and what no such network can hold is dropped.
        goal: ``front`` for the trade of accuracy against latency, ``accuracy`` for the most
            accurate networks whatever they cost.
        effects: a CSV that ``hwprof effects --csv`` wrote.
        space: the space of that CSV; a run brings its own.
        out: write the reduced space (``reduced.yaml``) here.
        progress: called while networks are scored.

    Raises:
        PlanError: options contradict each other, or the goal is not one of the two.
    """
    from hwprof.estimate.effects_csv import friendliness_from_csv
    from hwprof.estimate.run_analysis import run_space
    from hwprof.search.reducing.reducer import reduce_space

    if goal not in ("front", "accuracy"):
        raise PlanError(f"the goal is {goal!r}; expected 'front' or 'accuracy'")
    given = {"the run folder": run, "--accuracy": accuracy, "--data": data}
    if effects is not None and (other := [name for name, value in given.items() if value]):
        raise PlanError(
            f"--effects brings latencies and accuracies of its own; leave out {other[0]}"
        )
    if run is not None:
        with Run.open(run) as opened:
            design = run_space(opened)
        _require_the_runs(space, design)
        found = block_effects(run, accuracy=accuracy, data=data, progress=progress)
    elif effects is not None and space is not None:
        design = get_space(space)
        found = friendliness_from_csv(Path(effects), design)
    else:
        raise PlanError("reduce needs a run folder, or both --effects FILE.csv and --space NAME")
    low_ms, high_ms = target_ms if isinstance(target_ms, tuple) else (0.0, target_ms or 0.0)
    reduction = reduce_space(
        design,
        found,
        max_accuracy_drop_pp=max_accuracy_drop_pp,
        goal="accuracy" if goal == "accuracy" else "front",
        target_s=None if target_ms is None else (low_ms / 1e3, high_ms / 1e3),
    )
    if out is not None:
        write_file(Path(out), reduction_to_yaml(reduction).encode())
    return reduction


def _require_the_runs(space: str | None, design: DesignSpace) -> None:
    """Refuse a space beside a run that is of another one: it would be left aside."""
    if space is None:
        return
    named = get_space(space)
    if (named.name, dict(named.alive)) != (design.name, dict(design.alive)):
        raise PlanError(
            f"--space {space} is not what the run was made in ({design.name}"
            f"{', reduced' if design.is_reduced else ''}); leave it out: a run brings its own space"
        )


def _bound(level_s: float, half_s: float) -> float:
    """Return the lower end of an interval: nothing takes less than no time.

    Sums of a table without its fixed part are relative, and may be below.
    """
    return max(level_s - half_s, min(level_s, 0.0))


def _architectures(archs: Sequence[Architecture | str] | str | Path) -> list[Architecture]:
    if isinstance(archs, str | Path):
        if str(archs).endswith((".csv", ".csv.gz")):
            from hwprof.importing import read_architectures

            return read_architectures(Path(archs))
        return [as_architecture(str(archs))]
    return [as_architecture(a) for a in archs]
