"""Fronts of several devices: each on its own axis, and every network timed on every device.

A *place* is a device with its options (batch, threads, precision): what a fingerprint identifies.
Two machines whose adapter has the same name are two places. Latencies of two places never stand
on one axis; on one place's axis stands either only what was measured there, or, where nothing
was, only what its own model predicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hwprof.interval import Interval
from hwprof.pareto import front_indices
from hwprof.results import SearchResult, Trial
from hwprof.space import network_id

USUAL_OPTIONS: Mapping[str, object] = {"batch": 1, "precision": "fp32", "threads": 1}
"""What ``hwprof retime`` takes for them where they are not named."""
OPTIONS = tuple(USUAL_OPTIONS)
"""They change what a latency is of: named wherever they differ."""
FACTS_FIRST = ("hardware", "runtime_version")
"""What people tell places of one device by, before anything else that differs."""

Outcome = Literal["own", "beaten", "wins", "undecided", "not compared", "failed", "not timed"]


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A network's level on a place, in seconds; or ``failure``, why it has none."""

    level: Interval | None = None
    """For other sessions."""
    beside: Interval | None = None
    """The same against what the same workers timed."""
    workers: frozenset[str] = frozenset()
    """The processes that timed it; empty where that is not known."""
    verdict: str | None = None
    failure: str | None = None

    def is_faster(self, other: Timed) -> bool:
        """Whether it is faster with intervals apart.

        What sessions differ by falls on both where the same workers timed them in turn.
        """
        together = not self.workers.isdisjoint(other.workers)
        mine, theirs = (t.beside if together else t.level for t in (self, other))
        return mine is not None and theirs is not None and mine.hi < theirs.lo


@dataclass(frozen=True, kw_only=True)
class Place:
    """A device with its options, the searches for it, and what was timed on it.

    ``timed`` is by :func:`hwprof.space.network_id`. It is empty where nothing was measured there.
    """

    label: str
    digest: str | None
    """Of the fingerprint; None for files of earlier versions, known by their device's name."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    searches: tuple[SearchResult, ...] = ()
    timed: Mapping[str, Timed] = field(default_factory=dict)
    side_by_side: bool = False
    """Whether all of ``timed`` was timed in one campaign (``hwprof retime``)."""

    @property
    def fronts(self) -> tuple[SearchResult, ...]:
        """The searches to show: confirmed ones alone where there are any."""
        return tuple(s for s in self.searches if s.confirmed) or self.searches

    @property
    def emulated(self) -> bool:
        """Whether an emulator plays the device."""
        return bool(self.facts.get("emulated"))


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """A network of one place's front, and its outcome on every place in the matrix."""

    number: int
    place: Place
    """What it was searched for."""
    trial: Trial
    cells: tuple[tuple[Timed | None, Outcome], ...]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How the networks searched for ``guest`` do on ``host``, against those searched for it."""

    host: str
    guest: str
    n: int
    beaten: int
    wins: int
    undecided: int


@dataclass(frozen=True, kw_only=True)
class PanelPoint:
    """A network on one place's axis: seconds there, top-1 in percent."""

    latency: Interval
    accuracy_pct: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """The networks searched for ``guest`` as they stand on a place's axis, fastest first."""

    guest: str
    points: tuple[PanelPoint, ...]
    front: tuple[int, ...]
    """Positions of those that no other of the series beats."""


@dataclass(frozen=True, kw_only=True)
class FrontPanel:
    """One place's axis. ``measured`` holds for every point of it, or for none."""

    place: Place
    measured: bool
    series: tuple[Series, ...]


