"""What happens in a search, one record a line in ``events.jsonl``.

Every line holds ``seq`` (counted from 0), ``time_s`` (seconds of searching so far, interruptions
apart), ``event`` (the type's name) and the type's own fields. Figures of a search are made from
this log alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from hwprof.results import Trial
from hwprof.search.strategy import Refusal
from hwprof.space import Architecture


@dataclass(frozen=True, kw_only=True)
class SearchStarted:
    """A search begins; ``request`` is what it was asked and would have to be asked to go on."""

    request: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return {"request": dict(self.request)}


@dataclass(frozen=True, kw_only=True)
class ArchEvaluated:
    """A network was judged."""

    trial: Trial

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return {"trial": self.trial.to_row()}


@dataclass(frozen=True, kw_only=True)
class ArchRefused:
    """A network could not be judged, or is too slow to be."""

    refusal: Refusal

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return {**asdict(self.refusal), "arch": self.refusal.arch.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArchRefused:
        """Read what :meth:`to_json` wrote."""
        return cls(
            refusal=Refusal(
                arch=Architecture.from_json(data["arch"]),
                stage=data["stage"],
                reason=data["reason"],
                latency_s=data["latency_s"],
            )
        )


@dataclass(frozen=True, kw_only=True)
class IncumbentChanged:
    """The network last judged joined the predicted front."""

    arch_id: str
    n_front: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class FinalistMeasured:
    """A finalist was measured, or could not be (its ``state`` says why)."""

    trial: Trial

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return {"trial": self.trial.to_row()}


@dataclass(frozen=True, kw_only=True)
class ChoicesUpdated:
    """How architecture parameters stood at the end of an epoch.

    ``search`` names the search of a sweep. ``loss`` and ``accuracy_pct`` are means over the
    epoch's architecture steps (None where there was none), ``argmax_accuracy_pct`` is that of
    the most probable network with the supernet's weights, on validation images. Entropies are
    in nat, by decision.
    """

    search: str
    epoch: int
    step: int
    loss: float | None
    accuracy_pct: float | None
    entropy_nat: Mapping[str, float]
    expected_s: float
    argmax: Architecture
    argmax_s: float
    argmax_accuracy_pct: float
    multiplier: float | None = None
    """Of a search for a target latency; None for others, and in logs of earlier versions."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return {**asdict(self), "argmax": self.argmax.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ChoicesUpdated:
        """Read what :meth:`to_json` wrote."""
        own = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        return cls(**{**own, "argmax": Architecture.from_json(data["argmax"])})


@dataclass(frozen=True, kw_only=True)
class ChoicesPruned:
    """A round of a search that does not train dropped candidates.

    ``candidates`` are rows of :class:`hwprof.search.strategies.te_nas.Removal`: what the indicators said of
    every candidate, and whether it was dropped.
    """

    round: int
    candidates: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class NetworkDerived:
    """A search of a sweep came to its network."""

    search: str
    arch: Architecture
    checkpoint: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return {**asdict(self), "arch": self.arch.to_json()}


@dataclass(frozen=True, kw_only=True)
class SearchFinished:
    """The search is over: because of ``reason``, at this price."""

    reason: str
    confirmed: bool
    n_front: int
    ledger: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


Event = (
    SearchStarted
    | ArchEvaluated
    | ArchRefused
    | IncumbentChanged
    | ChoicesUpdated
    | ChoicesPruned
    | NetworkDerived
    | FinalistMeasured
    | SearchFinished
)
