"""What the checks time: nothing, a block, and a small network with its parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hwprof.space import get_space
from hwprof.space.architecture import Architecture
from hwprof.space.pieces import MBConvPiece, Piece, SkipPiece
from hwprof.workload import Workload

IDENTITY = Workload.block(SkipPiece(in_channels=8, size_px=8), "identity")
"""Nothing but the way into the runtime and back."""

BLOCK = Workload.block(
    MBConvPiece(
        in_channels=40,
        size_px=28,
        out_channels=40,
        kernel=5,
        expand=3,
        stride=1,
        act="relu6",
        squeeze_excite=False,
        shortcut=True,
        bn_eps=1e-3,
    ),
    "block",
)
"""A typical block: long enough for one clock pair a call, short enough for many calls a burst."""

_NETWORK_BLOCK = "mbconv_k5_e3"
_NETWORK_DEPTH = 2


def copies(n: int, label: str, first_seed: int) -> list[Workload]:
    """Return ``n`` workloads that do the block's work with other weights, as ``label i``."""
    return [replace(BLOCK, label=f"{label} {i}", seed=first_seed + i) for i in range(n)]


def network() -> Workload:
    """Return a network of few distinct parts, some milliseconds long."""
    return Workload.network(_architecture(), "network")


def _architecture() -> Architecture:
    space = get_space("ofa-mbv3-w1.0")
    return Architecture(
        space=space.name,
        resolution_px=space.resolution_px,
        units=tuple((_NETWORK_BLOCK,) * _NETWORK_DEPTH for _ in range(space.n_units)),
    )


@dataclass(frozen=True, kw_only=True)
class Part:
    """A distinct part of a network, and how often it stands there."""

    workload: Workload
    count: int


def parts() -> Sequence[Part]:
    """Return the distinct parts of :func:`network`."""
    placed = get_space("ofa-mbv3-w1.0").pieces(_architecture())
    counts: Counter[Piece] = Counter(p.piece for p in placed)
    scopes = {p.piece: p.scope for p in reversed(placed)}
    return [
        Part(workload=Workload.block(piece, f"part {scopes[piece]}"), count=count)
        for piece, count in counts.items()
    ]
