"""What blocks cost in context on a device without an operator trace: by growing prefixes.

The network is cut behind each of its blocks; a block costs what its prefix takes more than the
one before it. All prefixes are measured in one campaign; the bursts of those that share a group of
workers take turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hwprof.errors import PlanError
from hwprof.interval import Interval
from hwprof.measure.records import Measurement
from hwprof.parts.comparison import difference
from hwprof.space import space_of
from hwprof.space.pieces import ChainPiece, SkipPiece
from hwprof.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """A network up to and including one of its parts; the last one is the whole network."""

    part: str
    block: str | None
    workload: Workload


@dataclass(frozen=True, kw_only=True)
class PrefixCost:
    """A part of a network with what the network takes up to it, and what it adds."""

    part: str
    block: str | None
    upto_s: Interval
    added_s: Interval
    """Its 95 % interval takes the errors of the two prefixes for independent."""

    def to_row(self) -> dict[str, Any]:
        """Return the part as one row: plain data."""
        return {
            "part": self.part,
            "block": self.block,
            "upto_s": self.upto_s.value,
            "added_s": self.added_s.value,
            "added_lo_s": self.added_s.lo,
            "added_hi_s": self.added_s.hi,
        }


def prefixes(network: Workload) -> list[Prefix]:
    """Return the prefixes of a network of a space, shortest first.

    Raises:
        PlanError: the workload is no network of a space.
    """
    if network.arch is None:
        raise PlanError(
            f"{network.label!r} is a model of your own, which is not cut; --prefixes takes a "
            "network of a design space"
        )
    placed = [
        p for p in space_of(network.arch).pieces(network.arch) if not isinstance(p.piece, SkipPiece)
    ]
    found = []
    for n, place in enumerate(placed[:-1], start=1):
        chain = ChainPiece.of([p.piece for p in placed[:n]])
        workload = replace(Workload.block(chain, f"up to {place.scope}"), seed=network.seed)
        found.append(Prefix(part=place.scope, block=place.block, workload=workload))
    last = placed[-1]
    return [*found, Prefix(part=last.scope, block=last.block, workload=network)]


def prefix_costs(
    cuts: Sequence[Prefix], measured: Mapping[str, Measurement]
) -> tuple[PrefixCost, ...]:
    """Return what every part adds, from the measurements of all prefixes by workload key."""
    levels = [measured[cut.workload.key] for cut in cuts]
    costs: list[PrefixCost] = []
    for cut, before, found in zip(cuts, [None, *levels], levels, strict=False):
        upto = Interval(found.level_s, *found.beside_ci95_s)
        added = upto if before is None else difference(found, before)
        costs.append(PrefixCost(part=cut.part, block=cut.block, upto_s=upto, added_s=added))
    return tuple(costs)
