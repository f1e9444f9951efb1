"""The course of searches by gradient, read back from a search's event log."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from hwprof.errors import StoreError
from hwprof.results import CoursePoint, SearchCourse, SearchResult
from hwprof.search.journal import EVENTS_FILE
from hwprof.space import Architecture, space_of


def read_courses(folder: Path, result: SearchResult) -> tuple[SearchCourse, ...]:
    """Return the searches of a sweep, in their order; none for other strategies.

    Raises:
        StoreError: the log is damaged.
    """
    path = folder / EVENTS_FILE
    if not path.exists():
        return ()
    points: dict[str, list[CoursePoint]] = {}
    courses: list[SearchCourse] = []
    try:
        for line in path.read_bytes().splitlines():
            event = json.loads(line)
            if event["event"] == "ChoicesUpdated":
                points.setdefault(event["search"], []).append(
                    CoursePoint(
                        step=event["step"],
                        mean_entropy_nat=statistics.fmean(event["entropy_nat"].values()),
                        expected_s=event["expected_s"],
                        argmax_s=event["argmax_s"],
                        argmax_accuracy_pct=event["argmax_accuracy_pct"],
                    )
                )
            elif event["event"] == "NetworkDerived":
                name, arch = event["search"], Architecture.from_json(event["arch"])
                courses.append(_course(name, points.get(name, []), arch, result))
    except (ValueError, KeyError) as error:
        raise StoreError(
            f"{str(path)!r} is damaged ({error}); search again into another folder"
        ) from error
    return tuple(courses)


def _course(
    name: str, points: list[CoursePoint], arch: Architecture, result: SearchResult
) -> SearchCourse:
    """Join a course with what was judged and measured of its network, whatever its encoding."""
    space = space_of(arch)
    same = [
        t
        for t in (*result.finalists, *result.trials)
        if space.canonical(t.arch) == space.canonical(arch)
    ]
    measured = next((t.latency_s for t in same if t.latency_source == "measured"), None)
    return SearchCourse(
        name=name,
        points=tuple(points),
        arch=arch,
        measured_s=measured,
        accuracy_pct=same[0].accuracy_pct if same else None,
    )
