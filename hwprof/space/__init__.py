"""Design spaces as data: slots, blocks, architectures, and how many there are."""

from hwprof.space.architecture import SKIP, Architecture, Channels, Slot
from hwprof.space.pieces import Piece, Placed, make_divisible, piece_from_json
from hwprof.space.space import Alive, DesignSpace, Factor, SpaceSize

__all__ = [
    "SKIP",
    "Alive",
    "Architecture",
    "Channels",
    "DesignSpace",
    "Factor",
    "Piece",
    "Placed",
    "Slot",
    "SpaceSize",
    "make_divisible",
    "piece_from_json",
]
