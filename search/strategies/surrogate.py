"""What networks not yet judged may score: a Gaussian process on their encoding.

The covariance of two networks is a sum of three terms, each of which lets a different kind of
knowledge carry over:

- ``exp(−Σ_j w_j [a_j ≠ b_j])``: alike where the decisions are alike, every slot with a weight of
  its own (categorical automatic relevance determination);
- ``exp(−v ‖counts(a) − counts(b)‖²)``: alike where the same blocks stand anywhere;
- ``exp(−r (log t_a − log t_b)²)``: alike where they are as fast, as the latency is known without
  judging and says much about capacity.

Weights are the maximum of the marginal likelihood times log-normal priors (Rasmussen & Williams
2006, eq. 2.30 and 5.9), found by L-BFGS with exact gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

from hwprof.space import DesignSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]

MOST_FOR_WEIGHTS = 256
"""Networks that the likelihood is computed from: its cost grows with their third power."""
MOST_STEPS = 30
LEAST_VARIANCE = 1e-6
"""Keeps a network that is known for certain from dividing by zero."""

_SCALE_PRIORS = ((0.5, 1.5), (0.5, 1.5), (0.3, 1.5))
"""Median, and standard deviation of the logarithm, of each term's variance (data have 1)."""
_COUNT_PRIOR = (0.6, 1.0)
"""Of v times the number of slots: more slots, larger distances."""
_TIME_PRIOR = (0.5, 1.0)
_SLOT_PRIOR = (1.8, 1.0)
"""Of w_j times the number of decisions."""
_NOISE_PRIOR = (1e-2, 1.5)
_RANGE = 7.0
"""Logarithms of the weights stay within this distance of their priors' medians."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Networks as the covariance sees them, one row each.

    Attributes:
        ones: one-hot codes of all decisions, ``float64[n, columns]``.
        counts: how often every block stands in the network, ``float64[n, blocks]``.
        log_time: logarithm of the latency, ``float64[n]``, in any unit.
    """

    ones: Floats
    counts: Floats
    log_time: Floats

    def __len__(self) -> int:
        return len(self.log_time)

    def rows(self, index: Sequence[int] | NDArray[np.intp] | slice) -> Features:
        """Return some of the networks."""
        return Features(
            ones=self.ones[index], counts=self.counts[index], log_time=self.log_time[index]
        )


class Coding:
    """Turns the codes of a space (:meth:`DesignSpace.encode`) into features."""

    def __init__(self, space: DesignSpace) -> None:
        names = [space.base_choices(slot) for slot in space.slots]
        sizes = [len(blocks) for blocks in names] + [len(f.levels) for f in space.factors]
        # An absent layer (code -1) is a level like any other.
        self._starts = np.cumsum([0, *(size + 1 for size in sizes)])
        blocks = sorted({block for choices in names for block in choices})
        self._tally = np.zeros((int(self._starts[-1]), len(blocks)))
        for start, choices in zip(self._starts.tolist(), names, strict=False):
            for code, block in enumerate(choices):
                self._tally[start + 1 + code, blocks.index(block)] = 1.0
        self.decision_of = np.repeat(np.arange(len(sizes)), np.diff(self._starts))
        """The decision that every column of ``ones`` belongs to."""

    @property
    def n_decisions(self) -> int:
        """Number of slots and factors."""
        return len(self._starts) - 1

    def features(self, codes: Codes, latency: Floats) -> Features:
        """Return the features of ``int64[n, n_decisions]`` codes and their latencies (> 0)."""
        ones = np.zeros((len(codes), int(self._starts[-1])))
        np.put_along_axis(ones, codes + 1 + self._starts[:-1], 1.0, axis=1)
        return Features(ones=ones, counts=ones @ self._tally, log_time=np.log(latency))


@dataclass(frozen=True, kw_only=True, eq=False)
class Surrogate:
    """A process fitted to judged networks; values have been brought to mean 0, variance 1.

    Attributes:
        weights: logarithms of what the module's docstring names: w, the three variances, v, r,
            the variance of noise.
    """

    coding: Coding
    known: Features
    weights: Floats
    centre: float
    scale: float
    root: Floats = field(repr=False)
    """Lower Cholesky factor of the covariance of the judged networks, noise included."""
    standard: Floats = field(repr=False)
    """``root``⁻¹ times the values."""

    @classmethod
    def fit(
        cls, coding: Coding, known: Features, values: Floats, weights: Floats | None = None
    ) -> Self:
        """Condition the process on ``values``, ``float64[n]``.

        Args:
            coding: what ``known`` was made by.
            known: the judged networks.
            values: what they scored.
            weights: taken as they are; without them they are learnt from the values.
        """
        centre, scale = float(values.mean()), float(values.std()) or 1.0
        y = (values - centre) / scale
        if weights is None:
            chosen = _representatives(len(y))
            weights = _learn(coding, known.rows(chosen), y[chosen])
        covariance = sum(_terms(coding, known, known, weights)) + _noise(weights) * np.eye(len(y))
        root = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
        return cls(
            coding=coding,
            known=known,
            weights=weights,
            centre=centre,
            scale=scale,
            root=root,
            standard=solve_triangular(root, y, lower=True),
        )

    def belief(self, networks: Features) -> Belief:
        """Return what is believed about other networks."""
        between = sum(_terms(self.coding, networks, self.known, self.weights))
        return Belief(
            surrogate=self,
            networks=networks,
            explained=solve_triangular(self.root, np.asarray(between).T, lower=True),
        )


