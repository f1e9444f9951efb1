"""The parts a network is built from, as plain data with every width and size spelled out.

A design space turns an architecture into a sequence of pieces; :mod:`hwprof.graph` turns a
piece into operators. Two slots that hold equal pieces hold the same workload: that is what
"every distinct block" means in a profile.

All sizes are those of the piece's *input* (square, ``size_px``); layout is NCHW, batch apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, TypeVar

from hwprof.errors import SpaceError
from hwprof.space.architecture import Slot

Activation = Literal["relu", "relu6", "hswish", "none"]


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round a width to a multiple of ``divisor``, never below 90 % of it (MobileNet's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def out_size(size_px: int, stride: int) -> int:
    """Return the output side of a "same"-padded operator."""
    return (size_px + stride - 1) // stride


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Base of all pieces: input shape ``(in_channels, size_px, size_px)``."""

    kind: ClassVar[str]
    in_channels: int
    size_px: int

    @property
    def n_out_channels(self) -> int:
        """Channels of the output."""
        return int(getattr(self, "out_channels", self.in_channels))

    @property
    def out_size_px(self) -> int:
        """Side of the output."""
        return out_size(self.size_px, int(getattr(self, "stride", 1)))

    def to_json(self) -> dict[str, Any]:
        """Return the piece as plain data, ``kind`` included."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class ConvPiece(Piece):
    """Convolution, batch norm, activation: stems and feature-mixing layers."""

    kind: ClassVar[str] = "conv"
    out_channels: int
    kernel: int
    stride: int
    act: Activation
    bn_eps: float


@dataclass(frozen=True, kw_only=True)
class MBConvPiece(Piece):
    """Inverted bottleneck: 1×1 expand, depthwise k×k, optional squeeze-excite, 1×1 project.

    ``expand == 1`` omits the expanding convolution, whatever the width.
    The identity shortcut is a field because the fixed first block of ProxylessNAS and of
    OFA-ProxylessNAS goes without it.
    """

    kind: ClassVar[str] = "mbconv"
    out_channels: int
    kernel: int
    expand: int
    stride: int
    act: Activation
    squeeze_excite: bool
    shortcut: bool
    bn_eps: float

    @property
    def mid_channels(self) -> int:
        """Width of the depthwise convolution; only what expands is rounded."""
        if self.expand == 1:
            return self.in_channels
        return make_divisible(self.in_channels * self.expand)


@dataclass(frozen=True, kw_only=True)
class SkipPiece(Piece):
    """Identity: a layer that is not there."""

    kind: ClassVar[str] = "skip"


@dataclass(frozen=True, kw_only=True)
class ResNetStemPiece(Piece):
    """OFA-ResNet-50 stem: 3×3/2 to ``mid``, optional residual 3×3, 3×3 to ``out``, max-pool/2."""

    kind: ClassVar[str] = "resnet_stem"
    mid_channels: int
    out_channels: int
    residual: bool
    bn_eps: float

    @property
    def out_size_px(self) -> int:
        """Side of the output: the stem halves twice."""
        return out_size(out_size(self.size_px, 2), 2)


@dataclass(frozen=True, kw_only=True)
class BottleneckPiece(Piece):
    """ResNet bottleneck 1×1, 3×3 (stride), 1×1; ReLU after the sum.

    The shortcut is the identity, or average pool, 1×1 and batch norm where ``downsample``.
    """

    kind: ClassVar[str] = "bottleneck"
    mid_channels: int
    out_channels: int
    stride: int
    downsample: bool
    bn_eps: float


@dataclass(frozen=True, kw_only=True)
class HeadPiece(Piece):
    """What follows the last unit: optional 1×1 features, pool, optional 1×1, linear.

    ``feature_channels`` (with batch norm) and ``last_channels`` (without norm or bias, OFA-MBv3)
    are 0 where absent. ``pre_norm`` puts batch norm and ReLU before the pool (NAS-Bench-201).
    """

    kind: ClassVar[str] = "head"
    feature_channels: int
    last_channels: int
    n_classes: int
    act: Activation
    bn_eps: float
    pre_norm: bool = False


@dataclass(frozen=True, kw_only=True)
class CellPiece(Piece):
    """NAS-Bench-201 cell: six operators, edges in the order 1←0, 2←0, 2←1, 3←0, 3←1, 3←2."""

    kind: ClassVar[str] = "cell"
    ops: tuple[str, str, str, str, str, str]
    bn_eps: float


@dataclass(frozen=True, kw_only=True)
class CellOpPiece(Piece):
    """One operator of a NAS-Bench-201 edge, alone."""

    kind: ClassVar[str] = "cell_op"
    op: str
    bn_eps: float


@dataclass(frozen=True, kw_only=True)
class ReductionPiece(Piece):
    """NAS-Bench-201 residual block: two ReLU-conv3×3-BN; shortcut avg-pool 2×2 and 1×1."""

    kind: ClassVar[str] = "reduction"
    out_channels: int
    stride: int
    bn_eps: float


@dataclass(frozen=True, kw_only=True)
class ChainPiece(Piece):
    """Pieces in a row: the beginning of a network, up to one of its blocks."""

    kind: ClassVar[str] = "chain"
    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> ChainPiece:
        """Return the chain of ``pieces``, at least one."""
        first = pieces[0]
        return cls(in_channels=first.in_channels, size_px=first.size_px, pieces=tuple(pieces))

    @property
    def n_out_channels(self) -> int:
        """Channels of the last piece's output."""
        return self.pieces[-1].n_out_channels

    @property
    def out_size_px(self) -> int:
        """Side of the last piece's output."""
        return self.pieces[-1].out_size_px

    def to_json(self) -> dict[str, Any]:
        """Return the chain as plain data, the kinds of its pieces included."""
        return {
            "kind": self.kind,
            "in_channels": self.in_channels,
            "size_px": self.size_px,
            "pieces": [piece.to_json() for piece in self.pieces],
        }


PIECES: dict[str, type[Piece]] = {
    cls.kind: cls
    for cls in (
        ConvPiece,
        MBConvPiece,
        SkipPiece,
        ResNetStemPiece,
        BottleneckPiece,
        HeadPiece,
        CellPiece,
        CellOpPiece,
        ReductionPiece,
        ChainPiece,
    )
}


P = TypeVar("P", bound=Piece)


def piece_kind(cls: type[P]) -> type[P]:
    """Register a type of piece of your own under its ``kind``, so that it can be read again.

    Raises:
        SpaceError: another type has that kind.
    """
    known = PIECES.setdefault(cls.kind, cls)
    if known.__qualname__ != cls.__qualname__ or known.__module__ != cls.__module__:
        raise SpaceError(f"two types of block have the kind {cls.kind!r}; rename one of them")
    PIECES[cls.kind] = cls
    return cls


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A piece at its place in a network.

    ``scope`` prefixes the names of its operators (``u0.l1``, ``stem``, ``first``, ``head``,
    ``s1.c2``), which is how a trace is mapped back to blocks. ``slot`` and ``block`` are None
    for the fixed parts.
    """

    scope: str
    piece: Piece
    slot: Slot | None = None
    block: str | None = None


@dataclass(frozen=True, kw_only=True)
class BlockPlace:
    """Where a distinct piece stands in its space; it may have many places."""

    slot: Slot
    block: str
    count: int = 1
