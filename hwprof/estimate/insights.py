"""Design insights in words: what the effects say to someone who draws networks by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hwprof.estimate.claims import slot_claims
from hwprof.estimate.responses import Friendliness, Response
from hwprof.interval import Interval
from hwprof.results import Effect
from hwprof.units import format_points_spread, format_seconds, format_spread

NAMED = 3
"""Blocks listed per insight: as many as one remembers."""

ALIKE = 0.1
"""Spreads closer than this share are not ranked in words."""


def insights(friendliness: Friendliness) -> list[str]:
    """Say what to avoid, what to prefer, and where to look, each with its figures."""
    found = [_fit_sentence(friendliness)]
    found += _block_sentences(friendliness)
    found += _spread_sentences(friendliness)
    found += _claim_sentences(friendliness)
    found += _accuracy_sentences(friendliness)
    found += [f"Note: {note}." for note in friendliness.notes]
    return found


def _fit_sentence(friendliness: Friendliness) -> str:
    latency = friendliness.latency
    device = friendliness.device or "the device"
    if latency.mean is not None and latency.r2 is None:
        return f"A random network takes {format_spread(latency.mean)} on {device}."
    if latency.mean is None or latency.r2 is None or latency.residual_sd is None:
        return f"Effects on {device} come from a table; how well they fit is not known."
    text = (
        f"A random network takes {format_spread(latency.mean)} on {device}; a sum of block and depth "
        f"effects explains {100 * latency.r2:.1f} % of the variance over "
        f"{latency.n_networks} networks (residual sd {format_seconds(latency.residual_sd)})"
    )
    lack = latency.lack_of_fit
    if lack is not None and lack.curvature_p < 0.05:
        text += (
            f", and is not the whole story: a squared term adds to it (p = {lack.curvature_p:.2g}, "
            f"R² {lack.r2_curved:.3f})"
        )
    return text + "."


def _block_sentences(friendliness: Friendliness) -> list[str]:
    """Name the blocks that cost most everywhere, and the slot where each hurts most."""
    networks = friendliness.of_kind("network")
    costly = sorted(
        (e for e in networks if e.latency is not None and e.latency.lo > 0.0),
        key=lambda e: -_value(e.latency),
    )
    if not costly:
        return ["No block is slower than a random fill with confidence."]
    slots = [claim.effect for claim in slot_claims(friendliness)]
    found = []
    for effect in costly[:NAMED]:
        found.append(
            f"Avoid {effect.block} where time matters: everywhere it costs "
            f"{format_spread(effect.latency)}{_share(effect.latency, friendliness.latency)} against a "
            f"random fill{_worst_place(effect, slots)}{_points(effect.accuracy)}."
        )
    return found


def _worst_place(effect: Effect, slots: Sequence[Effect]) -> str:
    """Say where a block costs most, of the effects at one slot that stand together (Holm)."""
    own = [e for e in slots if e.block == effect.block and _value(e.latency) > 0.0]
    if not own:
        return ""
    worst = max(own, key=lambda e: _value(e.latency))
    return f", most in unit {worst.unit} layer {worst.layer} ({format_spread(worst.latency)})"


def _spread_sentences(friendliness: Friendliness) -> list[str]:
    """Compare how far depth moves latency with how far the choice of blocks does."""
    depths: dict[int | None, float] = {}
    for effect in friendliness.of_kind("depth"):
        depths[effect.unit] = depths.get(effect.unit, 0.0) + _value(effect.latency)
    rows: dict[tuple[int | None, int | None], list[int]] = {}
    for row, effect in enumerate(friendliness.effects):
        if effect.kind == "block":
            rows.setdefault((effect.unit, effect.layer), []).append(row)
    values = friendliness.latency.values
    spread = {place: float(np.ptp(values[own])) for place, own in rows.items()}
    if not any(spread.values()):
        return []
    # Noise spreads blocks too, by three standard errors at every slot with nine of them.
    by_block = sum(
        spread[place] * _share_that_is_no_noise(friendliness.latency, own)
        for place, own in rows.items()
    )
    found = []
    # For the same reason a place is named only where a block stands out with confidence.
    settled = [(claim.effect.unit, claim.effect.layer) for claim in slot_claims(friendliness)]
    if settled:
        widest = max(settled, key=lambda place: spread[place])
        ends = np.zeros(len(values))
        ends[max(rows[widest], key=lambda row: values[row])] = 1.0
        ends[min(rows[widest], key=lambda row: values[row])] = -1.0
        found.append(
            f"Where the choice of block matters most: unit {widest[0]} layer {widest[1]}, "
            f"{format_spread(friendliness.latency.interval(ends))} between its fastest and slowest "
            "candidate."
        )
    if depths:
        by_depth = sum(abs(v) for v in depths.values())
        moved = (
            f"from least to greatest, depth moves it {format_seconds(by_depth)} in all, "
            f"blocks {format_seconds(by_block)}."
        )
        if abs(by_depth - by_block) < ALIKE * max(by_depth, by_block):
            found.append(f"Depth and the choice of blocks move latency alike: {moved}")
        else:
            more, less = "depth", "the choice of blocks"
            if by_block > by_depth:
                more, less = less, more
            found.append(f"Latency is moved more by {more} than by {less}: {moved}")
    return found


def _share_that_is_no_noise(response: Response, rows: Sequence[int]) -> float:
    """Return which share of some effects' standard deviation their errors do not explain."""
    size = float(np.sum(response.values[rows] ** 2))
    noise = float(np.sum(np.diag(response.covariance)[rows]))
    return math.sqrt(max(0.0, 1.0 - noise / size)) if size > 0.0 else 0.0