@dataclass(kw_only=True, eq=False)
class Belief:
    """Mean and uncertainty of networks not judged; :meth:`suppose` narrows it down."""

    surrogate: Surrogate
    networks: Features
    explained: Floats
    """``float64[judged + supposed, n]``: its squares are the variance that is known away."""

    def __post_init__(self) -> None:
        total = np.exp(_split(self.surrogate.weights, self.surrogate.coding).scales).sum()
        self._variance: Floats = total - (self.explained**2).sum(axis=0)

    @property
    def mean(self) -> Floats:
        """Expected values, ``float64[n]``."""
        known = self.surrogate
        return known.centre + known.scale * (self.explained[: len(known.known)].T @ known.standard)

    @property
    def sd(self) -> Floats:
        """Standard deviations of the values without noise, ``float64[n]``."""
        return self.surrogate.scale * np.sqrt(np.maximum(self._variance, LEAST_VARIANCE))

    def suppose(self, index: int) -> None:
        """Take network ``index`` for judged, with the value expected of it."""
        weights = self.surrogate.weights
        one = self.networks.rows([index])
        prior = np.asarray(sum(_terms(self.surrogate.coding, self.networks, one, weights)))[:, 0]
        left = prior - self.explained.T @ self.explained[:, index]
        row = left / np.sqrt(max(left[index], LEAST_VARIANCE) + _noise(weights))
        self.explained = np.vstack([self.explained, row])
        self._variance = self._variance - row**2


@dataclass(frozen=True, kw_only=True, eq=False)
class _Weights:
    """The logarithms of all weights by name."""

    slots: Floats
    scales: Floats
    count: float
    time: float
    noise: float


def _split(weights: Floats, coding: Coding) -> _Weights:
    n = coding.n_decisions
    return _Weights(
        slots=weights[:n],
        scales=weights[n : n + 3],
        count=float(weights[n + 3]),
        time=float(weights[n + 4]),
        noise=float(weights[n + 5]),
    )


def _noise(weights: Floats) -> float:
    return float(np.exp(weights[-1]))


def _prior(coding: Coding) -> tuple[Floats, Floats]:
    """Return medians and standard deviations of the logarithms of all weights."""
    n = coding.n_decisions
    pairs = [
        *[(_SLOT_PRIOR[0] / n, _SLOT_PRIOR[1])] * n,
        *_SCALE_PRIORS,
        (_COUNT_PRIOR[0] / n, _COUNT_PRIOR[1]),
        _TIME_PRIOR,
        _NOISE_PRIOR,
    ]
    medians, deviations = np.array(pairs).T
    return np.log(medians), deviations


def _distances(a: Features, b: Features) -> tuple[Floats, Floats]:
    """Return squared distances of counts and of log latencies, ``float64[a, b]`` each."""
    apart = (a.counts**2).sum(1)[:, None] + (b.counts**2).sum(1) - 2.0 * a.counts @ b.counts.T
    return np.maximum(apart, 0.0), (a.log_time[:, None] - b.log_time) ** 2


def _terms(
    coding: Coding, a: Features, b: Features, weights: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the three terms of the covariance, ``float64[a, b]`` each."""
    w = _split(weights, coding)
    slots = np.exp(w.slots)
    agreeing = (a.ones * slots[coding.decision_of]) @ b.ones.T
    counts, times = _distances(a, b)
    scales = np.exp(w.scales)
    return (
        scales[0] * np.exp(agreeing - slots.sum()),
        scales[1] * np.exp(-np.exp(w.count) * counts),
        scales[2] * np.exp(-np.exp(w.time) * times),
    )


def _learn(coding: Coding, known: Features, y: Floats) -> Floats:
    median, _ = _prior(coding)
    bounds = [(m - _RANGE, m + _RANGE) for m in median]
    found = minimize(
        _cost,
        median,
        args=(coding, known, y),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": MOST_STEPS},
    )
    learnt: Floats = found.x
    return learnt


def _cost(weights: Floats, coding: Coding, known: Features, y: Floats) -> tuple[float, Floats]:
    """Return minus the log posterior of the weights, constants apart, and its gradient."""
    w = _split(weights, coding)
    by_slot, by_count, by_time = _terms(coding, known, known, weights)
    noise = float(np.exp(w.noise))
    root = np.linalg.cholesky(by_slot + by_count + by_time + noise * np.eye(len(y)))
    inverse = cho_solve((root, True), np.eye(len(y)))
    solved = inverse @ y
    median, deviation = _prior(coding)
    off = (weights - median) / deviation
    cost = 0.5 * float(y @ solved) + float(np.log(np.diag(root)).sum()) + 0.5 * float(off @ off)

    # d cost / d K, then the chain rule down to every logarithm.
    outer = 0.5 * (inverse - np.outer(solved, solved))
    slot_part, count_part, time_part = outer * by_slot, outer * by_count, outer * by_time
    counts, times = _distances(known, known)
    agree = ((slot_part @ known.ones) * known.ones).sum(axis=0)
    agreeing = np.bincount(coding.decision_of, weights=agree, minlength=coding.n_decisions)
    gradient = np.concatenate(
        [
            np.exp(w.slots) * (agreeing - slot_part.sum()),
            [slot_part.sum(), count_part.sum(), time_part.sum()],
            [-np.exp(w.count) * float((count_part * counts).sum())],
            [-np.exp(w.time) * float((time_part * times).sum())],
            [noise * float(np.trace(outer))],
        ]
    )
    return cost, gradient + off / deviation


def _representatives(n: int) -> NDArray[np.intp]:
    """Choose the networks that speak for all: half the latest, half spread over the others."""
    if n <= MOST_FOR_WEIGHTS:
        return np.arange(n)
    half = MOST_FOR_WEIGHTS // 2
    spread = np.linspace(0, n - half - 1, half).round().astype(np.intp)
    return np.concatenate([spread, np.arange(n - half, n)])
