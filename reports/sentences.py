"""The answers in words: what to use, what to avoid, and how far the numbers can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hwprof.interval import Interval
from hwprof.reports.contexts import ContextSummary
from hwprof.reports.fronts import ComparisonRow, FrontPoint, best_points, picks, strategy_name
from hwprof.reports.views import EverywhereRow, HeatMap, ReportData, drop_words, everywhere_rows
from hwprof.results import TARGET_TOLERANCE, TargetOutcome
from hwprof.units import (
    fixed,
    format_pct,
    format_seconds,
    format_share,
)

VERDICT_MEANINGS = {
    "clean": "confirmed by several fresh processes, interval as narrow as asked",
    "noisy": "the interval is wider than asked, and says so",
    "unconfirmed": "too few fresh processes agree on the lowest level",
    "drifting": "the latency was still changing while it was measured",
    "contaminated": (
        "other work took more than 0.2 of a core, or was on the GPU, or the hypervisor took over 2 %"
    ),
    "throttled": "the device slowed itself down (heat or power), or a container's CPU quota stopped it",
}

SOUND = ("clean", "noisy")
"""Verdicts whose level can be believed within its interval."""

EMULATED = "Emulated device: these latencies say nothing about real hardware."

Trust = Literal["good", "care", "poor", "unknown"]
TRUST_WORDS: dict[Trust, str] = {
    "good": "The numbers can be trusted",
    "care": "The numbers can be trusted with care",
    "poor": "Do not rely on these numbers alone",
    "unknown": "How far the numbers can be trusted is not known",
}

TRUST_RULE = (
    "The rule: trusted where at least 90 % of the workloads are clean or noisy, half of the "
    "unseen networks are predicted within 5 %, and at least 90 % of them lie inside their "
    "interval; not to be relied on where under half of the workloads are clean or noisy, the "
    "median error is over 10 %, or the device is emulated; with care in between."
)


@dataclass(frozen=True, kw_only=True)
class TrustStatement:
    """How far the numbers can be trusted, and the figures that say so."""

    level: Trust
    reasons: tuple[str, ...]

    @property
    def title(self) -> str:
        """The statement in a few words."""
        return TRUST_WORDS[self.level]


def trust(data: ReportData) -> TrustStatement:
    """Judge the results by :data:`TRUST_RULE`."""
    reasons = [EMULATED] if data.emulated else []
    levels: list[Trust] = ["poor"] if data.emulated else []
    sound, total = _sound(data)
    if total:
        levels.append(_grade(sound >= 0.9 * total, sound < 0.5 * total))
        others = ", ".join(f"{v.n} {v.verdict}" for v in data.verdicts if v.n)
        reasons.append(
            f"{sound} of {total} workloads ({format_share(sound / total)}) have a level that can "
            f"be believed within its interval: {others}."
        )
    if data.holdout is not None:
        held = data.holdout
        fine = held.median_rel_error <= 0.05 and held.coverage95 >= 0.9
        levels.append(_grade(fine, held.median_rel_error > 0.1))
        reasons.append(
            f"Of {held.n} networks the model had not seen, it missed half by less than "
            f"{format_share(held.median_rel_error, 1)}; {format_share(held.within_10pct)} came "
            f"within 10 %, {format_share(held.coverage95)} inside their 95 % interval, and the "
            f"order was right to a rank correlation of {held.spearman:.3f}."
        )
        if held.sessions_apart:
            reasons.append(
                f"The run's sessions lay {format_share(held.sessions_apart, 1)} apart (standard "
                "deviation), which is taken out of what predictions are judged by."
            )
    if data.campaign.failures:
        n = len(data.campaign.failures)
        reasons.append(f"{n} workload{'s' if n > 1 else ''} gave no number; the reasons are below.")
    if not data.verdicts and not data.emulated:
        reasons.append("The latencies were imported: hwprof did not measure them here.")
    if not levels:
        return TrustStatement(level="unknown", reasons=tuple(reasons))
    worst = max(levels, key=("good", "care", "poor").index)
    return TrustStatement(level=worst, reasons=tuple(reasons))


def _sound(data: ReportData) -> tuple[int, int]:
    """Return how many levels can be believed within their interval, of how many."""
    sound = sum(v.n for v in data.verdicts if v.verdict in SOUND)
    return sound, sum(v.n for v in data.verdicts)


def _grade(good: bool, poor: bool) -> Trust:
    return "good" if good else "poor" if poor else "care"


def headline(data: ReportData, points: Sequence[FrontPoint]) -> tuple[str, ...]:
    """Return the report's answer in up to four sentences with their numbers."""
    sentences = [
        _blocks_sentence(everywhere_rows(data)),
        _reduction_sentence(data),
        _networks_sentence(best_points(points)),
    ]
    return tuple(s for s in sentences if s)


