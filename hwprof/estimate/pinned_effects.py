"""Effects from pinned samples, and pinned effects from other samples.

:func:`fit_pinned` turns the samples of a campaign into the effects that the shared sample gives
too (:mod:`hwprof.estimate.friendliness`), so that both designs can be compared. A sample with a block
pinned in an optional layer is also one of deeper units: the average over the blocks of that slot
is free of their differences and gives the effects of depth. :func:`equivalent_effects` goes the
other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hwprof.errors import DataError
from hwprof.estimate.design_matrix import DesignMatrix, Term, depth_probability
from hwprof.estimate.pinned import PinnedValues
from hwprof.estimate.pinning import Pin, PinnedForm, depth_law, pinned_networks, pins_of
from hwprof.estimate.responses import Friendliness, Response
from hwprof.interval import Interval
from hwprof.results import Sample
from hwprof.space import DesignSpace, Slot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_PER_PIN = 2
"""Fewer networks say nothing about their spread."""
ONE_FACTOR = (
    "effects are differences of means between samples of up to {n} networks with one block pinned "
    "(the published one-factor procedure)"
)


def fit_pinned(
    space: DesignSpace,
    samples: Sequence[Sample],
    *,
    n_per_pin: int,
    seed: int,
) -> Friendliness:
    """Estimate all effects from the networks of a pinned campaign (the text's form).

    Blocks are centred per slot, as in the shared design. Networks that failed or wait are left
    out.

    Args:
        space: the space that the campaign was laid out for.
        samples: its networks, in any order, with latency, accuracy or both.
        n_per_pin: as the campaign was laid out.
        seed: as the campaign was laid out.

    Raises:
        DataError: a pin has fewer than two networks with a latency.
    """
    design = DesignMatrix(space)
    latency = pinned_latencies(space, samples, n_per_pin=n_per_pin, seed=seed)
    known = {
        space.canonical(s.arch).arch_id: s.accuracy_pct
        for s in samples
        if s.accuracy_pct is not None
    }
    accuracy, notes = _accuracies(design, known, n_per_pin, seed)
    return Friendliness.of(
        design,
        pinned_response(design, latency),
        accuracy,
        _counts(design, latency),
        (*notes, ONE_FACTOR.format(n=n_per_pin)),
    )


def _accuracies(
    design: DesignMatrix, known: Mapping[str, float], n_per_pin: int, seed: int
) -> tuple[Response | None, tuple[str, ...]]:
    """Return the effects on accuracy, or say why those that are known do not give any."""
    if not known:
        return None, ()
    try:
        ids = _ids(design.space, seed, n_per_pin)
        values = _gather(ids, known.items(), "accuracy", "name a source that knows more networks")
    except DataError as error:
        return None, (f"accuracy left out: {error}",)
    return pinned_response(design, values), ()


def pinned_latencies(
    space: DesignSpace, samples: Sequence[Sample], *, n_per_pin: int, seed: int
) -> PinnedValues:
    """Return the latencies of a pinned campaign by pin, as :func:`fit_pinned` takes them.

    Raises:
        DataError: a pin has fewer than two networks with a latency.
    """
    points = ((space.canonical(s.arch).arch_id, s.latency_s) for s in samples)
    return _gather(_ids(space, seed, n_per_pin), points)


def pinned_response(design: DesignMatrix, values: PinnedValues) -> Response:
    """Return the effects on one metric; ``values`` are of samples in the text's form."""
    means, variances, sizes = values.cells()
    pooled = float(variances @ (sizes - 1.0)) / float((sizes - 1.0).sum())
    link = _link(design)
    return Response(
        values=link @ means,
        covariance=(link * (variances / sizes)) @ link.T,
        even_covariance=(link * (pooled / sizes)) @ link.T,
        degrees=values.degrees,
        n_networks=sum(len(v) for v in values.values.values()),
        mean=values.mean,
    )


def equivalent_effects(
    design: DesignMatrix, response: Response, form: PinnedForm
) -> dict[Pin, Interval]:
    """Return what equation 2 gives of a metric with these effects, without drawing a network.

    A pin at layer l of unit u moves the mean by P(there) β_ulb and by what it adds to the unit's
    depth: β + δ₃/3 + δ₄/6 at the third of two to four layers in the text's form, ⅔ β in the
    released one. So published curves can be compared with effects of the shared design.

    Args:
        design: of the space.
        response: effects on the metric, from either design.
        form: how a pinned unit gets its depth.
    """
    space = design.space
    found = {}
    for pin in pins_of(design):
        weights = np.zeros(len(design.terms))
        own = design.index[pin.term]
        weights[own] = 1.0
        if pin.slot is not None:
            unit, layer = pin.slot
            law = depth_law(space, pin.slot, form)
            weights[own] = sum(p for depth, p in law.items() if depth > layer)
            for extra, gain in enumerate(_depth_gains(space, pin.slot, form)):
                depth = space.min_depth[unit] + 1 + extra
                weights[design.index[Term(kind="depth", unit=unit, depth=depth)]] = gain
        found[pin] = response.interval(weights)
    return found


def _ids(space: DesignSpace, seed: int, n_per_pin: int) -> dict[Pin | None, list[str]]:
    """Return which networks were drawn for every pin."""
    return {
        pin: [space.canonical(arch).arch_id for arch in archs]
        for pin, archs in pinned_networks(space, seed, n_per_pin).items()
    }


def _gather(
    ids: Mapping[Pin | None, Sequence[str]],
    known: Iterable[tuple[str, float | None]],
    metric: str = "latency",
    step: str = "go on with `hwprof profile`, or raise --networks",
) -> PinnedValues:
    """Bring the values of networks back to the samples that they were drawn for."""
    by_id = {key: value for key, value in known if value is not None}
    found = {
        pin: np.array([by_id[key] for key in keys if key in by_id]) for pin, keys in ids.items()
    }
    rarest = min(found, key=lambda pin: len(found[pin]))
    if len(found[rarest]) < LEAST_PER_PIN:
        what = "nothing pinned" if rarest is None else f"{rarest} pinned"
        raise DataError(
            f"{len(found[rarest])} networks with {what} have a known {metric}; at least "
            f"{LEAST_PER_PIN} of every pin are needed: {step}"
        )
    return PinnedValues(values=found)


def _link(design: DesignMatrix) -> Floats:
    """Return ``float64[n_terms, 1 + n_pins]``, from the means of the samples to the effects."""
    pins = pins_of(design)
    columns: dict[int, list[int]] = {}
    for position, pin in enumerate(pins):
        columns.setdefault(pin.column, []).append(1 + position)
    rows: dict[Term, Floats] = {}
    slot_mean: dict[tuple[int, int], Floats] = {}
    for members in columns.values():
        average = np.zeros(1 + len(pins))
        average[members] = 1.0 / len(members)
        for at in members:
            own = np.zeros(1 + len(pins))
            own[at] = 1.0
            rows[pins[at - 1].term] = own - average
        slot = pins[members[0] - 1].slot
        if slot is not None:
            slot_mean[slot] = average
    for term in design.terms:
        if term.kind == "network":
            rows[term] = _everywhere(design, rows, term)
    for unit in range(design.space.n_units):
        rows.update(_depth_rows(design, unit, slot_mean))
    return np.array([rows[term] for term in design.terms])


def _everywhere(design: DesignMatrix, rows: Mapping[Term, Floats], term: Term) -> Floats:
    """Return a block's effects at all its slots, each weighted by how often the layer is there."""
    total = np.zeros(len(next(iter(rows.values()))))
    for other, row in rows.items():
        if other.kind == "block" and other.block == term.block:
            assert other.unit is not None
            assert other.layer is not None
            total += depth_probability(design.space, other.unit, other.layer + 1) * row
    return total


def _depth_rows(
    design: DesignMatrix, unit: int, slot_mean: Mapping[tuple[int, int], Floats]
) -> dict[Term, Floats]:
    """Solve for δ: every optional layer's sample has so much more of each depth than a random one."""
    space = design.space
    extra = range(space.min_depth[unit] + 1, space.max_depth[unit] + 1)
    if not extra:
        return {}
    gains = np.array([_depth_gains(space, Slot(unit, held - 1), "text") for held in extra])
    differences = np.array([slot_mean[unit, held - 1] for held in extra])
    differences[:, 0] -= 1.0
    solved = np.linalg.solve(gains, differences)
    return {
        Term(kind="depth", unit=unit, depth=depth): row
        for depth, row in zip(extra, solved, strict=True)
    }


def _depth_gains(space: DesignSpace, slot: Slot, form: PinnedForm) -> list[float]:
    """Return P(d ≥ d' | slot pinned) − P(d ≥ d') for every d' beyond the least depth."""
    unit = slot.unit
    law = depth_law(space, slot, form)
    return [
        sum(p for deep, p in law.items() if deep >= depth) - depth_probability(space, unit, depth)
        for depth in range(space.min_depth[unit] + 1, space.max_depth[unit] + 1)
    ]


def _counts(design: DesignMatrix, values: PinnedValues) -> NDArray[np.int64]:
    """Return for every effect how many networks the samples behind it have."""

    def behind(term: Term) -> int:
        return sum(
            len(sample)
            for pin, sample in values.values.items()
            if pin is not None
            and (
                pin.term == term
                or (term.kind == "network" and pin.slot is not None and pin.block == term.block)
                or (
                    term.kind == "depth"
                    and pin.slot is not None
                    and pin.slot.unit == term.unit
                    and pin.slot.layer >= design.space.min_depth[pin.slot.unit]
                )
            )
        )

    return np.array([behind(term) for term in design.terms], dtype=np.int64)
