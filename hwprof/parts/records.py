"""Where a model's time goes: its parts, and whether they add up to the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from hwprof.interval import Interval
from hwprof.measure.records import Measurement

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["block", "layout", "overhead"]
"""``layout``: operators that the runtime inserted to change how tensors lie in memory;
``overhead``: what a call spends outside its operators."""
Grouping = Literal["tensors", "blocks", "modules", "repeats", "operators", "types"]
"""Tensors that the user named, blocks of a design space, module scopes, repeated subgraphs, every operator, operator types."""

RECONCILED_PCT = 3.0
"""Farthest the sum of the parts may be from the whole network's level."""


@dataclass(frozen=True, kw_only=True)
class PartTime:
    """One part of a model, all times per call.

    The last four fields belong to blocks of a design space and are None where not asked for.
    """

    part: str
    kind: Kind
    traced_s: float
    """From the operator trace, without what the tracer adds; noise may make a tiny part's
    a little negative."""
    share: float
    """Of the sum of all parts."""
    n_ops: int
    op_types: tuple[str, ...]
    block: str | None = None
    isolated_hot_s: Interval | None = None
    """The block alone, caches hot."""
    isolated_layout_s: float | None = None
    """Changes of layout that the block alone needs and the network needs only at its ends."""
    differential_s: Interval | None = None
    """The network minus the network without the block, where the layer is optional."""

    def to_row(self) -> dict[str, Any]:
        """Return the part as one row: plain data."""
        isolated, differential = self.isolated_hot_s, self.differential_s
        return {
            "part": self.part,
            "kind": self.kind,
            "block": self.block,
            "traced_s": self.traced_s,
            "share": self.share,
            "n_ops": self.n_ops,
            "op_types": list(self.op_types),
            "isolated_hot_s": isolated.value if isolated else None,
            "isolated_layout_s": self.isolated_layout_s,
            "differential_s": differential.value if differential else None,
            "differential_lo_s": differential.lo if differential else None,
            "differential_hi_s": differential.hi if differential else None,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class PartsResult:
    """The parts of a model in order of execution, beside the whole's measurement.

    The trace never sees ``measurement``: the parts add up to it as well as the tracer's cost is
    known, and :attr:`residual_pct` says how well that is.
    """

    measurement: Measurement
    parts: tuple[PartTime, ...]
    grouped_by: Grouping
    traced_s: float
    """A call with the tracer on."""
    untraced_s: float
    """A call without it in the traced processes; its distance from the level is what other
    processes and another hour do."""
    removed_per_op_s: float
    """What was taken off for the tracer, a mean over operators; 0 where that is not known."""
    n_processes: int

    @property
    def sum_s(self) -> float:
        """All parts together."""
        return math.fsum(part.traced_s for part in self.parts)

    @property
    def slowdown(self) -> float:
        """Time with the tracer on, over without."""
        return self.traced_s / self.untraced_s

    @property
    def residual_pct(self) -> float:
        """Sum of the parts against the level of the whole, in percent of the level."""
        return 100.0 * (self.sum_s / self.measurement.level_s - 1.0)

    @property
    def residual_untraced_pct(self) -> float:
        """Sum of the parts against the calls without tracer that ran in turn with the traced ones.

        Where this is small and :attr:`residual_pct` is not, the machine was another while the
        level was measured.
        """
        return 100.0 * (self.sum_s / self.untraced_s - 1.0)

    @property
    def is_reconciled(self) -> bool:
        """Whether the parts add up to the whole within 3 %."""
        return abs(self.residual_pct) <= RECONCILED_PCT

    def time_of(self, kind: Kind) -> float:
        """Return the time of all parts of a kind, in seconds."""
        return math.fsum(part.traced_s for part in self.parts if part.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """Return the keys of ``hwprof bench --json`` and, beside them, the parts."""
        return {
            **self.measurement.to_json(),
            "grouped_by": self.grouped_by,
            "parts": [part.to_row() for part in self.parts],
            "reconciliation": {
                "sum_s": self.sum_s,
                "level_s": self.measurement.level_s,
                "residual_pct": self.residual_pct,
                "residual_untraced_pct": self.residual_untraced_pct,
                "limit_pct": RECONCILED_PCT,
                "is_reconciled": self.is_reconciled,
                "traced_s": self.traced_s,
                "untraced_s": self.untraced_s,
                "slowdown": self.slowdown,
                "removed_per_op_s": self.removed_per_op_s,
                "layout_s": self.time_of("layout"),
                "overhead_s": self.time_of("overhead"),
                "n_processes": self.n_processes,
            },
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row of the frame for each part."""
        import pandas as pd

        return pd.DataFrame([part.to_row() for part in self.parts])

    def _repr_html_(self) -> str:
        html: str = self.to_frame().dropna(axis="columns", how="all").to_html(index=False)
        return html


def with_shares(parts: Sequence[PartTime]) -> tuple[PartTime, ...]:
    """Return the parts with their shares of the sum."""
    total_s = math.fsum(part.traced_s for part in parts)
    return tuple(replace(p, share=p.traced_s / total_s if total_s else 0.0) for p in parts)
