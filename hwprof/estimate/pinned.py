"""The published one-factor estimators (Mills et al., CIKM 2021), with the intervals they lack.

Equation 1, the response of a block: the mean metric over the samples in which it is pinned.
Equation 2, its effect at a place: that sample's mean minus the mean of unpinned networks.
Equation 3, the percentile shift: the same difference of quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.least_squares import t_quantile
from hwprof.estimate.pinning import (
    Pin,
    PinnedForm,
    pinned_streams,
)
from hwprof.interval import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]

N_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class PinnedValues:
    """One metric of every sample: ``float64[n]`` by pin, under None of the unpinned networks."""

    values: Mapping[Pin | None, Floats]

    def block_responses(self) -> dict[str, Interval]:
        """Return equation 1 for every block: the mean over all places where it is pinned."""
        found = {}
        for block in dict.fromkeys(pin.block for pin in self._pins if pin.slot is not None):
            cells = [self._cell(p) for p in self._pins if p.slot is not None and p.block == block]
            mean = math.fsum(m for m, _ in cells) / len(cells)
            variance = math.fsum(v for _, v in cells) / len(cells) ** 2
            found[block] = self._interval(mean, variance)
        return found

    def placement_effects(self) -> dict[Pin, Interval]:
        """Return equation 2 for every pin."""
        mean, variance = self._cell(None)
        cells = {pin: self._cell(pin) for pin in self._pins}
        return {pin: self._interval(m - mean, v + variance) for pin, (m, v) in cells.items()}

    def percentile_shifts(self, tau: float, rng: np.random.Generator) -> dict[Pin, Interval]:
        """Return equation 3 for every pin: the difference of τ-quantiles (0 < ``tau`` < 1).

        A quantile is the ⌈τn⌉-th smallest value; intervals are percentiles of its bootstrap.
        """
        base = _quantiles(self.values[None], tau, rng)
        shifts = {pin: _quantiles(self.values[pin], tau, rng) - base for pin in self._pins}
        found = {}
        for pin, shift in shifts.items():
            lo, hi = np.quantile(shift[1:], [0.025, 0.975])
            found[pin] = Interval(float(shift[0]), float(lo), float(hi))
        return found

    @property
    def mean(self) -> Interval:
        """Mean of the unpinned networks."""
        return self._interval(*self._cell(None))

    @cached_property
    def degrees(self) -> float:
        """Degrees of freedom that every interval has at least: the smallest sample's."""
        return min(len(v) for v in self.values.values()) - 1.0

    def cells(self) -> tuple[Floats, Floats, Floats]:
        """Return every sample's mean, variance and size, ``float64[1 + n_pins]``, unpinned first."""
        samples = [self.values[pin] for pin in (None, *self._pins)]
        means, variances, sizes = zip(
            *((v.mean(), v.var(ddof=1), len(v)) for v in samples), strict=True
        )
        return np.array(means), np.array(variances), np.array(sizes, dtype=np.float64)

    @cached_property
    def _pins(self) -> tuple[Pin, ...]:
        return tuple(pin for pin in self.values if pin is not None)

    def _cell(self, pin: Pin | None) -> tuple[float, float]:
        values = self.values[pin]
        return float(values.mean()), float(values.var(ddof=1)) / len(values)

    def _interval(self, value: float, variance: float) -> Interval:
        half = t_quantile(0.975, self.degrees) * math.sqrt(variance)
        return Interval(value, value - half, value + half)


def _quantiles(values: Floats, tau: float, rng: np.random.Generator) -> Floats:
    """Return the τ-quantile of a sample, then of :data:`N_RESAMPLES` resamples of it.

    The k-th smallest of n uniform numbers is Beta(k, n + 1 - k), so one draw stands for a whole
    resample, whatever n.
    """
    n = len(values)
    k = max(1, math.ceil(round(tau * n, 9)))  # 0.07 * 100 is a little over 7
    places = np.ceil(n * rng.beta(k, n + 1 - k, size=N_RESAMPLES)).astype(np.int64)
    ordered = np.sort(values)
    return np.concatenate([ordered[[k - 1]], ordered[np.clip(places, 1, n) - 1]])


def measure_pins(
    design: DesignMatrix,
    metric: Callable[[Codes], Floats],
    *,
    n: int,
    form: PinnedForm = "text",
    seed: int = 0,
) -> PinnedValues:
    """Draw ``n`` networks unpinned and of every pin, and ask a predictor for each.

    Args:
        design: of the space.
        metric: takes ``int64[n, n_decisions]`` codes, gives ``float64[n]``.
        n: networks a sample.
        form: how a pinned unit gets its depth.
        seed: of the networks.
    """
    streams = pinned_streams(design, seed, n, form)
    return PinnedValues(values={pin: metric(codes) for pin, codes in streams})
