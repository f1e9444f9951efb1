"""Design spaces as data: slots, blocks, architectures, and how many there are."""

from hwprof.space.architecture import SKIP, Architecture, Channels, Slot
from hwprof.space.architecture_file import read_architecture
from hwprof.space.families import Place, block_family
from hwprof.space.lookup import network_id, piece_from_json, space_names, space_of
from hwprof.space.mbconv import MBConvLayout, MBConvSpace, UnitLayout
from hwprof.space.named import NAMED_ARCHITECTURES
from hwprof.space.nasbench201 import CellSpace
from hwprof.space.pieces import Piece, Placed, make_divisible, piece_kind
from hwprof.space.reading import (
    get_space,
    reduced_space,
    reduction_from_yaml,
    reduction_to_yaml,
)
from hwprof.space.resnet50 import ResNet50Space
from hwprof.space.slotted import Factor
from hwprof.space.space import DesignSpace

__all__ = [
    "NAMED_ARCHITECTURES",
    "SKIP",
    "Architecture",
    "CellSpace",
    "Channels",
    "DesignSpace",
    "Factor",
    "MBConvLayout",
    "MBConvSpace",
    "Piece",
    "Place",
    "Placed",
    "ResNet50Space",
    "Slot",
    "UnitLayout",
    "block_family",
    "get_space",
    "make_divisible",
    "network_id",
    "piece_from_json",
    "piece_kind",
    "read_architecture",
    "reduced_space",
    "reduction_from_yaml",
    "reduction_to_yaml",
    "space_names",
    "space_of",
]
