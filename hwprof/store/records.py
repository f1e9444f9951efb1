"""What a run folder holds beside measurements: other people's numbers."""

from __future__ import annotations

from dataclasses import dataclass

from hwprof.space import Architecture


@dataclass(frozen=True, kw_only=True)
class ImportedNetwork:
    """A network that someone else measured."""

    arch: Architecture
    latency_s: float
    sd_s: float | None = None
    count: int | None = None
    accuracy_pct: float | None = None

    @property
    def se_s(self) -> float | None:
        """Standard error of the latency."""
        return _standard_error(self.sd_s, self.count)


@dataclass(frozen=True, kw_only=True)
class ImportedBlock:
    """A block that someone else measured; no unit and layer for a fixed part of the network."""

    resolution_px: int
    unit: int | None
    layer: int | None
    block: str
    latency_s: float
    sd_s: float | None = None
    count: int | None = None

    @property
    def se_s(self) -> float | None:
        """Standard error of the latency."""
        return _standard_error(self.sd_s, self.count)


def _standard_error(sd_s: float | None, count: int | None) -> float | None:
    """Return sd/√count; without a count the standard deviation itself, its upper bound."""
    return None if sd_s is None else sd_s / (count or 1) ** 0.5
