"""A figure before it is drawn, how it looks, and how it becomes PNG and SVG.

Nothing here touches matplotlib's global state: no pyplot, and settings only inside a context.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from hwprof.interval import Interval
from hwprof.reports.palette import GRID, INK, MUTED, PAPER

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    # Names of spaces and devices are shown as they are, dollar signs included.
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
}
SMALL_INCHES = (4.6, 3.8)
_PNG_DPI = 160


@dataclass(frozen=True, kw_only=True)
class DrawnFigure:
    """A figure as bytes in both formats, with the words for those who cannot see it."""

    name: str
    title: str
    alt: str
    png: bytes
    svg: str


_CORNERS_PT = ((6.0, 5.0), (6.0, -5.0), (-6.0, 5.0), (-6.0, -5.0))
"""Where a name may stand: right and up of its point."""


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """What a figure says, how large it is, and the function that draws it."""

    title: str
    alt: str
    inches: tuple[float, float]
    draw: Callable[[Axes], None]


@dataclass(frozen=True, kw_only=True)
class Panels:
    """A figure of several panels side by side, which share the axis of accuracy and no other."""

    title: str
    alt: str
    inches: tuple[float, float]
    n_columns: int
    panels: tuple[tuple[str, Callable[[Axes], None]], ...]
    """Title and drawing function of each."""


def name_apart(axes: Axes, names: Sequence[tuple[str, tuple[float, float], str]]) -> None:
    """Write names beside their points, each at the first corner where it covers nothing else.

    Args:
        axes: of a figure that is rendered, with their final limits.
        names: text, place and colour of each.
    """
    # Markers are of 6 pt at most; what stands at a corner is farther from its own point.
    radius_px = 3.0 / 72.0 * axes.figure.dpi
    points_px = axes.transData.transform([place for _, place, _ in names])
    taken = [Bbox([point - radius_px, point + radius_px]) for point in points_px]
    for text, place, colour in names:
        note = axes.annotate(
            text, place, (0, 0), textcoords="offset points", fontsize=9.5, color=colour
        )
        boxes = [_box_at(note, *corner) for corner in _CORNERS_PT]
        is_free = [not any(box.overlaps(other) for other in taken) for box in boxes]
        chosen = is_free.index(True) if any(is_free) else 0
        taken.append(_box_at(note, *_CORNERS_PT[chosen]))


def _box_at(note: Annotation, right_pt: float, up_pt: float) -> Bbox:
    """Move a name beside its point; return what it then covers."""
    note.set_position((right_pt, up_pt))
    note.set_horizontalalignment("left" if right_pt > 0 else "right")
    note.set_verticalalignment("bottom" if up_pt > 0 else "top")
    return note.get_window_extent()


@contextmanager
def _style(name: str) -> Iterator[None]:
    # The hash salt keeps the ids inside an SVG the same from run to run and different from
    # those of the figures that stand in the same page.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        yield


def render(name: str, sketch: Sketch | Panels, *, emulated: bool) -> DrawnFigure:
    """Draw a sketch in both formats; the same sketch gives the same bytes."""
    with _style(name):
        figure = Figure(figsize=sketch.inches, layout="constrained")
        FigureCanvasAgg(figure)
        title = f"{sketch.title} (EMULATED)" if emulated else sketch.title
        if isinstance(sketch, Panels):
            _draw_panels(figure, sketch, title)
        else:
            axes = figure.add_subplot()
            sketch.draw(axes)
            axes.set_title(title)
        png, svg = io.BytesIO(), io.StringIO()
        figure.savefig(png, format="png", dpi=_PNG_DPI, metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return DrawnFigure(
        name=name, title=title, alt=sketch.alt, png=png.getvalue(), svg=svg.getvalue()
    )


def _draw_panels(figure: Figure, sketch: Panels, title: str) -> None:
    n_rows = -(-len(sketch.panels) // sketch.n_columns)
    first: Axes | None = None
    for number, (name, draw) in enumerate(sketch.panels, start=1):
        axes = figure.add_subplot(n_rows, sketch.n_columns, number, sharey=first)
        first = first or axes
        draw(axes)
        axes.set_title(name)
    figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")


def errors(
    axes: Axes,
    xs: Sequence[Interval],
    ys: Sequence[Interval],
    *,
    colour: str,
    label: str,
    marker: str = "o",
) -> None:
    """Plot points with their intervals in both directions."""
    axes.errorbar(
        [x.value for x in xs],
        [y.value for y in ys],
        xerr=[[x.value - x.lo for x in xs], [x.hi - x.value for x in xs]],
        yerr=[[y.value - y.lo for y in ys], [y.hi - y.value for y in ys]],
        fmt=marker,
        color=colour,
        ecolor=colour,
        elinewidth=0.8,
        markersize=4.5,
        markeredgewidth=0,
        alpha=0.7,
        label=label,
    )


def diagonal(axes: Axes) -> None:
    """Draw equality under the points, and give both axes the same range."""
    lo = min(axes.get_xlim()[0], axes.get_ylim()[0])
    hi = max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([lo, hi], [lo, hi], color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xlim(lo, hi)
    axes.set_ylim(lo, hi)
