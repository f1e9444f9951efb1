"""Figures of searches by gradient: how they went, and the networks they came to."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from hwprof.reports.palette import ACCENT, FULL, INK, MUTED, REDUCED
from hwprof.reports.sketches import Sketch
from hwprof.reports.views import ReportData, latency_scale, short_block
from hwprof.results import CoursePoint, SearchCourse
from hwprof.space import SKIP, Architecture, space_of
from hwprof.units import format_pct, format_seconds

SERIES = (REDUCED, FULL, ACCENT, "#8b5fb8", "#a07c00", MUTED)
INCHES = (5.6, 3.6)

KERNEL_COLOURS = {3: REDUCED, 5: ACCENT, 7: FULL}
_BLOCK = re.compile(r"mbconv_k(\d+)_e(\d+)")
_ROW = 2.6
"""Height of a network's row; a block of the largest kernel is 1 high."""


def entropy_sketch(data: ReportData) -> Sketch | None:
    """Mean entropy of the gates against the step."""
    return _course_sketch(
        data,
        title="How sure the searches became",
        label="mean entropy of a decision (nat)",
        value=lambda point: point.mean_entropy_nat,
        alt="entropy of the distributions over blocks, which falls as a search decides",
    )


def accuracy_sketch(data: ReportData) -> Sketch | None:
    """Accuracy of the most probable network against the step."""
    return _course_sketch(
        data,
        title="Accuracy of the most probable network",
        label="top-1 with the supernet's weights (%)",
        value=lambda point: point.argmax_accuracy_pct,
        alt="validation accuracy of the most probable network",
    )


def latency_sketch(data: ReportData) -> Sketch | None:
    """Expected, most probable and measured latency against the step."""
    courses = _followed(data)
    if not courses:
        return None
    unit = latency_scale([p.expected_s for c in courses for p in c.points])

    def draw(axes: Axes) -> None:
        for course, colour in _coloured(courses):
            steps = [p.step for p in course.points]
            expected = [p.expected_s / unit.factor for p in course.points]
            likeliest = [p.argmax_s / unit.factor for p in course.points]
            axes.plot(steps, expected, color=colour, linewidth=1.6, label=course.name)
            axes.plot(steps, likeliest, color=colour, linewidth=1.0, linestyle=(0, (4, 3)))
            if course.measured_s is not None:
                measured = [course.measured_s / unit.factor]
                axes.plot(steps[-1:], measured, marker="D", markersize=6, color=colour)
        axes.set_xlabel("step (line: expected, dashed: most probable, diamond: measured)")
        axes.set_ylabel(f"latency ({unit.unit})")
        axes.legend(loc="best", fontsize=8)

    return Sketch(
        title="Latency as the searches went",
        alt=f"Line chart: for each of {len(courses)} searches the expected latency, that of the "
        "most probable network, and what the device measured at the end, against the step.",
        inches=INCHES,
        draw=draw,
    )


def derived_sketch(data: ReportData) -> Sketch | None:
    """The derived networks block by block, as Cai et al. (ICLR 2019, figure 4) draw theirs."""
    courses = (*data.courses, *data.courses_elsewhere)
    # Of spaces without mobile blocks nothing is drawn: their blocks have no kernel to show.
    if not any(map(_BLOCK.fullmatch, (block for c in courses for block in _blocks(c.arch)))):
        return None
    longest = max(len(_blocks(c.arch)) for c in courses)

    def draw(axes: Axes) -> None:
        axes.grid(visible=False)
        axes.axis("off")
        for row, course in enumerate(courses):
            _draw_network(axes, course, -_ROW * row)
        axes.set_xlim(-0.2, longest + 0.2)
        axes.set_ylim(-_ROW * (len(courses) - 1) - 0.6, 1.7)

    return Sketch(
        title="The derived networks",
        alt="Drawing: each derived network as a row of boxes; colour and height show the kernel, "
        "the text the expansion and kernel, or the block's name, and under each unit stand its "
        "channels and size.",
        inches=(max(5.6, 0.62 * longest), 1.3 * len(courses) + 0.6),
        draw=draw,
    )


def _course_sketch(
    data: ReportData, *, title: str, label: str, value: Callable[[CoursePoint], float], alt: str
) -> Sketch | None:
    courses = _followed(data)
    if not courses:
        return None

    def draw(axes: Axes) -> None:
        for course, colour in _coloured(courses):
            steps, values = zip(*((p.step, value(p)) for p in course.points), strict=True)
            axes.plot(steps, values, color=colour, linewidth=1.6, label=course.name)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.legend(loc="best", fontsize=8)

    return Sketch(
        title=title,
        alt=f"Line chart: {alt}, against the step, for each of {len(courses)} searches.",
        inches=INCHES,
        draw=draw,
    )


def _followed(data: ReportData) -> list[SearchCourse]:
    return [course for course in data.courses if course.points]


def _coloured(courses: Sequence[SearchCourse]) -> list[tuple[SearchCourse, str]]:
    return [(course, SERIES[i % len(SERIES)]) for i, course in enumerate(courses)]


def _blocks(arch: Architecture) -> list[str]:
    return [block for unit in arch.units for block in unit if block != SKIP]


def _draw_network(axes: Axes, course: SearchCourse, bottom: float) -> None:
    facts = [course.name]
    if course.accuracy_pct is not None:
        facts.append(format_pct(course.accuracy_pct))
    if course.measured_s is not None:
        facts.append(f"{format_seconds(course.measured_s)} measured")
    axes.text(0, bottom + 1.25, ", ".join(facts), fontsize=9, weight="bold")
    placed = space_of(course.arch).pieces(course.arch)
    parts = [p for p in placed if p.block not in (None, SKIP)]
    for x, part in enumerate(parts):
        colour, height, text = _looks(str(part.block))
        box = Rectangle((x + 0.06, bottom), 0.88, height, facecolor=colour, alpha=0.35)
        axes.add_patch(box)
        axes.text(x + 0.5, bottom + height / 2, text, fontsize=7.5, ha="center", va="center")
        after = parts[x + 1].slot if x + 1 < len(parts) else None
        if part.slot is not None and (after is None or after.unit != part.slot.unit):
            size = f"{part.piece.n_out_channels}×{part.piece.out_size_px}²"
            axes.text(x + 0.94, bottom - 0.3, size, fontsize=7, ha="right", color=INK)


def _looks(block: str) -> tuple[str, float, str]:
    """Return colour, height and text of a block's box; one of the user's own bears its name."""
    match = _BLOCK.fullmatch(block)
    if match is None:
        return MUTED, 0.4, short_block(block).replace(" ", "\n")
    kernel, expand = int(match[1]), int(match[2])
    height = 0.4 + 0.6 * min(kernel, 7) / 7
    return KERNEL_COLOURS.get(kernel, MUTED), height, f"MB{expand}\n{kernel}×{kernel}"
