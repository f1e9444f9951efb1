"""Which device each search and each retimed network belongs to, for a report on several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hwprof.errors import IncompatibleRunError
from hwprof.interval import Interval
from hwprof.measure.records import Fingerprint, Measurement
from hwprof.results import SearchResult
from hwprof.space import DesignSpace, network_id
from hwprof.space.reduction import Reduction

if TYPE_CHECKING:
    from hwprof.api.retiming import Retimed
    from hwprof.reports.places import Place, Timed


@dataclass(kw_only=True)
class _Gathered:
    """What is of one device with its options."""

    digest: str | None
    facts: Mapping[str, Any]
    searches: list[SearchResult] = field(default_factory=list)
    retimed: list[Retimed] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Searches of the page's own device, and every device's for the section that has several."""

    own: tuple[SearchResult, ...]
    places: tuple[Place, ...]
    """Empty where all is of the page's device and nothing was retimed."""
    notes: tuple[str, ...]


def place(
    page: Fingerprint, searches: Sequence[SearchResult], retimed: Sequence[Retimed]
) -> Placed:
    """Tell the devices apart by their fingerprints.

    A search is of the device that measured its finalists, else of the one whose latency model
    it used. One without a fingerprint (a table, or a file of an earlier version) is told by its
    device's name, and is the page's where it has the same name or none.

    Args:
        page: of the first profile.
        searches: of any devices.
        retimed: networks timed again, on any devices.
    """
    from hwprof.reports.places import Place, place_labels

    own = _Gathered(digest=page.digest, facts=page.stable)
    found: dict[str, _Gathered] = {page.digest: own}
    by_name = 0
    for search in searches:
        known = search.fingerprint
        if known is not None:
            key, digest, facts = known["digest"], known["digest"], known["stable"]
        elif search.device in (None, page.stable["device"]):
            key, digest, facts = page.digest, page.digest, page.stable
            by_name += search.device is not None
        else:
            key, digest, facts = f"name:{search.device}", None, {"device": search.device}
        found.setdefault(key, _Gathered(digest=digest, facts=facts)).searches.append(search)
    for run in retimed:
        gathered = _Gathered(digest=run.fingerprint.digest, facts=run.fingerprint.stable)
        found.setdefault(run.fingerprint.digest, gathered).retimed.append(run)
    used = [g for g in found.values() if g.searches or g.retimed]
    labels = place_labels([g.facts for g in used])
    places = tuple(
        Place(
            label=label,
            digest=g.digest,
            facts=dict(g.facts),
            searches=tuple(g.searches),
            timed=_timed(g),
            side_by_side=len(g.retimed) == 1,
        )
        for g, label in zip(used, labels, strict=True)
    )
    notes = []
    if by_name:
        notes.append(
            f"{by_name} search{'es' if by_name > 1 else ''} kept no fingerprint, as earlier "
            f"versions did not, and {'are' if by_name > 1 else 'is'} taken for this device by name."
        )
    elsewhere = len(searches) - len(own.searches)
    if elsewhere:
        notes.append(
            f"{elsewhere} search{'es' if elsewhere > 1 else ''} of other devices, or with other "
            "options, stand in the section of several devices only."
        )
    several = len(used) > 1 or bool(retimed)
    return Placed(own=tuple(own.searches), places=places if several else (), notes=tuple(notes))


def own_reduction(
    page: Fingerprint, reductions: Sequence[Reduction]
) -> tuple[Reduction | None, tuple[str, ...]]:
    """Return the first reduced space of the page's device, and what to say of the others.

    One without a fingerprint, out of a table of effects, is told by its device's name.
    """
    own = [r for r in reductions if _is_of(r, page)]
    notes = []
    if elsewhere := len(reductions) - len(own):
        notes.append(
            f"{elsewhere} reduced space{'s' if elsewhere > 1 else ''} of other devices, or with "
            f"other options, {'are' if elsewhere > 1 else 'is'} left out: what is dropped there says "
            "nothing of this device."
        )
    if len(own) > 1:
        notes.append(
            f"Of {len(own)} reduced spaces the first is shown: report each on a page of its own."
        )
    return (own[0] if own else None), tuple(notes)


def _is_of(reduction: Reduction, page: Fingerprint) -> bool:
    known = reduction.fingerprint.get("digest")
    if known is None:
        return reduction.device in ("", page.stable["device"])
    return bool(known == page.digest)


def require_same_space(
    searches: Sequence[SearchResult],
    retimed: Sequence[Retimed],
    reductions: Sequence[Reduction],
    space: DesignSpace,
) -> None:
    """Refuse fronts and reductions of other spaces or input sizes than the page's.

    Raises:
        IncompatibleRunError: naming what differs.
    """
    for r in reductions:
        if (r.space, r.resolution_px) != (space.name, space.resolution_px):
            raise IncompatibleRunError(
                f"a reduced space is of {r.space} at {r.resolution_px} px, the first profile of "
                f"{space.name} at {space.resolution_px} px: report each space on a page of its own"
            )
    archs = [r.workload.arch for run in retimed for r in run.results.values()]
    archs += [t.arch for s in searches for t in s.front]
    for arch in filter(None, archs):
        if (arch.space, arch.resolution_px) != (space.name, space.resolution_px):
            raise IncompatibleRunError(
                f"a search is of {arch.space} at {arch.resolution_px} px, the first profile of "
                f"{space.name} at {space.resolution_px} px: report each space on a page of its own"
            )
    for s in searches:
        if s.space != space.name:
            raise IncompatibleRunError(
                f"a search is of {s.space}, the first profile of {space.name}: report each space "
                "on a page of its own"
            )


def _timed(gathered: _Gathered) -> dict[str, Timed]:
    """Return what was timed side by side; where nothing was, the finalists as measured."""
    from hwprof.reports.places import Timed

    found: dict[str, Timed] = {}
    for run in gathered.retimed:
        for key, result in run.results.items():
            if isinstance(result, Measurement):
                workers = result.telemetry.get("worker_levels_s", ())
                found[key] = Timed(
                    level=Interval(result.level_s, *result.ci95_s),
                    beside=Interval(result.level_s, *result.beside_ci95_s),
                    workers=frozenset(f"{worker} of {run.out}" for worker in workers),
                    verdict=result.verdict,
                )
            elif key not in found:
                found[key] = Timed(failure=f"{result.kind}: {result.message}")
    if found:
        return found
    for trial in (t for s in gathered.searches for t in s.front):
        if trial.latency_source == "measured":
            found.setdefault(
                network_id(trial.arch), Timed(level=trial.latency, verdict=trial.verdict)
            )
    return found
