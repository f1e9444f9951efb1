"""Two workloads, timed side by side: is one slower, and by how much? Pure functions on arrays.

Bursts of the same worker and round stand next to each other in time, so what the machine does
falls on both; their log-ratio d is what is judged. The gate asks three things of a change: that
the pairs agree on its sign (Wilcoxon), that it is large enough to matter (Hodges–Lehmann), and
that the workers share it, since pairs of one worker are not independent.

Sources: Wilcoxon (1945); Hodges and Lehmann (1963); the interval from Walsh averages as in
Hollander and Wolfe, Nonparametric Statistical Methods, §3.3. Ratios are B over A, so that
a positive shift means that B is slower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwprof.measure.level import burst_statistic_s, used_bursts
from hwprof.measure.records import LabelledBurst

Float64 = NDArray[np.float64]
Cell = tuple[str, int]
"""Worker and round of a burst."""
PairedVerdict = Literal["regressed", "improved", "equivalent", "inconclusive"]

SIGNIFICANCE = 0.01
SMALLEST_SHIFT = 0.01
AGREEING_WORKERS = 0.8
CONFIDENCE = 0.99
POWER = 0.8
"""What is called detectable is found so often."""
MOST_EXACT = 50
"""Up to so many pairs the signed-rank distribution is counted; beyond, the normal one is used."""


@dataclass(frozen=True, kw_only=True)
class PairedResult:
    """What the pairs of two workloads say about B against A.

    Shifts are relative (0.05: B takes 5 % longer). ``shift_ci99`` is unbounded where there are
    too few pairs for 99 % confidence. ``detectable`` is the shift that would be found four
    times in five; infinite with an unbounded interval.
    """

    verdict: PairedVerdict
    shift: float
    shift_ci99: tuple[float, float]
    p_slower: float
    p_faster: float
    workers_up: float
    workers_down: float
    workers_within: float
    """Share of the workers in which B is not slower by as much as matters."""
    detectable: float
    n_pairs: int


def log_ratios(
    a: Sequence[LabelledBurst], b: Sequence[LabelledBurst], threads: int
) -> dict[str, Float64]:
    """Return ln(b/a) of every pair of bursts, by worker: ``float64[rounds]`` each.

    Bursts pair by worker and round; warm-up and what has no partner stay out.
    """
    return ratios_by_worker(_by_cell(a, threads), _by_cell(b, threads))


def ratios_by_worker(a: Mapping[Cell, float], b: Mapping[Cell, float]) -> dict[str, Float64]:
    """Return ln(b/a) of every cell that both have, by worker: ``float64[rounds]`` each."""
    ratios: dict[str, list[float]] = {}
    for cell, ours in a.items():
        if (theirs := b.get(cell)) is not None:
            ratios.setdefault(cell[0], []).append(math.log(theirs / ours))
    return {worker: np.array(values) for worker, values in ratios.items()}


def _by_cell(bursts: Sequence[LabelledBurst], threads: int) -> dict[Cell, float]:
    return {
        (b.worker, b.round_index): s
        for b in used_bursts(bursts)
        if (s := burst_statistic_s(b.burst, threads)) is not None
    }


def judge_pairs(
    ratios: Mapping[str, Float64],
    delta: float = SMALLEST_SHIFT,
    confidence: float = CONFIDENCE,
    family: int = 1,
    *,
    apart: bool = False,
) -> PairedResult:
    """Decide whether B is slower than A, faster, as fast, or whether that is open.

    Regressed: one-sided Wilcoxon p < 0.01, shift > ``delta``, and four of five workers shift
    up. Improved mirrors it. Equivalent: not regressed, the 99 % interval ends below ``delta``,
    and so does the shift in four of five workers. Everything else is inconclusive.

    Args:
        ratios: log-ratios by worker (:func:`log_ratios`).
        delta: the smallest relative change that matters; below 1 % counts as 1 %.
        confidence: of the interval: 1 − α where this look may spend the false-alarm rate α.
        family: how many workloads are judged together, for what is detectable.
        apart: the two sides of a pair ran in different processes. What a process happens to get
            for life then shifts all the pairs of its worker alike, so that pairs of one worker say
            the same thing again: the workers' own shifts must be as unlikely by Student's t, and
            the interval holds theirs.

    Raises:
        ValueError: there is no pair.
    """
    d = np.concatenate([*ratios.values(), np.empty(0)])
    if d.size == 0:
        raise ValueError("no pair of bursts, so there is nothing to compare")
    delta = max(delta, SMALLEST_SHIFT)
    rate = (1.0 - confidence) / family
    walsh = walsh_averages(d)
    low, high = walsh_interval(walsh, confidence)
    medians = np.array([hodges_lehmann(values) for values in ratios.values()])
    p_slower, p_faster = wilcoxon_p(d), wilcoxon_p(-d)
    detectable = _detectable(high - low, delta, confidence, rate)
    if apart:
        p_slower, p_faster = max(p_slower, student_p(medians)), max(p_faster, student_p(-medians))
        apart_low, apart_high = student_interval(medians, confidence)
        low, high = min(low, apart_low), max(high, apart_high)
        detectable = max(detectable, _detectable_apart(medians, delta, rate))
    result = PairedResult(
        verdict="inconclusive",
        shift=math.expm1(float(np.median(walsh))),
        shift_ci99=(math.expm1(low), math.expm1(high)),
        p_slower=p_slower,
        p_faster=p_faster,
        workers_up=float(np.mean(medians > 0)),
        workers_down=float(np.mean(medians < 0)),
        workers_within=float(np.mean(medians < math.log1p(delta))),
        detectable=detectable,
        n_pairs=int(d.size),
    )
    verdict = paired_verdict(
        result,
        delta,
        slower=result.p_slower < SIGNIFICANCE,
        faster=result.p_faster < SIGNIFICANCE,
    )
    return replace(result, verdict=verdict)


def paired_verdict(
    result: PairedResult, delta: float, *, slower: bool, faster: bool
) -> PairedVerdict:
    """Return the verdict, given which of the two one-sided tests hold.

    A slowdown by 1 + delta and a speed-up by 1 / (1 + delta) mirror each other.
    """
    if slower and result.shift > delta and result.workers_up >= AGREEING_WORKERS:
        return "regressed"
    faster_by = math.expm1(-math.log1p(result.shift))
    if faster and faster_by > delta and result.workers_down >= AGREEING_WORKERS:
        return "improved"
    within = result.shift_ci99[1] < delta and result.workers_within >= AGREEING_WORKERS
    return "equivalent" if within else "inconclusive"


def _detectable(width: float, delta: float, confidence: float, rate: float) -> float:
    """Return the shift found with 80 % power, from the width of the interval (logs).

    It must exceed ``delta`` by 0.84 standard errors, and the least significant shift by as many.
    The interval is two-sided, twice the quantile of 0.5 + ``confidence`` / 2 wide; the tests are
    one-sided at p < ``rate``.
    """
    standard_error = width / (2.0 * normal_quantile(0.5 + confidence / 2))
    beyond, significant = normal_quantile(POWER), normal_quantile(1.0 - rate)
    return max(delta + beyond * standard_error, (significant + beyond) * standard_error)


def _detectable_apart(shifts: Float64, delta: float, rate: float) -> float:
    """Return the shift found with 80 % power where the workers' own shifts must agree.

    It must exceed ``delta``, and what Student's t asks for at p < ``rate``, by as much as the power
    needs. Pairs know nothing of it: what a process gets for life is in all of its pairs alike.
    Infinite with fewer than two ``shifts[n]``.
    """
    from scipy.special import stdtrit

    n = shifts.size
    if n < 2:
        return math.inf
    error = _error(shifts)
    significant, beyond = (float(stdtrit(n - 1, p)) for p in (1.0 - rate, POWER))
    return max(delta + beyond * error, (significant + beyond) * error)


def _error(shifts: Float64) -> float:
    return float(shifts.std(ddof=1)) / math.sqrt(shifts.size)


def wilcoxon_p(d: Float64) -> float:
    """Return the one-sided p of the signed-rank test that ``d`` is shifted upward.

    Zeros are dropped, tied sizes share their mean rank. Without ties and up to 50 values the
    p is exact; else it is the normal approximation, corrected for ties and continuity.
    """
    d = d[d != 0]
    n = d.size
    ranks, counts = _mid_ranks(np.abs(d))
    score = float(ranks[d > 0].sum())
    if n <= MOST_EXACT and counts.size == n:
        return _exact_upper_tail(n, round(score))
    ties = float((counts.astype(np.float64) ** 3 - counts).sum())
    variance = n * (n + 1) * (2 * n + 1) / 24 - ties / 48
    z = (score - n * (n + 1) / 4 - 0.5) / math.sqrt(variance)
    return 0.5 * math.erfc(z / math.sqrt(2))


def student_p(shifts: Float64) -> float:
    """Return the one-sided p of Student's t that ``shifts[n]`` lie above zero; 1 of fewer than two."""
    from scipy.special import stdtr

    n = shifts.size
    if n < 2:
        return 1.0
    mean, error = float(shifts.mean()), _error(shifts)
    if error == 0.0:
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(n - 1, -mean / error))