def _claim_sentences(friendliness: Friendliness) -> list[str]:
    """Say how many of the many single-slot effects would stand together."""
    n = len(friendliness.of_kind("block"))
    claims = slot_claims(friendliness)
    if not n:
        return []
    text = (
        f"Of {n} effects of one block at one slot, {len(claims)} differ from zero with 95 % "
        "confidence in all of them together (Holm)"
    )
    if claims:
        first = claims[0].effect
        text += (
            f"; the surest: {first.block} in unit {first.unit} layer {first.layer}, "
            f"{format_spread(first.latency)} (adjusted p = {claims[0].adjusted_p:.2g})"
        )
    return [f"{text}."]


def _accuracy_sentences(friendliness: Friendliness) -> list[str]:
    scored = [e for e in friendliness.of_kind("network") if e.accuracy is not None]
    if not scored:
        return []
    settled = [e for e in scored if e.accuracy is not None and e.accuracy.excludes_zero]
    found = []
    if not settled:
        found = ["No block changes accuracy with confidence: more networks, or more images."]
    best = max(settled, key=lambda e: _value(e.accuracy), default=None)
    worst = min(settled, key=lambda e: _value(e.accuracy), default=None)
    for effect, word in ((best, "gains"), (worst, "loses")):
        if effect is not None and (_value(effect.accuracy) > 0.0) == (word == "gains"):
            found.append(
                f"{effect.block} {word} most accuracy: everywhere{_points(effect.accuracy)} "
                f"for {format_spread(effect.latency)} against a random fill."
            )
    return found + _best_depth(friendliness) + _saturation_sentences(friendliness)


def _saturation_sentences(friendliness: Friendliness) -> list[str]:
    """Say whether accuracy is a sum of effects, or bends with its own size."""
    accuracy = friendliness.accuracy
    lack = accuracy.lack_of_fit if accuracy is not None else None
    if accuracy is None or lack is None or accuracy.r2 is None:
        return []
    figures = f"(p = {lack.curvature_p:.2g}, R² {accuracy.r2:.3f} to {lack.r2_curved:.3f})"
    if lack.curvature_p >= 0.05:
        return [f"Accuracy is a sum of effects as far as a squared term can tell {figures}."]
    if lack.curvature < 0.0:
        words = "Accuracy saturates: what a block adds shrinks in networks that are good already"
        return [f"{words} {figures}; sums of effects promise too much at the top."]
    return [f"Accuracy effects grow in networks that are good already {figures}."]


def _best_depth(friendliness: Friendliness) -> list[str]:
    """Name the unit where a layer buys most accuracy per millisecond."""
    worth: list[tuple[float, Effect]] = []
    for effect in friendliness.of_kind("depth"):
        if effect.accuracy and effect.latency and effect.accuracy.lo > 0.0 < effect.latency.lo:
            worth.append((effect.accuracy.value / (effect.latency.value * 1e3), effect))
    if not worth:
        return []
    rate, effect = max(worth, key=lambda pair: pair[0])
    text = (
        f"Depth is best spent in unit {effect.unit}: reaching {effect.depth} layers buys {rate:.3g} "
        f"points a ms ({format_spread(effect.latency)}{_points(effect.accuracy)})."
    )
    return [text]


def _value(interval: Interval | None) -> float:
    return interval.value if interval is not None else 0.0


def _points(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f", accuracy {format_points_spread(interval)}"


def _share(interval: Interval | None, response: Response) -> str:
    if interval is None or response.mean is None or response.mean.value <= 0.0:
        return ""
    return f" ({100 * interval.value / response.mean.value:.0f} % of the mean)"
