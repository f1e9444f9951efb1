"""Several devices side by side, as rows that the page, the terminal and the tables share."""

from __future__ import annotations

from dataclasses import dataclass

from hwprof.estimate.comparing import DeviceCorrelation, EffectsComparison, Flip
from hwprof.estimate.responses import Friendliness
from hwprof.interval import Interval
from hwprof.units import fixed, format_spread

OF_WORDS = {
    "networks": "networks measured on both",
    "network": "blocks used everywhere",
    "block": "blocks at their slots",
    "depth": "depths",
}


@dataclass(frozen=True, kw_only=True)
class SideBySideRow:
    """A block used everywhere, on every device: its cost as a share of the device's mean."""

    block: str
    shares: tuple[Interval | None, ...]


def side_by_side(comparison: EffectsComparison) -> tuple[SideBySideRow, ...]:
    """Return one row a block, in the space's order; shares make slow and fast devices comparable.

    The share is of the mean latency of the space's random networks, None where that is unknown.
    """
    rows = []
    first = comparison.devices[0].friendliness
    for term, row in first.design.index.items():
        if term.kind == "network":
            shares = tuple(_share(d.friendliness, row) for d in comparison.devices)
            rows.append(SideBySideRow(block=str(term.block), shares=shares))
    return tuple(rows)


def device_sentences(comparison: EffectsComparison) -> list[str]:
    """Say how alike the devices are and what turns round between them."""
    found = [correlation_sentence(c) for c in comparison.correlations]
    if not comparison.flips:
        found.append(
            "No block is slower than its rivals on one device and faster on another with 95 % "
            "confidence in all comparisons together (Holm)."
        )
    return found + [flip_sentence(flip) for flip in comparison.flips]


def correlation_sentence(correlation: DeviceCorrelation) -> str:
    """Say how alike two devices rank something."""
    interval = correlation.interval
    bounds = (
        f" [{fixed(interval.lo, 3)}, {fixed(interval.hi, 3)}]"
        if interval
        else ", too few for an interval"
    )
    return (
        f"{correlation.first} and {correlation.second} rank {correlation.n} "
        f"{OF_WORDS[correlation.of]} with a correlation of "
        f"{fixed(correlation.spearman, 3)}{bounds} (Spearman)."
    )


def flip_sentence(flip: Flip) -> str:
    """Say where a block is slow and where it is fast."""
    effect = flip.slower
    where = "everywhere" if effect.unit is None else f"in unit {effect.unit} layer {effect.layer}"
    return (
        f"{effect.block} {where} is slower than its rivals on {flip.slower_on} "
        f"({format_spread(flip.slower.latency)}) and faster on {flip.faster_on} "
        f"({format_spread(flip.faster.latency)}), adjusted p = {flip.adjusted_p:.2g}."
    )


def _share(friendliness: Friendliness, row: int) -> Interval | None:
    mean, effect = friendliness.mean_latency, friendliness.effects[row].latency
    if mean is None or effect is None or mean.value <= 0.0:
        return None
    return Interval(*(v / mean.value for v in effect))
