"""What a strategy remembers of a network that it was told about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from hwprof.results import Trial
from hwprof.search.strategy import Outcome, Refusal
from hwprof.space import Architecture


@dataclass(frozen=True, kw_only=True)
class Member:
    """A judged network; one that is surely too slow has no accuracy."""

    arch: Architecture
    latency_s: float
    accuracy_pct: float | None

    @classmethod
    def of(cls, judged: Trial | Refusal) -> Member | None:
        """Return what takes part in selection: a judged network, or one that is too slow."""
        if isinstance(judged, Trial):
            return cls(
                arch=judged.arch, latency_s=judged.latency_s, accuracy_pct=judged.accuracy_pct
            )
        if judged.stage == "target" and judged.latency_s is not None:
            return cls(arch=judged.arch, latency_s=judged.latency_s, accuracy_pct=None)
        return None

    def excess_s(self, target_s: float | None) -> float:
        """Return by how much the network violates the ceiling."""
        return 0.0 if target_s is None else max(self.latency_s - target_s, 0.0)

    def to_row(self) -> dict[str, Any]:
        """Return the member as plain data."""
        return {
            "arch": self.arch.to_json(),
            "latency_s": self.latency_s,
            "accuracy_pct": self.accuracy_pct,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_row` returned."""
        return cls(
            arch=Architecture.from_json(row["arch"]),
            latency_s=row["latency_s"],
            accuracy_pct=row["accuracy_pct"],
        )


def members_of(outcome: Outcome) -> list[Member]:
    """Return what takes part in selection, in the order told."""
    members = (Member.of(judged) for judged in outcome.outcomes)
    return [member for member in members if member is not None]
