"""What profiling, reducing and searching return: typed, inert, and easy to put in a frame.

Latencies are seconds, accuracies are top-1 in percent, differences of accuracy are
percentage points. An interval is a 95 % interval unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hwprof.interval import Interval
from hwprof.space import Architecture

if TYPE_CHECKING:
    import pandas as pd

EffectKind = Literal["block", "depth", "network", "factor"]
Metric = Literal["latency", "accuracy"]
LatencySource = Literal["predicted", "measured", "table"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One network as the estimators see it: latency (with its standard error) and accuracy."""

    arch: Architecture
    latency_s: float | None = None
    latency_se_s: float | None = None
    accuracy_pct: float | None = None
    session_sd: float = 0.0
    """What sessions differ by, as a share of the latency: in the error, and common to a session."""
    session: str | None = None
    """Names the session that timed it among those of its run."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """How a block, a depth, a block everywhere, or a factor's level moves the whole network.

    ``block``: the slot's blocks sum to zero. ``depth``: gain of reaching ``depth`` layers.
    ``network``: the block at every place against a random fill. ``factor``: ``block`` holds
    ``name=level``. ``n_networks`` are those behind ``latency``; accuracies may be of fewer.
    """

    kind: EffectKind
    unit: int | None
    layer: int | None
    depth: int | None
    block: str | None
    latency: Interval | None
    accuracy: Interval | None
    n_networks: int

    def to_row(self) -> dict[str, Any]:
        """Return the documented columns of ``hwprof effects``."""
        latency, accuracy = self.latency, self.accuracy
        return {
            "kind": self.kind,
            "unit": self.unit,
            "layer": self.layer,
            "depth": self.depth,
            "block": self.block,
            "latency_s": latency.value if latency else None,
            "latency_lo_s": latency.lo if latency else None,
            "latency_hi_s": latency.hi if latency else None,
            "accuracy_pct": accuracy.value if accuracy else None,
            "accuracy_lo_pct": accuracy.lo if accuracy else None,
            "accuracy_hi_pct": accuracy.hi if accuracy else None,
            "n_networks": self.n_networks,
        }


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """How well a latency model predicts networks it has not seen (cross-validated)."""

    n: int
    median_rel_error: float
    within_5pct: float
    within_10pct: float
    spearman: float
    coverage95: float
    """Share of held-out networks inside their 95 % prediction interval."""
    sessions_apart: float = 0.0
    """Standard deviation of what the run's sessions differ by, as a share: taken out of what is
    predicted; 0 where it may be chance."""

    def to_json(self) -> dict[str, float]:
        """Return the figures as plain data."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One network that a search judged."""

    arch: Architecture
    accuracy_pct: float
    accuracy_source: str
    latency_s: float
    latency_source: LatencySource
    macs: int
    params: int
    predicted_s: float | None = None
    """What the latency model said, where ``latency_s`` is measured."""
    ci95_s: tuple[float, float] | None = None
    verdict: str | None = None
    state: str = "done"
    """``done``, or why a finalist could not be measured (its latency is then predicted)."""
    test_accuracy_pct: float | None = None
    """Accuracy on images that neither training nor the search has seen."""

    @property
    def latency(self) -> Interval:
        """``latency_s`` with its interval, which has no width where it is not known."""
        return Interval(self.latency_s, *(self.ci95_s or (self.latency_s, self.latency_s)))

    def to_row(self) -> dict[str, Any]:
        """Return the documented keys of a front's member."""
        return {
            "arch": self.arch.to_json(),
            "accuracy_pct": self.accuracy_pct,
            "accuracy_source": self.accuracy_source,
            "latency_s": self.latency_s,
            "latency_source": self.latency_source,
            "macs": self.macs,
            "params": self.params,
            "predicted_s": self.predicted_s,
            "ci95_s": list(self.ci95_s) if self.ci95_s else None,
            "verdict": self.verdict,
            "state": self.state,
            "test_accuracy_pct": self.test_accuracy_pct,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Trial:
        """Read a trial from the keys that :meth:`to_row` writes."""
        return cls(
            arch=Architecture.from_json(row["arch"]),
            accuracy_pct=row["accuracy_pct"],
            accuracy_source=row["accuracy_source"],
            latency_s=row["latency_s"],
            latency_source=row["latency_source"],
            macs=row["macs"],
            params=row["params"],
            predicted_s=row.get("predicted_s"),
            ci95_s=tuple(row["ci95_s"]) if row.get("ci95_s") else None,
            verdict=row.get("verdict"),
            state=row.get("state", "done"),
            test_accuracy_pct=row.get("test_accuracy_pct"),
        )


TARGET_TOLERANCE = 0.05
"""How far a network's latency may be from the target that was searched for, relative to it."""


@dataclass(frozen=True, kw_only=True)
class TargetOutcome:
    """What a search for a target latency came to: how near its network is.

    ``expected_s`` is of the whole distribution at the end, ``argmax_s`` of its most probable
    network, ``predicted_s`` of the derived one, all by the latency model.
    """

    name: str
    arch: Architecture
    target_s: float
    expected_s: float
    argmax_s: float
    predicted_s: float
    is_limiting: bool
    """Whether latency still held the search back at the end; where it did not, the search may have
    come to a network of itself that is ``faster`` than the target."""
    accuracy_pct: float | None = None
    measured_s: float | None = None
    """None where nobody measured it."""
    ci95_s: tuple[float, float] | None = None
    faster: Trial | None = None
    """The most probable network, where it is faster than the target and latency did not hold the
    search back: the alternative to ``arch``, which is made to come to the target."""

    @property
    def deviation(self) -> float:
        """Latency over target less 1: measured where it was, else as predicted."""
        latency_s = self.predicted_s if self.measured_s is None else self.measured_s
        return latency_s / self.target_s - 1.0

    @property
    def verdict(self) -> str:
        """``hit`` (within :data:`TARGET_TOLERANCE`), ``slower`` or ``faster``."""
        if abs(self.deviation) <= TARGET_TOLERANCE:
            return "hit"
        return "slower" if self.deviation > 0.0 else "faster"

    def to_row(self) -> dict[str, Any]:
        """Return the outcome as plain data."""
        return {
            "name": self.name,
            "arch": self.arch.to_json(),
            "target_s": self.target_s,
            "expected_s": self.expected_s,
            "argmax_s": self.argmax_s,
            "predicted_s": self.predicted_s,
            "is_limiting": self.is_limiting,
            "accuracy_pct": self.accuracy_pct,
            "measured_s": self.measured_s,
            "ci95_s": list(self.ci95_s) if self.ci95_s else None,
            "deviation": self.deviation,
            "verdict": self.verdict,
            "faster": None if self.faster is None else self.faster.to_row(),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> TargetOutcome:
        """Read what :meth:`to_row` wrote."""
        return cls(
            name=row["name"],
            arch=Architecture.from_json(row["arch"]),
            **{n: row[n] for n in ("target_s", "expected_s", "argmax_s", "predicted_s")},
            is_limiting=row["is_limiting"],
            accuracy_pct=row.get("accuracy_pct"),
            measured_s=row["measured_s"],
            ci95_s=tuple(row["ci95_s"]) if row["ci95_s"] else None,
            faster=Trial.from_row(row["faster"]) if row.get("faster") else None,
        )


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """A search from start to front.

    ``front`` holds measured networks only, or predicted ones only (``confirmed`` says which);
    the two never mix. ``trials`` are all networks judged, with predicted latency.
    """

    space: str
    reduced: bool
    strategy: str
    seed: int
    device: str | None
    front: tuple[Trial, ...]
    finalists: tuple[Trial, ...]
    trials: tuple[Trial, ...]
    confirmed: bool
    ledger: Mapping[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    latency_fingerprint: Mapping[str, Any] | None = None
    """``digest`` and ``stable`` facts of what the latency model was fitted on; None for a table
    and in files of earlier versions."""
    measured_fingerprint: Mapping[str, Any] | None = None
    """The same of what measured the finalists; None where nothing did."""
    targets: tuple[TargetOutcome, ...] = ()
    """One for each search of a sweep that went for a target latency."""

    @property
    def fingerprint(self) -> Mapping[str, Any] | None:
        """What the front's latencies are of: what measured them, else what predicted them."""
        return self.measured_fingerprint if self.confirmed else self.latency_fingerprint

    def to_frame(self) -> pd.DataFrame:
        """Return the front, one row a network."""
        import pandas as pd

        return pd.DataFrame([{**t.to_row(), "arch": t.arch.canonical_json()} for t in self.front])

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        # Of an empty front the frame has no columns at all.
        html: str = frame.drop(columns=["arch"], errors="ignore").to_html(index=False)
        return html

    def to_json(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof search --json``."""
        return {
            "space": self.space,
            "reduced": self.reduced,
            "strategy": self.strategy,
            "seed": self.seed,
            "device": self.device,
            "confirmed": self.confirmed,
            "front": [t.to_row() for t in self.front],
            "finalists": [t.to_row() for t in self.finalists],
            "ledger": dict(self.ledger),
            "settings": dict(self.settings),
            "latency_fingerprint": _plain(self.latency_fingerprint),
            "measured_fingerprint": _plain(self.measured_fingerprint),
            "targets": [t.to_row() for t in self.targets],
        }


@dataclass(frozen=True, kw_only=True)
class CoursePoint:
    """How a search by gradient stood at the end of an epoch."""

    step: int
    mean_entropy_nat: float
    """Of the distributions over the options, over all decisions."""
    expected_s: float
    """Latency expected over the distribution."""
    argmax_s: float
    """Latency of the most probable network, as predicted."""
    argmax_accuracy_pct: float
    """Its accuracy with the supernet's weights."""


@dataclass(frozen=True, kw_only=True)
class SearchCourse:
    """One search by gradient from its first epoch to its network."""

    name: str
    points: tuple[CoursePoint, ...]
    arch: Architecture
    measured_s: float | None
    """Latency of the network on the device; None where nobody asked it."""
    accuracy_pct: float | None


def _plain(fingerprint: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if fingerprint is None else dict(fingerprint)


def effects_frame(effects: Sequence[Effect]) -> pd.DataFrame:
    """Return effects as a frame with the documented columns."""
    import pandas as pd

    frame = pd.DataFrame([e.to_row() for e in effects])
    # Whole numbers that may be missing: floats would show unit 0 as 0.0.
    return frame.astype({"unit": "Int64", "layer": "Int64", "depth": "Int64"})
