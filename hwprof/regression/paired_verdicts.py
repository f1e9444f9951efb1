"""From timed pairs to comparisons: levels and tails, judged over all workloads together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hwprof.measure.records import DeviceRef, MeasurePlan
from hwprof.progress import Progress, ProgressCallback
from hwprof.regression.gate import (
    MOST_PREEMPTED,
    TAIL_SHIFT,
    Gate,
    settle,
    tail_ratios,
)
from hwprof.regression.records import Comparison, Tail, Verdict
from hwprof.regression.side_by_side import (
    CAP_S,
    PLAN,
    Pair,
    PairFailed,
    PairTimed,
    side_by_side,
)

_WORDS: dict[str, Verdict] = {
    "regressed": "REGRESSED",
    "improved": "IMPROVED",
    "equivalent": "EQUIVALENT",
    "inconclusive": "INCONCLUSIVE",
}


@dataclass(kw_only=True)
class _Judged:
    """A timed pair with its gates; ``tail`` is None where the tail cannot be judged."""

    pair: Pair
    timed: PairTimed
    gate: Gate
    tail: Gate | None = None
    tail_verdict: Verdict = "INCONCLUSIVE"
    tail_note: str = ""


def compare_pairs(
    pairs: Sequence[Pair],
    device: DeviceRef,
    *,
    threshold: float,
    plan: MeasurePlan = PLAN,
    cap_s: float = CAP_S,
    progress: ProgressCallback | None = None,
) -> tuple[Comparison, ...]:
    """Time every pair, then judge them together (Holm), in the order of ``pairs``.

    Args:
        pairs: what is compared.
        device: where.
        threshold: the smallest relative change that matters.
        plan: how it is timed.
        cap_s: longest for one pair, start of its workers included.
        progress: called after every round.

    Raises:
        DeviceUnavailableError: the device cannot be opened.
    """
    found: list[_Judged | Comparison] = []
    for index, pair in enumerate(pairs):
        apart = pair.is_apart(device.options.threads)
        gate = Gate(delta=threshold, family=len(pairs), apart=apart)
        tell = _teller(progress, index, len(pairs), pair.label)
        timed = side_by_side(pair, device, gate, plan=plan, cap_s=cap_s, tell=tell)
        if isinstance(timed, PairFailed):
            found.append(_failed(pair, timed))
        else:
            found.append(_with_tail(_Judged(pair=pair, timed=timed, gate=gate), device))
    judged = [f for f in found if isinstance(f, _Judged)]
    _judge_tails(judged)
    levels = iter(settle([j.gate for j in judged]))
    return tuple(_row(f, _WORDS[next(levels)]) if isinstance(f, _Judged) else f for f in found)


def _judge_tails(judged: Sequence[_Judged]) -> None:
    tails = [(one, one.tail) for one in judged if one.tail is not None]
    for (one, _), verdict in zip(tails, settle([gate for _, gate in tails]), strict=True):
        one.tail_verdict = _WORDS[verdict]


def _teller(
    progress: ProgressCallback | None, done: int, total: int, label: str
) -> Callable[[str], None] | None:
    if progress is None:
        return None
    return lambda what: progress(
        Progress(stage="compare", done=done, total=total, label=f"{label}: {what}")
    )


def _failed(pair: Pair, failed: PairFailed) -> Comparison:
    return Comparison(
        workload=pair.label,
        verdict="NOT_COMPARABLE",
        method="paired",
        reason=f"{failed.side}: {failed.failure.why}",
    )


def _with_tail(one: _Judged, device: DeviceRef) -> _Judged:
    timed, threads = one.timed, device.options.threads
    waited = max(m.telemetry["preempted_share"] for m in (timed.base, timed.new))
    ratios = tail_ratios(timed.base_bursts, timed.new_bursts, threads)
    if waited >= MOST_PREEMPTED:
        one.tail_note = (
            f"{waited:.1%} of the calls waited for a core (below {MOST_PREEMPTED:.0%} is needed): "
            "measure when the machine is quieter"
        )
    elif not ratios:
        one.tail_note = "most bursts hold fewer than 10 calls, too few for a 90th percentile"
    else:
        one.tail = Gate(delta=TAIL_SHIFT, apart=one.gate.apart)
        # Looked at once, when all is timed: it may spend its whole rate.
        one.tail.look_once(ratios)
    return one


def _row(one: _Judged, verdict: Verdict) -> Comparison:
    found, timed = one.gate.latest, one.timed
    assert found is not None
    return Comparison(
        workload=one.pair.label,
        verdict=verdict,
        method="paired",
        reason=_reason(verdict, one),
        shift=found.shift,
        shift_ci99=found.shift_ci99,
        detectable=found.detectable,
        base_s=timed.base.level_s,
        new_s=timed.new.level_s,
        tail=_tail(one),
        tail_note=one.tail_note,
        differences=timed.base.differences(timed.new),
        n_pairs=found.n_pairs,
    )


def _tail(one: _Judged) -> Tail | None:
    if one.tail is None:
        return None
    found = one.tail.latest
    assert found is not None
    return Tail(verdict=one.tail_verdict, shift=found.shift, shift_ci99=found.shift_ci99)


def _reason(verdict: Verdict, one: _Judged) -> str:
    found, timed = one.gate.latest, one.timed
    assert found is not None
    base = f"{found.n_pairs} pairs of bursts in {timed.rounds} round{'s' * (timed.rounds != 1)}"
    if verdict == "INCONCLUSIVE":
        quieter = "before the difference was clear: measure when the machine is quieter"
        if timed.capped:
            return f"{base}; the time was up {quieter}, or raise --max-time"
        return f"{base}; all looks were spent {quieter}"
    return base
