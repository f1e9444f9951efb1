"""``report``: folders of results become one page, its figures and its tables."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.api.contexts import cold_isolated, differential_costs, mixing
from hwprof.api.courses import read_courses
from hwprof.api.finalists import KIND as FINALISTS
from hwprof.api.friendliness import compare_effects
from hwprof.api.placing import Placed, own_reduction, place, require_same_space
from hwprof.api.retiming import KIND as RETIME
from hwprof.api.retiming import Retimed, read_retimed
from hwprof.api.runs import refuse_untrained, scored_samples
from hwprof.api.searching import load_search
from hwprof.errors import DataError, FormatVersionError, SpaceError, StoreError
from hwprof.pareto import hypervolume
from hwprof.progress import ProgressCallback
from hwprof.results import SearchCourse, SearchResult
from hwprof.space import DesignSpace, Slot, reduction_from_yaml
from hwprof.space.architecture import SKIP
from hwprof.space.reduction import Reduction
from hwprof.store import Run
from hwprof.store.folder import RUN_FILE, RunFile
from hwprof.units import only_ranked

if TYPE_CHECKING:
    from hwprof.estimate.interactions import InteractionTest
    from hwprof.estimate.latency_model import AdditiveLatencyModel
    from hwprof.estimate.responses import Friendliness
    from hwprof.measure.records import Measurement
    from hwprof.reports import ReportData

MOST_EVIDENCE = 2
"""Lines under a verdict."""


@dataclass(kw_only=True)
class _Found:
    """What the folders named on the command line hold."""

    profiles: list[Path] = field(default_factory=list)
    searches: list[SearchResult] = field(default_factory=list)
    courses: list[tuple[SearchCourse, ...]] = field(default_factory=list)
    """Of each of the searches."""
    retimed: list[Retimed] = field(default_factory=list)
    reductions: list[Reduction] = field(default_factory=list)
    checkpoint: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)


def insights(friendliness: Friendliness) -> list[str]:
    """Say what the effects mean for someone who draws networks by hand, with figures."""
    from hwprof.estimate.insights import insights as in_words

    return in_words(friendliness)


def report(
    runs: Sequence[str | Path] | str | Path,
    *,
    out: str | Path,
    accuracy: str | None = None,
    data: str | None = None,
    progress: ProgressCallback | None = None,
) -> Path:
    """Make ``out/index.html``, its figures (PNG and SVG) and its tables (CSV).

    Args:
        runs: folders of ``hwprof profile``, ``search``, ``retime`` or ``quickstart``, and
            ``reduced.yaml``. Of several profiles the first is shown whole, the others beside it;
            searches of other devices than its own stand in a section of several devices, reduced
            spaces of others are left out.
        out: the folder of the page.
        accuracy: an accuracy source for the effects; a quickstart brings its own.
        data: images for ``supernet:``.
        progress: called while networks are scored.

    Raises:
        StoreError: a folder holds no results, or ``out`` cannot be written.
    """
    from hwprof.reports import write_report

    paths = [Path(runs)] if isinstance(runs, str | Path) else [Path(r) for r in runs]
    found = _Found()
    for path in paths:
        _collect(path, found)
    if not found.profiles:
        raise StoreError(
            f"no profile among {', '.join(map(str, paths))}; name at least one folder that "
            "`hwprof profile`, `import` or `quickstart` wrote"
        )
    if accuracy is None and found.checkpoint is not None:
        accuracy = f"supernet:{found.checkpoint}"
    return write_report(_report_data(found, accuracy, data, progress), Path(out))


def hypervolume_reference(searches: Sequence[SearchResult]) -> tuple[float, float] | None:
    """Return a reference point common to all fronts: a tenth of the range behind the worst.

    The tenth lets the extreme members of every front count too.
    """
    members = [t for s in searches for t in s.front]
    if not members:
        return None
    latencies = [t.latency_s for t in members]
    accuracies = [t.accuracy_pct for t in members]
    return (
        max(latencies) + 0.1 * (max(latencies) - min(latencies)),
        min(accuracies) - 0.1 * (max(accuracies) - min(accuracies)),
    )


def front_hypervolume(result: SearchResult, reference: tuple[float, float]) -> float:
    """Return the hypervolume of a search's front in second-percentage points."""
    return hypervolume(
        [t.latency_s for t in result.front], [t.accuracy_pct for t in result.front], reference
    )