def place_labels(facts: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Name places by their device, those that share one by what else tells them apart."""
    labels = []
    for own in facts:
        name = str(own.get("device", "unknown device"))
        rivals = [f for f in facts if f is not own and f.get("device") == own.get("device")]
        told = ", ".join(_told(fact, own.get(fact)) for fact in _telling(own, rivals))
        label = f"{name} ({told})" if told else name
        labels.append(f"{label} EMULATED" if own.get("emulated") else label)
    return tuple(
        f"{label} no. {labels[: i + 1].count(label)}" if labels.count(label) > 1 else label
        for i, label in enumerate(labels)
    )


def _telling(own: Mapping[str, Any], rivals: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the options that differ, and few facts that tell what options do not."""

    def differs(other: Mapping[str, Any], name: str) -> bool:
        known = (own.get(name), other.get(name))
        return None not in known and known[0] != known[1]

    chosen = [n for n in OPTIONS if any(differs(f, n) for f in rivals)]
    rivals = [f for f in rivals if not any(differs(f, n) for n in chosen)]
    names = {name for f in (own, *rivals) for name in f}
    for name in (*FACTS_FIRST, *sorted(names - {*FACTS_FIRST, *OPTIONS})):
        left = [f for f in rivals if f.get(name) == own.get(name)]
        if len(left) < len(rivals):
            chosen.append(name)
            rivals = left
    return chosen


def _told(fact: str, value: object) -> str:
    shown = "unknown" if value is None else str(value)
    return shown if fact == "hardware" and value else f"{fact.replace('_', ' ')} {shown}"


def columns(places: Sequence[Place]) -> tuple[Place, ...]:
    """Return the places on which networks were timed: the columns of the matrix."""
    return tuple(p for p in places if p.timed)


def crossed(places: Sequence[Place]) -> tuple[Crossed, ...]:
    """Return every network of every front with its outcome on every column."""
    hosts = columns(places)
    rows: list[Crossed] = []
    for place in places:
        for key, trial in _networks(place).items():
            rows.append(
                Crossed(
                    number=len(rows) + 1,
                    place=place,
                    trial=trial,
                    cells=tuple((h.timed.get(key), _outcome(key, trial, h)) for h in hosts),
                )
            )
    return tuple(rows)


def tallies(places: Sequence[Place]) -> tuple[Tally, ...]:
    """Count the outcomes of every place's networks on every other place in the matrix."""
    rows, found = crossed(places), []
    for column, host in enumerate(columns(places)):
        for guest in places:
            outcomes = [r.cells[column][1] for r in rows if r.place is guest is not host]
            compared = [o for o in outcomes if o in ("beaten", "wins", "undecided")]
            if compared:
                found.append(
                    Tally(
                        host=host.label,
                        guest=guest.label,
                        n=len(compared),
                        beaten=compared.count("beaten"),
                        wins=compared.count("wins"),
                        undecided=compared.count("undecided"),
                    )
                )
    return tuple(found)


def panels(places: Sequence[Place]) -> tuple[FrontPanel, ...]:
    """Return an axis for every place that has anything to show."""
    found = []
    for place in places:
        measured = bool(place.timed)
        series = [
            _series(guest.label, _on(place, guest) if measured else _predicted(guest))
            for guest in places
            if measured or guest is place
        ]
        kept = tuple(s for s in series if s.points)
        if kept:
            found.append(FrontPanel(place=place, measured=measured, series=kept))
    return tuple(found)


def tally_sentence(tally: Tally) -> str:
    """Say who wins on a place, as far as the intervals settle it."""
    counts = (
        f"On {tally.host}, of {tally.n} network{'s' if tally.n > 1 else ''} searched for "
        f"{tally.guest}, {tally.beaten} {'are' if tally.beaten != 1 else 'is'} beaten by one "
        f"searched for {tally.host}, {tally.wins} beat{'s' if tally.wins == 1 else ''} one of "
        f"those, {tally.undecided} {'are' if tally.undecided != 1 else 'is'} undecided"
    )
    if tally.beaten and not tally.wins:
        return f"{counts}: where that is settled, searching for the device paid."
    if tally.wins and not tally.beaten:
        return f"{counts}: where that is settled, searching for the other device did better."
    if tally.wins and tally.beaten:
        return f"{counts}: neither search is better throughout."
    return f"{counts}: nothing is settled."


def gaps(places: Sequence[Place]) -> tuple[str, ...]:
    """Say what the matrix lacks, and the command that would fill it."""
    found = []
    everything = {k for p in places for k in _networks(p)}
    for place in places:
        missing = everything - set(place.timed)
        if missing:
            found.append(
                f"{len(missing)} of the {len(everything)} networks "
                f"{'were' if len(missing) > 1 else 'was'} not timed on {place.label}: hwprof "
                f"retime SEARCH… {_retime_options(place.facts)} --out RUN, and name that folder "
                "here too."
            )
    if any(p.digest is None for p in places):
        found.append(
            "Some searches kept no fingerprint, as earlier versions did not: they are told apart "
            "by their device's name only."
        )
    if len({t.accuracy_source for p in places for t in _networks(p).values()}) > 1:
        found.append(
            "Accuracies are from several sources, so that networks of different sources are not "
            "ranked against each other."
        )
    return tuple(found)


def _retime_options(facts: Mapping[str, Any]) -> str:
    """Return the options that make ``hwprof retime`` time on a place, and not on one beside it."""
    named = [f"--device {facts.get('device', 'DEVICE')}"]
    named += [
        f"--{name} {facts[name]}"
        for name, usual in USUAL_OPTIONS.items()
        if facts.get(name, usual) not in (None, usual)
    ]
    return " ".join(named)


def _networks(place: Place) -> dict[str, Trial]:
    """Return the networks of a place's fronts, each once, by decreasing accuracy."""
    trials = [t for s in place.fronts for t in s.front]
    best: dict[str, Trial] = {}
    for trial in sorted(trials, key=lambda t: -t.accuracy_pct):
        best.setdefault(network_id(trial.arch), trial)
    return best


def _outcome(key: str, trial: Trial, host: Place) -> Outcome:
    """Judge a network on a place against the networks searched for it.

    One beats another where it is at least as accurate and faster, with intervals apart.
    """
    mine = host.timed.get(key)
    if mine is None:
        return "not timed"
    if mine.level is None:
        return "failed"
    own = _networks(host)
    if key in own:
        return "own"
    rivals = [
        (other, timed)
        for k, other in own.items()
        if other.accuracy_source == trial.accuracy_source
        and (timed := host.timed.get(k)) is not None
        and timed.level is not None
    ]
    if not rivals:
        return "not compared"
    if any(o.accuracy_pct >= trial.accuracy_pct and t.is_faster(mine) for o, t in rivals):
        return "beaten"
    if any(trial.accuracy_pct >= o.accuracy_pct and mine.is_faster(t) for o, t in rivals):
        return "wins"
    return "undecided"


def _on(host: Place, guest: Place) -> list[PanelPoint]:
    return [
        PanelPoint(latency=timed.level, accuracy_pct=trial.accuracy_pct)
        for key, trial in _networks(guest).items()
        if (timed := host.timed.get(key)) is not None and timed.level is not None
    ]


def _predicted(place: Place) -> list[PanelPoint]:
    return [
        PanelPoint(latency=trial.latency, accuracy_pct=trial.accuracy_pct)
        for trial in _networks(place).values()
    ]


def _series(guest: str, points: Sequence[PanelPoint]) -> Series:
    ordered = sorted(points, key=lambda p: p.latency.value)
    front = front_indices([p.latency.value for p in ordered], [p.accuracy_pct for p in ordered])
    return Series(guest=guest, points=tuple(ordered), front=tuple(front))
