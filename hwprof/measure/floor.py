"""The level of many bursts, and how far it can be trusted: pure functions on arrays.

A workload's bursts are a table of floors, ``float64[workers, rounds]``, infinite where a worker
has no burst in a round. A worker's floor is the lower tenth of its row, the level the lower
quartile of the workers: on a shared machine the fast end of the times repeats, the middle does
not, and of a few fresh workers one may stay in a slow mode for life. Where the fast end is not
what is asked for, both are medians (:data:`USUAL`).

What makes a level move is sampled twice: by workers (where memory lies, for the life of a
process) and by rounds (what the machine does to all of them at a time). Both are resampled, each
by itself; the variances add, as in the pigeonhole bootstrap. How two sessions differ beyond that
shows within none of them (:mod:`hwprof.measure.session_spread`); its half-width and that of the
session are independent.

Sources: Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1(2), for the sum of
both; Satterthwaite (1946) for the degrees of freedom of a sum of variances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwprof.interval import NORMAL_975

Float64 = NDArray[np.float64]

SLOW_MODE = 1.1
"""What lies over 10 % above a worker's fast end saw a slower mode and says nothing of the floor."""
SESSION_SD = 0.004
"""Standard deviation of ln(level) from session to session that no session shows within itself, on
a quiet machine. What sessions of a machine are known to differ by takes its place where it is
more."""
N_RESAMPLES = 200
SEED = 0x1E7E1
"""The same bursts have the same interval: the resampling is part of the definition."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What makes a burst's figure, a worker's and the level, and what is another mode."""

    fastest_call: bool
    """Whether a burst stands for its fastest call, or for its median."""
    worker_quantile: float
    level_quantile: float
    slow_mode: float


FLOOR = Rule(fastest_call=True, worker_quantile=0.1, level_quantile=0.25, slow_mode=SLOW_MODE)
"""For what a device can do: a host's noise only adds."""
USUAL = Rule(fastest_call=False, worker_quantile=0.5, level_quantile=0.5, slow_mode=math.inf)
"""For what a device keeps up, and for GPUs, whose cold silicon is faster than it will be."""


def worker_floors_s(floors_s: Float64, rule: Rule = FLOOR) -> Float64:
    """Return the figure of every worker: ``float64[..., rounds]`` → ``float64[...]``.

    A worker's second fastest burst says where its fast end is: one reading that is too short
    must not turn all others into a slower mode.
    """
    ordered = np.sort(floors_s, axis=-1)
    second = ordered[..., min(1, ordered.shape[-1] - 1)]
    fast_end = np.where(np.isfinite(second), second, ordered[..., 0])
    in_mode = np.where(ordered <= rule.slow_mode * fast_end[..., None], ordered, np.inf)
    return finite_quantile(in_mode, rule.worker_quantile)


def level_of(worker_floors: Float64, rule: Rule = FLOOR) -> Float64:
    """Return the level: ``float64[..., workers]`` → ``float64[...]``."""
    return finite_quantile(worker_floors, rule.level_quantile)


def finite_quantile(values: Float64, q: float) -> Float64:
    """Return a quantile over the last axis, linear, of what is finite; infinite where nothing is."""
    ordered = np.sort(values, axis=-1)
    place = q * np.maximum(np.isfinite(ordered).sum(axis=-1) - 1, 0)
    below = np.floor(place).astype(np.int64)
    above = np.ceil(place).astype(np.int64)
    low = np.take_along_axis(ordered, below[..., None], axis=-1)[..., 0]
    high = np.take_along_axis(ordered, above[..., None], axis=-1)[..., 0]
    # An infinite pair would give a NaN; there below and above are the same place.
    step = np.subtract(high, low, where=above > below, out=np.zeros_like(low))
    found: Float64 = low + (place - below) * step
    return found


class Within(NamedTuple):
    """How well a session knows ln(level)."""

    se: float
    """Standard error."""
    half_width: float
    """Half the width of the 95 % interval."""


def within_session(floors_s: Float64, rule: Rule = FLOOR) -> Within:
    """Return how well the bursts of a session know ln(level).

    One worker says nothing about others, and one round nothing about other times: what cannot be
    resampled adds nothing, so that the interval of so few bursts is too narrow.

    Args:
        floors_s: ``float64[workers, rounds]``, infinite where a worker has no burst in a round.
        rule: how they make the level.
    """
    from scipy.special import stdtrit

    parts = _variances(floors_s, worker_floors_s(floors_s, rule), rule)
    total = math.fsum(v for v, _ in parts)
    if total <= 0.0:
        return Within(0.0, 0.0)
    freedom = total**2 / math.fsum(v**2 / df for v, df in parts)
    se = math.sqrt(total)
    return Within(se, float(stdtrit(freedom, 0.975)) * se)


def interval_s(level_s: float, half_width: float, session_sd: float) -> tuple[float, float]:
    """Return the 95 % interval of a level, symmetric in logs.

    Args:
        level_s: its middle.
        half_width: of ln(level) within the session.
        session_sd: what sessions differ by; 0 among workloads of one session.
    """
    half = math.hypot(half_width, NORMAL_975 * session_sd)
    return (level_s * math.exp(-half), level_s * math.exp(half))


def _variances(floors_s: Float64, floors: Float64, rule: Rule) -> list[tuple[float, float]]:
    """Return variance of ln(level) and degrees of freedom: over workers, over rounds."""
    rng = np.random.default_rng(SEED)
    n_workers, n_rounds = floors_s.shape
    found = []
    if n_workers > 1:
        some = rng.integers(0, n_workers, (N_RESAMPLES, n_workers))
        found.append((_spread(level_of(floors[some], rule), n_workers), n_workers - 1.0))
    if n_rounds > 1:
        some = rng.integers(0, n_rounds, (N_RESAMPLES, n_rounds))
        resampled = np.moveaxis(floors_s[:, some], 0, 1)
        levels = level_of(worker_floors_s(resampled, rule), rule)
        found.append((_spread(levels, n_rounds), n_rounds - 1.0))
    return found


def _spread(levels_s: Float64, n: int) -> float:
    """Return the variance in logs, freed of the bias of resampling ``n`` of ``n``."""
    known = levels_s[np.isfinite(levels_s)]
    return float(np.log(known).var()) * n / (n - 1)
