"""What a reduced space is, and the evidence beside every cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwprof.interval import Interval
from hwprof.space.architecture import Slot

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Drop:
    """One thing the reducer removed, with the numbers that justify it.

    ``block`` (at ``unit``/``layer``, or everywhere where they are None) or ``depth`` of ``unit``.
    ``latency_s`` and ``accuracy_pct`` are what dropping it saves and costs against what ``rule``
    names.
    """

    rule: str
    unit: int | None = None
    layer: int | None = None
    block: str | None = None
    depth: int | None = None
    latency_s: Interval | None = None
    accuracy_pct: Interval | None = None
    why: str = ""

    def to_row(self) -> dict[str, Any]:
        """Return the drop as one row: plain data."""
        return {
            "rule": self.rule,
            "unit": self.unit,
            "layer": self.layer,
            "block": self.block,
            "depth": self.depth,
            "latency_s": self.latency_s.value if self.latency_s else None,
            "accuracy_pct": self.accuracy_pct.value if self.accuracy_pct else None,
            "why": self.why,
        }


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """A smaller design space and the evidence beside every cut."""

    space: str
    resolution_px: int
    device: str
    fingerprint: Mapping[str, Any]
    alive: Mapping[Slot, tuple[str, ...]]
    max_depth: tuple[int, ...]
    accuracy_budget_points: float | None
    drops: tuple[Drop, ...]
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """Return one row of the frame for each drop."""
        import pandas as pd

        return pd.DataFrame([drop.to_row() for drop in self.drops])

    def _repr_html_(self) -> str:
        html: str = self.to_frame().to_html(index=False)
        return html
