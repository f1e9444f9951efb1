"""Networks with one block pinned in its place: the samples of the one-factor procedure.

The procedure (Mills et al., CIKM 2021) draws fresh random networks for every (unit, layer,
block). Its text draws the depth uniformly among those that hold the pinned layer; the code that
its authors released does otherwise, see :data:`PinnedForm`. Networks are drawn as codes
(:meth:`hwprof.space.DesignSpace.encode`), a hundred thousand in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from hwprof.estimate.design_matrix import DesignMatrix, Term
from hwprof.space import Slot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwprof.space import Architecture, DesignSpace

    Codes = NDArray[np.int64]

PinnedForm = Literal["text", "deepen", "released"]
"""How the pinned unit gets its depth, for a pin in layer l (counted from 1).

``text``: uniform on the depths of at least l, as the paper says. ``deepen``: uniform on all
depths, a shallower one raised to l. ``released``: raised to l - 1 only, an index counted from 0
taken for a depth, so that the block is absent from 1/3 (l = 3) or 2/3 (l = 4) of the networks
that are to show its effect; the published tables and figures were made this way.
"""

DEFAULT_PER_PIN = 100
"""The released code's default; the paper uses 100 to 1,000,000."""

PINNED_STREAM = 2
"""Keeps these networks apart from those of a shared campaign with the same seed."""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One decision of a network, held: column ``column`` of its codes is ``code``."""

    term: Term
    column: int
    code: int

    @property
    def slot(self) -> Slot | None:
        """The pinned slot; None where a factor's level is pinned."""
        if self.term.unit is None or self.term.layer is None:
            return None
        return Slot(self.term.unit, self.term.layer)

    @property
    def block(self) -> str:
        """The pinned block, or ``name=level`` of a factor."""
        return str(self.term.block)

    def __str__(self) -> str:
        return str(self.term)


Pinned = Mapping[Pin | None, "tuple[Architecture, ...]"]
"""The networks of every pin; under None those with nothing pinned."""


def pins_of(design: DesignMatrix) -> tuple[Pin, ...]:
    """Return every live block at every slot, then every level of every factor."""
    found = []
    for column, decision in enumerate(design.decisions):
        for code in np.flatnonzero(decision.valid[1:]).tolist():
            found.append(Pin(term=decision.term(code), column=column, code=code))
    return tuple(found)


def random_codes(design: DesignMatrix, rng: np.random.Generator, n: int) -> Codes:
    """Draw ``int64[n, n_decisions]`` codes: the networks that ``space.sample`` draws from ``rng``.

    Depths are uniform, then every block and level is uniform over what is alive.
    """
    return pinned_codes(design, None, rng, n)


def pinned_codes(
    design: DesignMatrix,
    pin: Pin | None,
    rng: np.random.Generator,
    n: int,
    form: PinnedForm = "text",
) -> Codes:
    """Draw ``int64[n, n_decisions]`` codes of random networks with ``pin`` in place.

    Of more networks drawn from an equal ``rng`` the first are the same.
    """
    space = design.space
    least = np.array(space.min_depth)
    most = np.array(space.max_depth)
    if pin is not None and pin.slot is not None and form == "text":
        least[pin.slot.unit] = max(least[pin.slot.unit], pin.slot.layer + 1)
    bounds = [*(most - least + 1), *(int(d.valid[1:].sum()) for d in design.decisions)]
    draws = rng.integers(np.array(bounds), size=(n, len(bounds)))
    depths = least + draws[:, : len(least)]
    codes = draws[:, len(least) :]
    for column, decision in enumerate(design.decisions):
        codes[:, column] = np.flatnonzero(decision.valid[1:])[codes[:, column]]
    if pin is not None:
        codes[:, pin.column] = pin.code
        if pin.slot is not None and form != "text":
            unit, layer = pin.slot
            raised = layer + 1 if form == "deepen" else layer
            depths[:, unit] = np.maximum(depths[:, unit], raised)
    for column, decision in enumerate(design.decisions):
        if decision.slot is not None:
            codes[depths[:, decision.slot.unit] <= decision.slot.layer, column] = -1
    return codes


def depth_law(space: DesignSpace, slot: Slot, form: PinnedForm) -> dict[int, float]:
    """Return how likely every depth of ``slot.unit`` is in networks with that slot pinned."""
    depths = space.depths(slot.unit)
    least = slot.layer if form == "released" else slot.layer + 1
    if form == "text":
        depths = tuple(depth for depth in depths if depth >= least)
    law: dict[int, float] = {}
    for depth in depths:
        raised = max(depth, least)
        law[raised] = law.get(raised, 0.0) + 1.0 / len(depths)
    return law


def pinned_streams(
    design: DesignMatrix, seed: int, n: int, form: PinnedForm = "text"
) -> Iterator[tuple[Pin | None, Codes]]:
    """Yield ``n`` networks with nothing pinned, then ``n`` of every pin, as codes.

    Every pin has a random stream of its own, so that more networks extend each sample.
    """
    for position, pin in enumerate((None, *pins_of(design))):
        rng = np.random.default_rng([seed, PINNED_STREAM, position])
        yield pin, pinned_codes(design, pin, rng, n, form)


def pinned_networks(space: DesignSpace, seed: int, n: int) -> Pinned:
    """Return the networks of a pinned campaign, in the text's form."""
    design = DesignMatrix(space)
    return {
        pin: tuple(space.decode(row) for row in codes)
        for pin, codes in pinned_streams(design, seed, n)
    }


def in_rounds(space: DesignSpace, networks: Pinned) -> list[Architecture]:
    """Return every distinct network once, the first of each pin before the second of any.

    A campaign that is stopped early has then measured about equally many of every pin.
    """
    found: dict[str, Architecture] = {}
    for archs in zip(*networks.values(), strict=True):
        for arch in archs:
            found.setdefault(space.canonical(arch).arch_id, arch)
    return list(found.values())