def _blocks_sentence(rows: Sequence[EverywhereRow]) -> str:
    timed = [r for r in rows if r.latency is not None]
    if not timed:
        return ""
    if not any(r.latency.excludes_zero for r in timed if r.latency):
        return "The choice of block makes no difference to latency that these measurements can see."
    if any(r.accuracy is None for r in timed):
        return (
            f"Fastest block: {timed[0].block}, {_change(timed[0])}. "
            f"Slowest: {timed[-1].block}, {_change(timed[-1])}."
        )
    worth = _worth(timed)
    prefer, avoid = max(timed, key=worth.__getitem__), min(timed, key=worth.__getitem__)
    return (
        f"Prefer {prefer.block}: {_change(prefer)}. "
        f"Avoid {avoid.block}: {_change(avoid)}{_beaten(avoid, timed)}."
    )


def _worth(rows: Sequence[EverywhereRow]) -> dict[EverywhereRow, float]:
    """Return how far each block lies above the mean trade of accuracy for latency.

    Latency and accuracy count by their ranges over the blocks: a block that is as slow as it is
    accurate has worth zero.
    """
    latency = [r.latency.value for r in rows if r.latency]
    accuracy = [r.accuracy.value for r in rows if r.accuracy]
    spans = (max(latency) - min(latency) or 1.0, max(accuracy) - min(accuracy) or 1.0)
    return {
        row: (y - min(accuracy)) / spans[1] - (x - min(latency)) / spans[0]
        for row, x, y in zip(rows, latency, accuracy, strict=True)
    }


def _change(row: EverywhereRow) -> str:
    assert row.latency is not None
    text = format_seconds(row.latency.value, signed=True)
    text += "" if row.latency.excludes_zero else " (not settled)"
    if row.accuracy is not None:
        text += f" and {fixed(row.accuracy.value, 2, signed=True)} pp"
        text += "" if row.accuracy.excludes_zero else " (not settled)"
    return f"used everywhere it means {text} against a random mix"


def _beaten(row: EverywhereRow, others: Sequence[EverywhereRow]) -> str:
    """Name the block that is both faster and more accurate, if there is one."""
    assert row.latency is not None
    assert row.accuracy is not None
    for other in others:
        assert other.latency is not None
        assert other.accuracy is not None
        if other.latency.hi < row.latency.lo and other.accuracy.lo > row.accuracy.hi:
            return f"; {other.block} is faster and more accurate"
    return ""


def _reduction_sentence(data: ReportData) -> str:
    if data.reduction is None:
        return ""
    drops = data.reduction.drops
    if not drops:
        return "Nothing in the space is bad enough on this device to leave out."
    named = ", ".join(drop_words(d) + _saved(d.latency_s) for d in drops[:4])
    more = f" and {len(drops) - 4} more" if len(drops) > 4 else ""
    return f"Leave out {named}{more}."


def _saved(saves: Interval | None) -> str:
    """Say what a cut saves; one made for accuracy may cost time."""
    if saves is None:
        return ""
    return f" ({'costs' if saves.value < 0.0 else 'saves'} {format_seconds(abs(saves.value))})"


def _networks_sentence(best: Sequence[FrontPoint]) -> str:
    named = picks(best)
    if not named:
        return ""
    how = "measured on the device" if best[0].confirmed else "latency predicted, not yet measured"
    texts = [
        f"{name} #{p.number} with {format_pct(p.trial.accuracy_pct)} at "
        f"{format_seconds(p.trial.latency_s)}"
        for name, p in named
    ]
    return f"Best networks, {how}: {'; '.join(texts)}."


def heat_note(heat: HeatMap) -> str:
    """Say how many cells are settled, and how many would be by chance."""
    n = len(heat.values)
    chance = max(1, round(0.05 * n))
    return (
        f"Coloured and bold: the sign is settled at 95 % ({heat.n_settled} of {n} cells; chance "
        f"alone would colour about {chance}). Grey: the interval includes zero."
    )


