"""The gate over several looks, and over several workloads: pure functions on arrays.

A look at the data costs a share of the false-alarm rate α, fixed beforehand: a comparison that
may end at any of K looks keeps its rate if look k is judged at f_k·α with Σ f_k = 1 (the union
bound; it asks nothing of how looks depend on each other). So min over looks of p_k / f_k is a
p-value for the whole sequence, and the interval of look k, at confidence 1 − f_k·0.01, holds
with 99 % whatever the look at which measuring ended. Over the workloads of a suite those
p-values go through Holm (1979), which holds under any dependence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwprof.estimate.claims import holm
from hwprof.measure.level import corrected_s, used_bursts
from hwprof.measure.paired import (
    CONFIDENCE,
    SIGNIFICANCE,
    SMALLEST_SHIFT,
    Cell,
    PairedResult,
    PairedVerdict,
    judge_pairs,
    paired_verdict,
    ratios_by_worker,
)
from hwprof.measure.records import LabelledBurst

Float64 = NDArray[np.float64]

LOOKS = (8, 16, 32, 64)
"""Rounds at which a comparison may end."""
SPENT = (0.1, 0.2, 0.3, 0.4)
"""Share of the false-alarm rate that each look spends."""
TAIL_SHIFT = 0.10
MOST_PREEMPTED = 0.01
FEWEST_TAIL_SAMPLES = 10
"""Bursts of fewer calls have no 90th percentile worth the name."""


@dataclass(kw_only=True)
class Gate:
    """One comparison as its rounds come in.

    Args:
        delta: the smallest relative change that matters.
        family: how many workloads are judged together; measuring goes on until a verdict would
            stand among so many.
        apart: the two sides run in different processes (:func:`hwprof.measure.paired.judge_pairs`).
    """

    delta: float = SMALLEST_SHIFT
    family: int = 1
    apart: bool = False
    p_slower: float = 1.0
    p_faster: float = 1.0
    n_looks: int = 0
    latest: PairedResult | None = None

    def look(self, ratios: Mapping[str, Float64]) -> PairedVerdict:
        """Judge all pairs so far; return what would be said if measuring ended here.

        Raises:
            ValueError: there is no pair, or no look is left.
        """
        if self.n_looks == len(SPENT):
            raise ValueError(f"the gate has {len(SPENT)} looks and all are spent")
        self.n_looks += 1
        return self._judge(ratios, SPENT[self.n_looks - 1])

    def look_once(self, ratios: Mapping[str, Float64]) -> PairedVerdict:
        """Judge pairs that are looked at only here: the one look spends the whole rate.

        Raises:
            ValueError: there is no pair, or there was a look before.
        """
        if self.n_looks:
            raise ValueError("the gate was looked at before")
        self.n_looks = len(SPENT)
        return self._judge(ratios, 1.0)

    def _judge(self, ratios: Mapping[str, Float64], share: float) -> PairedVerdict:
        confidence = 1.0 - (1.0 - CONFIDENCE) * share
        found = judge_pairs(ratios, self.delta, confidence, self.family, apart=self.apart)
        self.p_slower = min(self.p_slower, found.p_slower / share)
        self.p_faster = min(self.p_faster, found.p_faster / share)
        self.latest = found
        each = SIGNIFICANCE / self.family
        return self.verdict(slower=self.p_slower < each, faster=self.p_faster < each)

    def verdict(self, *, slower: bool, faster: bool) -> PairedVerdict:
        """Return the verdict, given which of the two one-sided tests hold."""
        assert self.latest is not None
        delta = max(self.delta, SMALLEST_SHIFT)
        return paired_verdict(self.latest, delta, slower=slower, faster=faster)


def settle(gates: Sequence[Gate]) -> list[PairedVerdict]:
    """Return the verdicts of workloads that are judged together (Holm in either direction)."""
    slower = rejected([g.p_slower for g in gates])
    faster = rejected([g.p_faster for g in gates])
    return [g.verdict(slower=s, faster=f) for g, s, f in zip(gates, slower, faster, strict=True)]


def rejected(ps: Sequence[float]) -> list[bool]:
    """Return which hypotheses are rejected: Holm's step-down, family-wise rate 1 %."""
    return [bool(p < SIGNIFICANCE) for p in holm(ps)]


def tail_ratios(
    a: Sequence[LabelledBurst], b: Sequence[LabelledBurst], threads: int
) -> dict[str, Float64]:
    """Return ln(p90 of b / p90 of a) of every pair of bursts, by worker.

    Nothing where the usual burst holds fewer than ten calls. No single one stays out for holding
    few: it does so where calls stalled, which is what is asked about.
    """
    n_calls = [x.burst.n_samples - 1 for side in (a, b) for x in used_bursts(side)]
    if not n_calls or np.median(n_calls) < FEWEST_TAIL_SAMPLES:
        return {}
    return ratios_by_worker(_p90_by_cell(a, threads), _p90_by_cell(b, threads))


def _p90_by_cell(bursts: Sequence[LabelledBurst], threads: int) -> dict[Cell, float]:
    cells = {}
    for labelled in used_bursts(bursts):
        x = corrected_s(labelled.burst, threads)
        if x.size:
            cells[labelled.worker, labelled.round_index] = float(np.quantile(x, 0.9))
    return cells
