"""From everything a search judged to the few networks that are measured, and their front."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from hwprof.errors import DeviceError
from hwprof.measure.records import Measurement, Result
from hwprof.pareto import front_indices, spread_indices
from hwprof.results import Trial
from hwprof.space import Architecture

Measure = Callable[[Sequence[Architecture]], Sequence[Result]]
"""Measures networks on a device: one result for each, in any order."""

ONE_HALF_WIDTH = 1.0 + 1e-9
"""The most by which a finalist may miss the predicted front; rounding must not decide."""


def front_of(trials: Sequence[Trial], target_s: float | None) -> tuple[Trial, ...]:
    """Return the non-dominated trials that are fast enough, fastest first."""
    wanted = [t for t in trials if target_s is None or t.latency_s <= target_s]
    front = front_indices([t.latency_s for t in wanted], [t.accuracy_pct for t in wanted])
    return tuple(wanted[i] for i in front)


def choose_finalists(
    trials: Sequence[Trial], n: int, target_s: float | None, always: Sequence[Architecture] = ()
) -> tuple[Trial, ...]:
    """Choose at most ``n`` networks worth measuring, fastest first.

    Those of ``always``, then the predicted front (spread over it where it is longer than ``n``),
    then those that the uncertainty of the prediction could put there, the likeliest first.

    Args:
        trials: with predicted latency; ``ci95_s`` is the prediction's 95 % interval.
        n: how many may be measured.
        target_s: slower networks are not wanted.
        always: networks to be measured whatever beats them, the most wanted first.
    """
    known = {t.arch: t for t in trials}
    wanted = [known[arch] for arch in dict.fromkeys(always) if arch in known][:n]
    usual = [t for t in _usual_finalists(trials, n, target_s) if t not in wanted]
    chosen = [*wanted, *usual[: n - len(wanted)]]
    return tuple(sorted(chosen, key=lambda t: t.latency_s))


def _usual_finalists(trials: Sequence[Trial], n: int, target_s: float | None) -> list[Trial]:
    front = front_of(trials, target_s)
    if len(front) >= n:
        kept = spread_indices([t.latency_s for t in front], [t.accuracy_pct for t in front], n)
        return [front[i] for i in sorted(kept)]
    on_front = {t.arch for t in front}
    others = [(_shortfall(t, front, target_s), t) for t in trials if t.arch not in on_front]
    near = sorted((o for o in others if o[0] <= ONE_HALF_WIDTH), key=lambda o: o[0])
    return [*front, *(t for _, t in near[: n - len(front)])]


def measured(finalists: Sequence[Trial], measure: Measure) -> tuple[Trial, ...]:
    """Measure the finalists; the predicted latency is kept beside the measured one.

    A finalist that could not be measured keeps its predicted latency, and its ``state`` says
    why it has no other.

    Raises:
        DeviceError: not one of them could be measured.
    """
    found = {
        result.workload.arch.arch_id: result
        for result in measure([t.arch for t in finalists])
        if result.workload.arch is not None
    }
    trials = tuple(_with_result(t, found.get(t.arch.arch_id)) for t in finalists)
    if trials and not any(t.latency_source == "measured" for t in trials):
        raise DeviceError(
            f"none of the {len(trials)} finalists could be measured ({trials[0].state}); "
            "mend the device and call the same search again: what was judged is kept"
        )
    return trials


def _with_result(trial: Trial, result: Result | None) -> Trial:
    if result is None:
        return replace(trial, state="failed: the device gave no result")
    if not isinstance(result, Measurement):
        return replace(trial, state=f"failed: {result.kind} in {result.stage}: {result.message}")
    return replace(
        trial,
        latency_s=result.level_s,
        latency_source="measured",
        predicted_s=trial.latency_s,
        ci95_s=result.ci95_s,
        verdict=result.verdict,
    )


def _shortfall(trial: Trial, front: Sequence[Trial], target_s: float | None) -> float:
    """Return by how much ``trial`` misses the front, in 95 % half-widths of that difference.

    At most 1: it may well be on the front. Infinite: surely dominated, or surely too slow.
    """
    half_s = _half_width_s(trial)
    misses = [
        _ratio(trial.latency_s - other.latency_s, math.hypot(half_s, _half_width_s(other)))
        for other in front
        if other.accuracy_pct >= trial.accuracy_pct
    ]
    if target_s is not None and trial.latency_s > target_s:
        misses.append(_ratio(trial.latency_s - target_s, half_s))
    return max(misses, default=0.0)


def _ratio(miss_s: float, scale_s: float) -> float:
    return miss_s / scale_s if scale_s > 0.0 else math.inf


def _half_width_s(trial: Trial) -> float:
    return trial.ci95_s[1] - trial.latency_s if trial.ci95_s else 0.0