def context_sentence(summary: ContextSummary) -> str:
    """Say how well isolated timing tells the cost in a network."""
    text = f"A difference of 1 ms between blocks timed alone is {summary.slope:.2f} ms in a network"
    if summary.correlation is not None:
        text += f" (correlation {summary.correlation:.2f})"
    return (
        f"{text}; {summary.n_disagree} of {summary.n} blocks differ by more than both "
        "intervals explain."
    )


def comparison_sentence(rows: Sequence[ComparisonRow]) -> str:
    """Say what reducing the space did for the fronts, at the same budget."""
    gains = [(r.strategy, r.gain) for r in rows if r.gain is not None]
    if not gains:
        return ""
    parts = [
        f"{strategy_name(strategy)} {'gained' if gain >= 0 else 'lost'} {format_share(abs(gain), 1)}"
        for strategy, gain in gains
    ]
    return f"Hypervolume in the reduced space: {', '.join(parts)}.{_seeds_words(rows)}"


def _seeds_words(rows: Sequence[ComparisonRow]) -> str:
    """Say how many searches gains rest on; a gain has those of both spaces behind it."""
    compared = {r.strategy for r in rows if r.gain is not None}
    counts = [r.n_searches for r in rows if r.strategy in compared]
    fewest, most = min(counts), max(counts)
    if fewest == 1:
        one = "One search each" if most == 1 else "Of some there is one search only"
        return f" {one}: differences of this size can be chance; repeat with other seeds."
    return f" Means over {fewest if fewest == most else f'{fewest} to {most}'} seeds."


def target_sentence(outcome: TargetOutcome) -> str:
    """Say how near to its target latency a search came."""
    measured = outcome.measured_s is not None
    level = outcome.measured_s if measured else outcome.predicted_s
    off = f"{fixed(100.0 * outcome.deviation, 1, signed=True)} %"
    verdict = {
        "hit": f"within {format_share(TARGET_TOLERANCE)} of the target",
        "slower": f"missed: slower than the target by more than {format_share(TARGET_TOLERANCE)}",
        "faster": f"missed: faster than the target by more than {format_share(TARGET_TOLERANCE)}",
    }[outcome.verdict]
    free = "" if outcome.is_limiting else "; latency did not hold the search back"
    return (
        f"Target {format_seconds(outcome.target_s, digits=4)}: "
        f"{format_seconds(level, digits=4)} {'measured' if measured else 'predicted, not measured'} "
        f"({off}), {verdict}{free}. Expected {format_seconds(outcome.expected_s, digits=4)}, most "
        f"probable network {format_seconds(outcome.argmax_s, digits=4)}, derived network "
        f"{format_seconds(outcome.predicted_s, digits=4)} by the latency model."
        f"{_faster_text(outcome)}"
    )


def _faster_text(outcome: TargetOutcome) -> str:
    found = outcome.faster
    if found is None:
        return ""
    how = "measured" if found.latency_source == "measured" else "predicted, not measured"
    own = outcome.accuracy_pct
    against = "" if own is None else f", against {format_pct(own)} of the derived network"
    return (
        " Faster alternative: of itself, not held back by latency, the search came to a network of "
        f"{format_seconds(found.latency_s, digits=4)} {how} with {format_pct(found.accuracy_pct)}"
        f"{against}."
    )


def key_figures(data: ReportData, points: Sequence[FrontPoint]) -> tuple[tuple[str, str], ...]:
    """Return the (label, value) pairs that stand on cards."""
    sound, total = _sound(data)
    best = best_points(points)
    figures = [
        ("networks measured", str(data.campaign.n_networks)),
        ("blocks measured alone", str(data.campaign.n_blocks or "")),
        ("a random network", _mean_text(data)),
        ("believable levels", format_share(sound / total) if total else ""),
        (
            "median prediction error",
            format_share(data.holdout.median_rel_error, 1) if data.holdout else "",
        ),
        ("networks on the joint front", str(len(best)) if best else ""),
    ]
    return tuple((label, value) for label, value in figures if value)


def _mean_text(data: ReportData) -> str:
    parts = [format_seconds(data.mean_latency.value)] if data.mean_latency else []
    parts += [format_pct(data.mean_accuracy.value, 1)] if data.mean_accuracy else []
    return ", ".join(parts)
