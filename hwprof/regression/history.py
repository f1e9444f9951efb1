"""Levels from session to session: when did a workload become slower or faster?

One point a session, oldest first, out of one baseline or a folder of baselines named after commits.
Changes are E-divisive's (:mod:`hwprof.regression.change_points`). A change at which the reference
block moved too is the machine's. The last confirmed change resets the baseline: what was measured
before it says nothing about the level that holds now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwprof.errors import StoreError
from hwprof.measure.records import differing
from hwprof.regression.baseline import (
    baselines_in,
    is_baseline,
    match_of,
    runs_in,
    suite_facts,
)
from hwprof.regression.change_points import FEWEST_POINTS, change_points, first_looked_at
from hwprof.regression.stored import (
    REFERENCE_MOVED,
    Missing,
    Session,
    reference_shift,
    session_of,
    typical_s,
)
from hwprof.store.folder import RunFile


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A workload in one session, as it is stored."""

    session: str
    """``0003``, or ``COMMIT/0003`` in a folder of baselines."""
    at: str
    """When it began: UTC, ISO 8601."""
    match: str
    label: str
    facts: Mapping[str, object]
    levels: Session


@dataclass(frozen=True, kw_only=True)
class Point:
    """One session of a series."""

    session: str
    at: str
    level_s: float


@dataclass(frozen=True, kw_only=True)
class Change:
    """A confirmed change; ``session`` is the first one of the new level."""

    session: str
    at: str
    shift: float
    p: float
    before_s: float
    after_s: float
    reference_shift: float | None
    """How far the reference block moved at the same time; None where it was not measured."""

    @property
    def is_machines(self) -> bool:
        """Whether the reference block, which never changes, moved too."""
        return self.reference_shift is not None and abs(self.reference_shift) > REFERENCE_MOVED


@dataclass(frozen=True, kw_only=True)
class Series:
    """One workload's history."""

    workload: str
    points: tuple[Point, ...]
    changes: tuple[Change, ...]
    left_out: str = ""
    """Which sessions are not points, and why."""

    @property
    def note(self) -> str:
        """What must be said beside the changes, or instead of them."""
        parts = []
        if len(self.points) < FEWEST_POINTS:
            parts.append(
                f"too few sessions ({len(self.points)}): fewer than {FEWEST_POINTS} cannot show a "
                "change at p < 0.001"
            )
        return "; ".join([*parts, *([self.left_out] if self.left_out else [])])

    @property
    def since(self) -> str | None:
        """The first session of the level that holds now; None where there is no session."""
        if self.changes:
            return self.changes[-1].session
        return self.points[0].session if self.points else None

    def to_row(self) -> dict[str, Any]:
        """Return what ``hwprof suite history --json`` prints for the workload."""
        return {
            "workload": self.workload,
            "n_sessions": len(self.points),
            "is_long_enough": len(self.points) >= FEWEST_POINTS,
            "since": self.since,
            "changes": [{**asdict(c), "is_machines": c.is_machines} for c in self.changes],
            "note": self.note,
            "points": [asdict(p) for p in self.points],
        }


def histories(folder: Path, seed: int) -> tuple[Series, ...]:
    """Return the history of every workload in a baseline, or in a folder of baselines.

    Args:
        folder: the ``--out`` of ``suite run``, or what holds several.
        seed: of the permutations. Every workload gets a generator of its own, so that what is said
            of one depends on no other.

    Raises:
        StoreError: there is no baseline, or no session in it.
    """
    by_match: dict[str, list[Visit]] = {}
    failed: dict[str, list[Missing]] = {}
    for found in _visits(folder):
        if isinstance(found, Missing):
            failed.setdefault(found.match, []).append(found)
        else:
            by_match.setdefault(found.match, []).append(found)
    if not by_match and not failed:
        raise StoreError(f"{str(folder)!r} holds no session; run `hwprof suite run` to make one")
    return tuple(
        _series(by_match.get(match, []), failed.get(match, []), np.random.default_rng(seed))
        for match in dict.fromkeys([*by_match, *failed])
    )


def _visits(folder: Path) -> Iterator[Visit | Missing]:
    whole = is_baseline(folder)
    baselines = [folder] if whole else baselines_in(folder)
    if not baselines:
        raise StoreError(
            f"{str(folder)!r} is no baseline and holds none; expected the --out of "
            "`hwprof suite run`, or a folder of such"
        )
    for baseline in baselines:
        for session, config, run in runs_in(baseline):
            name = session if whole else f"{baseline.name}/{session}"
            at = RunFile.read(run.path).created
            for m in run.measurements():
                yield Visit(
                    session=name,
                    at=at,
                    match=match_of(config, m.workload),
                    label=f"{m.workload.label} [{config}]",
                    facts=suite_facts(m),
                    levels=session_of(m),
                )
            for f in run.failures():
                yield Missing(
                    label=f"{f.workload.label} [{config}]",
                    match=match_of(config, f.workload),
                    reason=f"{name}: {f.stage} failed ({f.kind})",
                )


def _series(visits: Sequence[Visit], failed: Sequence[Missing], rng: np.random.Generator) -> Series:
    notes = [f"it failed in {len(failed)} sessions, last in {failed[-1].reason}"] if failed else []
    if not visits:
        return Series(workload=failed[-1].label, points=(), changes=(), left_out=notes[0])
    visits = sorted(visits, key=lambda v: (v.at, v.session))
    newest = visits[-1]
    kept = [v for v in visits if not differing(v.facts, newest.facts)]
    if others := {name for v in visits for name in differing(v.facts, newest.facts)}:
        notes.append(
            f"{len(visits) - len(kept)} sessions differ from the newest in "
            f"{', '.join(sorted(others))} and are left out"
        )
    if older := first_looked_at(len(kept)):
        notes.append(
            f"the {older} oldest sessions are left out: changes are looked for from then on"
        )
        kept = kept[older:]
    points = tuple(Point(session=v.session, at=v.at, level_s=v.levels.level_s) for v in kept)
    found = change_points([p.level_s for p in points], rng)
    bounds = [0, *(c.index for c in found), len(kept)]
    changes = []
    for change, start, end in zip(found, bounds, bounds[2:], strict=False):
        before = [v.levels for v in kept[start : change.index]]
        after = [v.levels for v in kept[change.index : end]]
        changes.append(
            Change(
                session=kept[change.index].session,
                at=kept[change.index].at,
                shift=change.shift,
                p=change.p,
                before_s=typical_s([s.level_s for s in before]),
                after_s=typical_s([s.level_s for s in after]),
                reference_shift=reference_shift(before, after),
            )
        )
    return Series(
        workload=newest.label, points=points, changes=tuple(changes), left_out="; ".join(notes)
    )
