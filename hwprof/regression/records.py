"""What a comparison says, a workload at a time, and what they say together."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["REGRESSED", "IMPROVED", "EQUIVALENT", "INCONCLUSIVE", "NOT_COMPARABLE"]
Method = Literal["paired", "stored", "pytest-benchmark"]

REGRESSION, OPEN, NOT_COMPARABLE = 1, 4, 5
"""Exit codes; 0 is a pass."""


@dataclass(frozen=True, kw_only=True)
class Tail:
    """The same question of the bursts' 90th percentiles: the floor does not see added stalls."""

    verdict: Verdict
    shift: float
    shift_ci99: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Return the tail as plain data."""
        return {
            "verdict": self.verdict,
            "shift": self.shift,
            "shift_ci99": [finite(v) for v in self.shift_ci99],
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One workload, new against base.

    Shifts are relative: 0.05 means that the new one takes 5 % longer. ``detectable`` is the
    smallest slowdown that would have been found four times in five. None stands for what cannot
    be given; ``reason`` says why, and what to do.
    """

    workload: str
    verdict: Verdict
    reason: str
    method: Method
    shift: float | None = None
    shift_ci99: tuple[float, float] | None = None
    detectable: float | None = None
    base_s: float | None = None
    new_s: float | None = None
    tail: Tail | None = None
    tail_note: str = ""
    """Why the tail was not judged."""
    differences: Mapping[str, tuple[object, object]] = field(default_factory=dict)
    """Facts in which the two differ: name → (base, new). They forbid a stored comparison; side
    by side they are what is being compared."""
    n_pairs: int = 0

    @property
    def is_slower(self) -> bool:
        """Whether the level or the tail regressed."""
        return self.verdict == "REGRESSED" or (
            self.tail is not None and self.tail.verdict == "REGRESSED"
        )

    def to_row(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof compare --json``, and what stands beside."""
        return {
            "workload": self.workload,
            "verdict": self.verdict,
            "shift": self.shift,
            "shift_ci99": None if self.shift_ci99 is None else [finite(v) for v in self.shift_ci99],
            "detectable": None if self.detectable is None else finite(self.detectable),
            "reason": self.reason,
            "method": self.method,
            "base_s": self.base_s,
            "new_s": self.new_s,
            "tail": None if self.tail is None else self.tail.to_json(),
            "tail_note": self.tail_note,
            "differences": {name: list(pair) for name, pair in self.differences.items()},
            "n_pairs": self.n_pairs,
        }


def finite(value: float) -> float | None:
    """Return a number that JSON has; an unbounded one is None."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class CompareResult:
    """Every workload's comparison."""

    rows: tuple[Comparison, ...]

    def exit_code(self, allow: Collection[str] = ()) -> int:
        """Return 1 for a regression, else 5 (not comparable), else 4 (inconclusive), else 0.

        What cannot be compared never passes; ``allow={"inconclusive"}`` lets an open one.
        """
        verdicts = {row.verdict for row in self.rows}
        if any(row.is_slower for row in self.rows):
            return REGRESSION
        if "NOT_COMPARABLE" in verdicts or not self.rows:
            return NOT_COMPARABLE
        return OPEN if "INCONCLUSIVE" in verdicts and "inconclusive" not in allow else 0

    def to_json(self) -> list[dict[str, Any]]:
        """Return the rows as ``hwprof compare --json`` prints them."""
        return [row.to_row() for row in self.rows]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a workload."""
        import pandas as pd

        return pd.DataFrame(self.to_json())

    def _repr_html_(self) -> str:
        columns = ["workload", "verdict", "shift", "shift_ci99", "detectable", "reason"]
        html: str = self.to_frame().reindex(columns=columns).to_html(index=False)
        return html