def _seconds_of(journal: Path) -> dict[str, float]:
    """Return what every stage of a quickstart took."""
    try:
        return dict(json.loads(_text(journal))["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{str(journal)!r} is damaged ({error}); report its parts instead, such as "
            f"{str(journal.parent / 'profile')!r}"
        ) from error


def _collect(path: Path, found: _Found) -> None:
    """Look at what a path is and note what it holds."""
    refuse_untrained(path)
    if path.suffix in (".yaml", ".yml"):
        try:
            found.reductions.append(reduction_from_yaml(_text(path)))
        except (FormatVersionError, SpaceError) as error:
            raise type(error)(f"{path}: {error}") from error
    elif (path / "quickstart.json").exists():
        # Of several the page is about the first one's profile.
        found.seconds = found.seconds or _seconds_of(path / "quickstart.json")
        found.commands.append(f"hwprof quickstart --out {path}")
        checkpoint = path / "supernet.pt"
        if found.checkpoint is None and checkpoint.exists():
            found.checkpoint = checkpoint
        inside = [path / "profile", path / "reduced.yaml", *sorted((path / "search").glob("*"))]
        for part in inside:
            if part.exists():
                _collect(part, found)
    elif (path / "search.json").exists():
        result = load_search(path)
        found.searches.append(result)
        found.courses.append(read_courses(path, result))
    elif (path / RUN_FILE).exists():
        kind = RunFile.read(path).kind
        if kind == FINALISTS:
            raise StoreError(
                f"{str(path)!r} holds an interrupted search; call the same `hwprof search` again "
                "to finish it"
            )
        if kind == RETIME:
            found.retimed.append(read_retimed(path))
        else:
            found.profiles.append(path)
    else:
        raise StoreError(
            f"{str(path)!r} holds no results; expected a folder of `hwprof profile`, `search`, "
            "`retime` or `quickstart`, or a reduced.yaml"
        )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise StoreError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise StoreError(f"{str(path)!r} is damaged: {error}; expected text in UTF-8") from error


def _report_data(
    found: _Found, accuracy: str | None, data: str | None, progress: ProgressCallback | None
) -> ReportData:
    from hwprof.estimate.run_analysis import run_friendliness, run_latency_model, run_space
    from hwprof.isolated import isolated_table
    from hwprof.reports import Campaign, Hypervolume, IsolatedBlock, ReportData

    compared = (
        compare_effects(found.profiles, accuracy=accuracy, data=data, progress=progress)
        if len(found.profiles) > 1
        else None
    )
    with Run.open(found.profiles[0]) as run:
        space = run_space(run)
        measurements = run.measurements()
        samples = scored_samples(run, accuracy, data, progress)
        fingerprint = run.fingerprint
        isolated = isolated_table(run, space)
        failures = tuple(run.failures())
        accuracy_source = _shown_source(accuracy) or _imported_accuracy(run)
        friendliness = run_friendliness(run, samples)
        model = run_latency_model(run)
        n_networks = len(run.networks())
    require_same_space(found.searches, found.retimed, found.reductions, space)
    reduction, unshown = own_reduction(fingerprint, found.reductions)
    placed = place(fingerprint, found.searches, found.retimed)
    cold = {
        (row.slot, row.block): row.isolated_hot_s
        for row in cold_isolated(found.profiles[0], space)
        if row.slot is not None
    }
    differences = differential_costs(found.profiles[0])
    absolute = _absolute_costs(model.table(), space)
    unmixed: tuple[str, ...] = ()
    try:
        mixed = mixing(found.profiles[0])
    except DataError as error:
        mixed, unmixed = None, (f"Hot against cold is left out: {error}.",)
    reference = hypervolume_reference(placed.own)
    here, elsewhere = _courses(found, placed)
    return ReportData(
        title=f"{space.name} on {fingerprint.stable['device']}",
        space=space.name,
        resolution_px=space.resolution_px,
        fingerprint=fingerprint,
        campaign=Campaign(
            n_networks=n_networks,
            n_blocks=sum(m.workload.role == "block" for m in measurements),
            failures=failures,
            seconds=found.seconds,
        ),
        verdicts=_verdicts(measurements),
        effects=friendliness.effects,
        mean_latency=friendliness.mean_latency,
        mean_accuracy=friendliness.mean_accuracy,
        accuracy_source=accuracy_source,
        insights=(*insights(friendliness), *([str(mixed)] if mixed is not None else [])),
        devices=compared,
        isolated=tuple(
            IsolatedBlock(
                slot=row.slot,
                block=row.block,
                isolated_hot_s=row.isolated_hot_s,
                session_half_s=row.session_half_s,
                isolated_cold_s=cold.get((row.slot, row.block)),
                differential_s=differences.get((row.slot, row.block)),
                regressed_s=absolute.get((row.slot, row.block)),
            )
            for row in isolated
            if row.slot is not None
        ),
        holdout=model.holdout,
        predictions=model.heldout,
        reduction=reduction,
        full_searches=tuple(s for s in placed.own if not s.reduced),
        reduced_searches=tuple(s for s in placed.own if s.reduced),
        places=placed.places,
        courses=here,
        courses_elsewhere=elsewhere,
        hypervolumes=tuple(
            Hypervolume(
                strategy=s.strategy,
                reduced=s.reduced,
                value_s_pct=front_hypervolume(s, reference),
                confirmed=s.confirmed,
            )
            for s in placed.own
            if reference is not None
        ),
        hypervolume_reference=reference,
        commands=tuple(found.commands),
        notes=(*_notes(found), *placed.notes, *unshown, *_interaction_notes(model), *unmixed),
    )


def _courses(
    found: _Found, placed: Placed
) -> tuple[tuple[SearchCourse, ...], tuple[SearchCourse, ...]]:
    """Return how the searches of the page's device went, and those of others, named after them."""
    own = {id(search) for search in placed.own}
    labels = {id(s): p.label for p in placed.places for s in p.searches}
    here: list[SearchCourse] = []
    elsewhere: list[SearchCourse] = []
    for search, courses in zip(found.searches, found.courses, strict=True):
        if id(search) in own:
            here += courses
        else:
            label = labels[id(search)]
            elsewhere += (replace(course, name=f"{label}: {course.name}") for course in courses)
    return tuple(here), tuple(elsewhere)


def _absolute_costs(
    table: Mapping[tuple[Slot, str], float], space: DesignSpace
) -> dict[tuple[Slot, str], float]:
    """Return what blocks cost in context, in seconds, where their layer may be absent.

    Elsewhere only differences between blocks can be told from whole networks.
    """
    costs = {}
    for (slot, block), seconds in table.items():
        if slot.layer >= space.min_depth[slot.unit]:
            costs[slot, block] = seconds
        elif (slot, SKIP) in table:
            costs[slot, block] = seconds - table[slot, SKIP]
    return costs


def _shown_source(accuracy: str | None) -> str | None:
    if accuracy is not None and accuracy.startswith("proxy:"):
        return f"{accuracy}, which gives none: percentiles among random networks of the space"
    return accuracy


def _imported_accuracy(run: Run) -> str | None:
    known = any(s.accuracy_pct is not None for s in run.networks())
    return "imported with the latencies" if known else None


def _verdicts(measurements: Sequence[Measurement]) -> tuple[Any, ...]:
    from hwprof.reports import VerdictCount

    counts = Counter(m.verdict for m in measurements)
    rows, said = [], set[str]()
    for verdict, n in counts.most_common():
        lines = Counter(e for m in measurements if m.verdict == verdict for e in m.evidence)
        evidence: list[str] = []
        for line, _ in lines.most_common():
            # What holds for all workloads, in other numbers maybe, would stand under every verdict.
            words = re.sub(r"\d+", "", line)
            if words not in said and len(evidence) < MOST_EVIDENCE:
                said.add(words)
                evidence.append(line)
        rows.append(VerdictCount(verdict=verdict, n=n, evidence=tuple(evidence)))
    return tuple(rows)


def _interaction_notes(model: AdditiveLatencyModel) -> tuple[str, ...]:
    """Say whether the latency model needs more than a sum of effects."""
    from hwprof.estimate.interactions import UNUSED

    unused = next((t for t in model.tested if t.family == UNUSED), None)
    families = [test for test in model.tested if test is not unused]
    notes = []
    if unused is not None and unused.taken:
        notes.append(
            "This device does not run blocks whose output nothing uses: a model without them has a "
            f"squared error on unseen networks lower by {_gain(unused)}."
        )
    if families:
        tried = ", ".join(test.family for test in families)
        taken = next((test for test in families if test.taken), None)
        notes.append(
            f"No interaction predicts unseen networks better than a sum of effects ({tried})."
            if taken is None
            else f"The latency model adds {taken.family} to its sum of effects, which lowers the "
            f"squared error on unseen networks by {_gain(taken)} (tried: {tried})."
        )
    return tuple(notes)


def _gain(test: InteractionTest) -> str:
    return f"{100 * test.gain:.0f} ± {196 * test.gain_se:.0f} %"


def _notes(found: _Found) -> tuple[str, ...]:
    notes = []
    sources = {t.accuracy_source for s in found.searches for t in s.front}
    if any(s.startswith(("supernet:", "proxyless:supernet")) for s in sources):
        notes.append(
            "Accuracies are of networks that inherit a supernet's weights, after recalibrating "
            "batch norm: good for ranking, usually lower than after training a network alone."
        )
    if any(only_ranked([s]) for s in sources):
        notes.append(
            "A percentile by a proxy is no accuracy: it says how a network that was never trained "
            "ranks among random ones of its space (docs/searching.md says how well)."
        )
    if len(sources) > 1:
        notes.append(
            f"Accuracies are from several sources ({', '.join(sorted(sources))}). Which of two "
            "networks of different sources is the more accurate is not known, also where they share "
            "a front."
        )
    if found.searches and not all(s.confirmed for s in found.searches):
        notes.append("A front whose latencies are only predicted is marked unconfirmed.")
    return tuple(notes)