def student_interval(shifts: Float64, confidence: float) -> tuple[float, float]:
    """Return Student's interval of the mean of ``shifts[n]``; unbounded of fewer than two."""
    from scipy.special import stdtrit

    n = shifts.size
    if n < 2:
        return (-math.inf, math.inf)
    mean, half = float(shifts.mean()), float(stdtrit(n - 1, 0.5 + confidence / 2)) * _error(shifts)
    return (mean - half, mean + half)


def _mid_ranks(sizes: Float64) -> tuple[Float64, NDArray[np.int64]]:
    """Return every value's rank from 1 up, ties sharing their mean, and the ties' lengths."""
    _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - 0.5 * (counts - 1))[inverse], counts


def _exact_upper_tail(n: int, score: int) -> float:
    """Return P(T ≥ score) for the sum T of the ranks 1 … n, each taken with even odds."""
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1.0
    for rank in range(1, n + 1):
        ways[rank:] = 0.5 * (ways[rank:] + ways[:-rank])
        ways[:rank] *= 0.5
    return float(min(1.0, ways[score:].sum()))


def walsh_averages(d: Float64) -> Float64:
    """Return the sorted means of every pair of ``d[n]``, each value with itself too.

    ``float64[n(n+1)/2]``.
    """
    i, j = np.triu_indices(d.size)
    averages: Float64 = np.sort(0.5 * (d[i] + d[j]))
    return averages


def hodges_lehmann(d: Float64) -> float:
    """Return the Hodges–Lehmann shift of ``d[n]``: the median of its Walsh averages."""
    return float(np.median(walsh_averages(d)))


def walsh_interval(walsh: Float64, confidence: float) -> tuple[float, float]:
    """Return the confidence interval of the shift from sorted Walsh averages.

    The k-th from each end, k = n(n+1)/4 − z·√(n(n+1)(2n+1)/24), rounded down. Unbounded where
    so few pairs cannot give that confidence.
    """
    n = (math.isqrt(8 * walsh.size + 1) - 1) // 2
    spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    k = math.floor(n * (n + 1) / 4 - normal_quantile(0.5 + confidence / 2) * spread)
    if k < 1:
        return (-math.inf, math.inf)
    return float(walsh[k - 1]), float(walsh[-k])


def normal_quantile(p: float) -> float:
    """Return the standard normal quantile."""
    from scipy.special import ndtri

    return float(ndtri(p))
