"""A latency model and effects from a table of blocks: someone measured every block alone.

A network then takes the constant part plus the sum of its blocks, which is the additive model
of :mod:`hwprof.estimate.latency_model` with every coefficient known: nothing is sampled, expectations
over the space's random networks are exact. Intervals carry the spread of the table's own
entries. What a whole network adds to or saves against the sum, no table of blocks can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hwprof.campaign import default_n_networks, sample_networks
from hwprof.errors import DataError
from hwprof.estimate.design_matrix import Decision, DesignMatrix, depth_probability
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.estimate.responses import Friendliness, Response
from hwprof.importing.blocks import FREE_BLOCKS
from hwprof.interval import NORMAL_975, Interval
from hwprof.results import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwprof.measure.records import Fingerprint
    from hwprof.space import DesignSpace, Slot
    from hwprof.store import ImportedBlock

    Floats = NDArray[np.float64]

TICK_S = 1e-9
"""Stands for the residual of a model that has none, so that its matrices can be inverted."""
SEED = 0
"""Of the networks that a table prices where accuracy needs a sample."""

SUMS = (
    "latencies are sums of a table of single blocks; how far whole networks are from the sum is "
    "not known, and no interval here covers it"
)
RELATIVE = (
    "the table has no stem, first, head or fixed part: latencies are relative to what it leaves out"
)


class _Entry(NamedTuple):
    """Latency of one line and its variance, in seconds."""

    latency_s: float
    variance_s2: float


def has_constant(blocks: Sequence[ImportedBlock]) -> bool:
    """Say whether a table knows the part that every network shares."""
    return any(b.unit is None for b in blocks)


def table_model(
    space: DesignSpace,
    blocks: Sequence[ImportedBlock],
    fingerprint: Fingerprint | None = None,
) -> AdditiveLatencyModel:
    """Return the additive model of a table of blocks.

    Lines of different blocks are taken as independent. ``none`` and ``skip`` cost nothing where
    the table leaves them out.

    Args:
        space: the space, at the input size that is wanted.
        blocks: the table's lines for that size.
        fingerprint: of the device.

    Raises:
        DataError: a block of the space is missing, or the space has widths to choose, which a
            table of blocks does not price.
    """
    design = DesignMatrix(space)
    coefficients, covariance = _coefficients(design, blocks)
    floor = TICK_S**2 * np.eye(design.n_coefficients)
    return AdditiveLatencyModel(
        space=space,
        coefficients=coefficients,
        inverse=(covariance + floor) / TICK_S**2,
        residual_sd_s=TICK_S,
        degrees=float("inf"),
        penalty=0.0,
        n_networks=0,
        seen=tuple(decision.valid.astype(np.int64) for decision in design.decisions),
        fingerprint=fingerprint,
        holdout=None,
    )


def table_samples(model: AdditiveLatencyModel) -> list[Sample]:
    """Return random networks of the space, priced by the table.

    Accuracy is no sum of blocks: its effects need networks to score. They are the first of the
    shared design with seed 0, as many as a profile would measure.
    """
    space = model.space
    archs = sample_networks(space, SEED, default_n_networks(space))
    latencies, half_widths = model.predict_many(archs)
    return [
        Sample(arch=arch, latency_s=float(latency), latency_se_s=float(half) / NORMAL_975)
        for arch, latency, half in zip(archs, latencies, half_widths, strict=True)
    ]


def table_friendliness(
    space: DesignSpace,
    blocks: Sequence[ImportedBlock],
    samples: Sequence[Sample] = (),
) -> Friendliness:
    """Return the effects of a table of blocks: latency exactly, accuracy from ``samples``.

    Args:
        space: the space, at the input size that is wanted.
        blocks: the table's lines for that size.
        samples: networks of :func:`table_samples` with accuracies, if any.

    Raises:
        DataError: as :func:`table_model`.
    """
    design = DesignMatrix(space)
    accuracy: Response | None = None
    notes = [SUMS] if has_constant(blocks) else [SUMS, RELATIVE]
    if any(s.accuracy_pct is not None for s in samples):
        fitted = fit_friendliness(space, samples)
        accuracy = fitted.accuracy
        notes += fitted.notes
    nowhere = np.zeros(len(design.terms), dtype=np.int64)
    return Friendliness.of(design, _response(design, blocks), accuracy, nowhere, notes)


def _response(design: DesignMatrix, blocks: Sequence[ImportedBlock]) -> Response:
    coefficients, covariance = _coefficients(design, blocks)
    spread = design.expansion @ covariance @ design.expansion.T
    mean, half = float(coefficients[0]), NORMAL_975 * float(np.sqrt(covariance[0, 0]))
    return Response(
        values=design.expansion @ coefficients,
        covariance=spread,
        even_covariance=spread,
        degrees=float("inf"),
        n_networks=0,
        mean=Interval(mean, mean - half, mean + half) if has_constant(blocks) else None,
    )


def _coefficients(design: DesignMatrix, blocks: Sequence[ImportedBlock]) -> tuple[Floats, Floats]:
    """Return ``float64[p]`` coefficients in seconds and their ``float64[p, p]`` covariance."""
    space = design.space
    if space.factors:
        raise DataError(
            f"a table of blocks does not say what the {space.factors[0].name} of {space.name} "
            "costs; import a table of whole networks (columns arch and latency_ms)"
        )
    fixed = [b for b in blocks if b.unit is None]
    coefficients = np.zeros(design.n_coefficients)
    covariance = np.zeros((design.n_coefficients, design.n_coefficients))
    coefficients[0] = sum(b.latency_s for b in fixed)
    covariance[0, 0] = sum((b.se_s or 0.0) ** 2 for b in fixed)
    lines = {(b.unit, b.layer, b.block): _Entry(b.latency_s, (b.se_s or 0.0) ** 2) for b in blocks}
    for decision in design.decisions:
        assert decision.slot is not None
        entries = [_entry(lines, space, decision.slot, b) for b in space.choices(decision.slot)]
        link = _slot_link(design, decision, len(entries))
        latency, variance = np.array(entries).T
        coefficients += link @ latency
        covariance += (link * variance) @ link.T
    return coefficients, covariance


def _entry(
    lines: Mapping[tuple[int | None, int | None, str], _Entry],
    space: DesignSpace,
    slot: Slot,
    block: str,
) -> _Entry:
    found = lines.get((slot.unit, slot.layer, block))
    if found is None and block not in FREE_BLOCKS:
        raise DataError(
            f"the table has no line for {block} at {slot} of {space.name} at "
            f"{space.resolution_px} px; import one that has it"
        )
    return found or _Entry(0.0, 0.0)


def _slot_link(design: DesignMatrix, decision: Decision, n: int) -> Floats:
    """Return ``float64[p, n]``, from the slot's ``n`` lines to the coefficients.

    The mean over blocks goes into the space's mean, as often as the layer is there, and into
    the effect of depth; what a block is above it into the block's own.
    """
    assert decision.slot is not None
    unit, layer = decision.slot
    link = np.zeros((design.n_coefficients, n))
    link[0] = depth_probability(design.space, unit, layer + 1) / n
    columns = np.arange(decision.columns.start, decision.columns.stop)
    if decision.has_depth:
        link[columns[0]] = 1.0 / n
        columns = columns[1:]
    link[columns] = np.eye(n)[: len(columns)] - 1.0 / n
    return link
