"""Devices side by side: how alike they rank blocks and networks, and where their verdicts flip.

A verdict flips where a block is slower than its rivals on one device and faster on another. The
test is Gail and Simon's (1985) for a qualitative interaction of two groups: the hypothesis "the
same sign on both" falls only where both signs are settled, so its p-value is the larger of the
two one-sided ones. All flips of a kind are one family (Holm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwprof.errors import IncompatibleRunError, PlanError
from hwprof.estimate.claims import FAMILY_ERROR, holm
from hwprof.estimate.crossval import spearman
from hwprof.estimate.least_squares import upper_p
from hwprof.estimate.responses import Friendliness, Response
from hwprof.interval import NORMAL_975, Interval
from hwprof.results import Effect, Sample
from hwprof.space import DesignSpace

if TYPE_CHECKING:
    import pandas as pd

CorrelationOf = Literal["networks", "block", "network", "depth"]
FLIP_KINDS = ("network", "block")


@dataclass(frozen=True, kw_only=True)
class DeviceEffects:
    """One device's part: its effects, and the networks they come from."""

    name: str
    """What tells it from the others: the device, with the run where two share a name."""
    run: str
    friendliness: Friendliness = field(repr=False)
    samples: Sequence[Sample] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class DeviceCorrelation:
    """How alike two devices rank something.

    ``of``: ``networks`` that were measured on both, or effects of a kind. ``spearman``: the rank
    correlation; its 95 % interval is None where there are too few to bound it.
    """

    first: str
    second: str
    of: CorrelationOf
    n: int
    spearman: float
    interval: Interval | None

    def to_row(self) -> dict[str, Any]:
        """Return the correlation as plain data."""
        return {
            "first": self.first,
            "second": self.second,
            "of": self.of,
            "n": self.n,
            "spearman": self.spearman,
            "lo": self.interval.lo if self.interval else None,
            "hi": self.interval.hi if self.interval else None,
        }


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A block that is slower on one device and faster on another, with confidence."""

    slower_on: str
    faster_on: str
    slower: Effect
    faster: Effect
    adjusted_p: float

    def to_row(self) -> dict[str, Any]:
        """Return the flip as plain data."""
        where = {k: getattr(self.slower, k) for k in ("kind", "unit", "layer", "block")}
        return {
            **where,
            "slower_on": self.slower_on,
            "slower_s": list(self.slower.latency or ()),
            "faster_on": self.faster_on,
            "faster_s": list(self.faster.latency or ()),
            "adjusted_p": self.adjusted_p,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class EffectsComparison:
    """Effects of several devices side by side."""

    devices: tuple[DeviceEffects, ...]
    correlations: tuple[DeviceCorrelation, ...]
    flips: tuple[Flip, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof effects RUN RUN --json``."""
        return {
            "devices": [{"device": d.name, "run": d.run} for d in self.devices],
            "effects": [
                {"device": d.name, **e.to_row()}
                for d in self.devices
                for e in d.friendliness.effects
            ],
            "correlations": [c.to_row() for c in self.correlations],
            "flips": [f.to_row() for f in self.flips],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row an effect and device: the columns of ``effects``, after ``device``."""
        import pandas as pd

        frames = []
        for device in self.devices:
            frame = device.friendliness.to_frame()
            frame.insert(0, "device", device.name)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def to_csv(self) -> str:
        """Return the frame as CSV text."""
        text: str = self.to_frame().to_csv(index=False)
        return text

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        html: str = frame[frame["kind"] == "network"].to_html(index=False)
        return html


def compare_devices(devices: Sequence[DeviceEffects]) -> EffectsComparison:
    """Compare the effects of two or more devices.

    Raises:
        PlanError: fewer than two devices, or two of the same name.
        IncompatibleRunError: the effects are not of one space at one input size.
    """
    if len(devices) < 2:
        raise PlanError("a comparison needs at least two runs; name another one")
    names = [d.name for d in devices]
    if len(set(names)) < len(names):
        raise PlanError(f"two runs are called alike: {names}; name every run once")
    for other in devices[1:]:
        _require_comparable(devices[0], other)
    pairs = list(combinations(devices, 2))
    return EffectsComparison(
        devices=tuple(devices),
        correlations=tuple(c for a, b in pairs for c in _correlations(a, b)),
        flips=tuple(f for kind in FLIP_KINDS for f in _flips(pairs, kind)),
    )


def rank_correlation(
    a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], n_free: int | None = None
) -> tuple[float, Interval | None]:
    """Return Spearman's correlation of two sets of values, with its 95 % interval.

    Fisher's transform with the variance (1 + r²/2) / (n − 3) of Bonett and Wright (2000).

    Args:
        a: ``float64[n]``.
        b: ``float64[n]``, in the same order.
        n_free: how many of the n are free, where they are bound to sums; by default all.
    """
    r = spearman(a, b)
    n = len(a) if n_free is None else n_free
    if n <= 3:
        return r, None
    half = NORMAL_975 * np.sqrt((1.0 + r * r / 2.0) / (n - 3))
    # Ranks that agree throughout are known no better than to half a swap of neighbours.
    most = 1.0 - 6.0 / (len(a) * (len(a) ** 2 - 1.0))
    centre = np.arctanh(np.clip(r, -most, most))
    lo, hi = float(np.tanh(centre - half)), float(np.tanh(centre + half))
    return r, Interval(r, min(lo, r), max(hi, r))


def _correlations(a: DeviceEffects, b: DeviceEffects) -> list[DeviceCorrelation]:
    found = []
    theirs = {s.arch.arch_id: s.latency_s for s in b.samples if s.latency_s is not None}
    shared = [
        (s.latency_s, theirs[s.arch.arch_id])
        for s in a.samples
        if s.latency_s is not None and s.arch.arch_id in theirs
    ]
    sets: list[tuple[CorrelationOf, Any, Any, int]] = []
    if len(shared) > 1:
        first, second = np.array(shared, dtype=np.float64).T
        sets.append(("networks", first, second, len(shared)))
    kinds: tuple[CorrelationOf, ...] = ("network", "block", "depth")
    for kind in kinds:
        terms = a.friendliness.design.terms
        rows = [i for i, term in enumerate(terms) if term.kind == kind]
        if len(rows) > 1:
            values = [d.friendliness.latency.values[rows] for d in (a, b)]
            free = int(np.linalg.matrix_rank(a.friendliness.design.expansion[rows]))
            sets.append((kind, values[0], values[1], free))
    for of, x, y, free in sets:
        r, interval = rank_correlation(x, y, free)
        found.append(
            DeviceCorrelation(
                first=a.name, second=b.name, of=of, n=len(x), spearman=r, interval=interval
            )
        )
    return found


def _flips(pairs: Sequence[tuple[DeviceEffects, DeviceEffects]], kind: str) -> list[Flip]:
    """Return the flips of one kind over all pairs, the surest first."""
    terms = pairs[0][0].friendliness.design.terms
    rows = [i for i, term in enumerate(terms) if term.kind == kind]
    cases = [(a, b, row) for a, b in pairs for row in rows]
    adjusted = holm([_flip_p(a, b, row) for a, b, row in cases])
    found = []
    for i in np.argsort(adjusted, kind="stable"):
        if adjusted[i] > FAMILY_ERROR:
            break
        a, b, row = cases[i]
        slower, faster = (a, b) if a.friendliness.latency.values[row] > 0.0 else (b, a)
        found.append(
            Flip(
                slower_on=slower.name,
                faster_on=faster.name,
                slower=slower.friendliness.effects[row],
                faster=faster.friendliness.effects[row],
                adjusted_p=float(adjusted[i]),
            )
        )
    return found


def _flip_p(a: DeviceEffects, b: DeviceEffects, row: int) -> float:
    first, second = a.friendliness.latency, b.friendliness.latency
    if first.values[row] * second.values[row] >= 0.0:
        return 1.0
    return max(_sign_p(first, row), _sign_p(second, row))


def _sign_p(response: Response, row: int) -> float:
    """Return the one-sided p-value against the estimate's own sign."""
    value = abs(float(response.values[row]))
    sd = float(np.sqrt(max(response.covariance[row, row], 0.0)))
    return upper_p(value / sd, response.degrees) if sd > 0.0 else 0.0


def _require_comparable(a: DeviceEffects, b: DeviceEffects) -> None:
    mine, yours = a.friendliness.space, b.friendliness.space
    for name, ours, theirs in _facts(mine, yours):
        if ours != theirs:
            raise IncompatibleRunError(
                f"{a.run!r} and {b.run!r} cannot be compared: {name} is {ours!r} in the first and "
                f"{theirs!r} in the second; profile both with the same --space and --resolution"
            )


def _facts(a: DesignSpace, b: DesignSpace) -> list[tuple[str, object, object]]:
    facts: list[tuple[str, object, object]] = [
        ("space", a.name, b.name),
        ("resolution_px", a.resolution_px, b.resolution_px),
        ("max_depth", list(a.max_depth), list(b.max_depth)),
    ]
    both = [slot for slot in a.slots if slot in b.slots]
    facts += [(f"candidates at {s}", list(a.choices(s)), list(b.choices(s))) for s in both]
    return facts
