"""Block families: how a block's name and its place become a piece.

``mbconv_k{K}_e{E}`` is built in; a family of your own is a function under
:func:`block_family`, its pieces a dataclass under :func:`piece_kind`, and what they are made of a
function under :func:`hwprof.graph.emits` (docs/own-space.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from hwprof.errors import SpaceError
from hwprof.space.pieces import Activation, Piece, out_size


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a block stands: its input, what the unit asks of its output, and the unit's style.

    A block has to return ``out_channels`` at side ceil(``size_px`` / ``stride``).
    """

    in_channels: int
    size_px: int
    out_channels: int
    stride: int
    act: Activation
    squeeze_excite: bool
    bn_eps: float

    @property
    def keeps_shape(self) -> bool:
        """Whether a shortcut fits: stride 1 and as many output as input channels."""
        return self.stride == 1 and self.in_channels == self.out_channels


MakePiece = Callable[["re.Match[str]", Place], Piece]
FAMILIES: dict[str, MakePiece] = {}
"""Pattern of the whole name → what makes the piece; :func:`block_family` adds to it."""


def block_family(pattern: str) -> Callable[[MakePiece], MakePiece]:
    """Register the decorated function for block names that match ``pattern`` in full.

    Args:
        pattern: a regular expression, for example ``ghost_k([0-9]+)``.
    """

    def register(make: MakePiece) -> MakePiece:
        FAMILIES[pattern] = make
        return make

    return register


def make_piece(name: str, place: Place) -> Piece:
    """Return what a block is made of at a place.

    Raises:
        SpaceError: no family has such a name, or its piece does not fit the place.
    """
    for pattern, make in FAMILIES.items():
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        piece = make(match, place)
        made = (piece.in_channels, piece.size_px, piece.n_out_channels, piece.out_size_px)
        side = out_size(place.size_px, place.stride)
        wanted = (place.in_channels, place.size_px, place.out_channels, side)
        if made != wanted:
            raise SpaceError(
                f"{name!r} makes {made} of input channels and side, output channels and side; "
                f"its place asks for {wanted}"
            )
        return piece
    raise SpaceError(
        f"{name!r} is no block; expected 'mbconv_k5_e3' with an odd kernel, or a name of a family "
        f"of your own (known patterns: {', '.join(FAMILIES)})"
    )
