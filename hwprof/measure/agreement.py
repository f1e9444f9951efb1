"""Do all workers compute the same? Outputs on equal inputs, beside the first worker's.

Not bit by bit: autotuning picks other kernels in another process, threads and atomics add up in
another order. How far that goes is bounded by rounding. Adding n products is off by √n·u in
probability (Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019), u the unit roundoff, relative to
the largest values, and layers add theirs: n = 2¹⁶ and 64 layers give 2¹⁴·u, which is 2⁻¹⁰ in fp32
(u = 2⁻²⁴). Narrower types are added up in fp32 and rounded once a layer: 64·u is 2⁻² for bf16
(u = 2⁻⁸), the coarsest. What computes something else is off by about all of the largest value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hwprof.measure.records import Precision
    from hwprof.workload import Workload

Sample = tuple[NDArray[np.float64], ...]
"""One array an output: its largest magnitude, then some of its values."""

FP32_TOLERANCE = 2.0**-10
COARSE_TOLERANCE = 2.0**-2
MOST_VALUES = 2**14
"""Compared of an output, at places drawn once for its size: where a thousandth of the values is
wrong, all of them being right has a probability of (1 - 10⁻³)^16384 < 10⁻⁷."""
FIRST_RUNS = 2
"""Runs of the first worker: a model that gives other outputs from call to call compares nothing."""


def tolerance_for(workload: Workload, precision: Precision) -> float:
    """Return how far two workers' outputs may be apart, relative to the largest value.

    A model file may hold any type, whatever the options say.
    """
    is_fp32 = workload.path is None and precision == "fp32"
    return FP32_TOLERANCE if is_fp32 else COARSE_TOLERANCE


def may_differ(workload: Workload) -> bool:
    """Whether processes may rightly give other outputs: a user's callable may draw its weights."""
    return workload.target is not None


def sampled(outputs: Sequence[NDArray[np.generic]]) -> Sample:
    """Return what of a run's outputs is compared; nothing where some are no plain values.

    Ids, classes and masks are choices, which one rounding may turn: they say nothing here, nor
    do the values that stand beside them.
    """
    if not all(o.dtype.kind == "f" or o.dtype in (np.int8, np.uint8) for o in outputs):
        return ()
    return tuple(_some(np.asarray(o).ravel()) for o in outputs)


def to_arrays(runs: Sequence[Sample]) -> dict[str, NDArray[np.int64]]:
    """Return samples as a frame's arrays: the bits of their numbers."""
    return {
        f"{run}.{index}": values.view(np.int64)
        for run, sample in enumerate(runs)
        for index, values in enumerate(sample)
    }


def from_arrays(arrays: Mapping[str, NDArray[np.int64]], n_runs: int) -> list[Sample]:
    """Return the samples of a frame's arrays."""
    n_outputs = len(arrays) // n_runs
    return [
        tuple(arrays[f"{run}.{index}"].view(np.float64) for index in range(n_outputs))
        for run in range(n_runs)
    ]


def difference(one: Sample, other: Sample) -> float:
    """Return how far two samples are apart, relative to the largest value of an output.

    Infinite where their sizes differ or one holds NaN or infinity.
    """
    if [a.size for a in one] != [b.size for b in other]:
        return float("inf")
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return float("inf")
        largest = max(a[0], b[0])
        if largest > 0.0:
            worst = max(worst, float(np.abs(a - b)[1:].max(initial=0.0) / largest))
    return worst


@dataclass(kw_only=True, eq=False)
class Agreement:
    """What is known of a workload's outputs from worker to worker."""

    first: Sample | None = None
    """Of the first worker; empty where there is nothing to compare, None before it."""
    worst: float | None = None
    """Largest difference so far; None where none was looked for."""

    @property
    def runs(self) -> int:
        """How many runs the next worker is asked for."""
        if self.first is None:
            return FIRST_RUNS
        return 1 if self.first else 0

    def add(self, runs: Sequence[Sample], tolerance: float) -> None:
        """Take in the runs of the next worker."""
        if self.first is None:
            is_steady = difference(*runs) <= tolerance
            self.first = runs[0] if is_steady else ()
        else:
            self.worst = max(self.worst or 0.0, difference(self.first, runs[0]))


def _some(values: NDArray[np.generic]) -> NDArray[np.float64]:
    largest = float(np.abs(values.astype(np.float64)).max(initial=0.0))
    if values.size > MOST_VALUES:
        # Every process must look at the same places.
        values = values[np.random.default_rng(values.size).integers(0, values.size, MOST_VALUES)]
    return np.concatenate([[largest], values.astype(np.float64)])
