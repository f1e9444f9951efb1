"""Fronts of several devices: small multiples, one axis of latency for each device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from hwprof.reports.palette import PAPER
from hwprof.reports.places import FrontPanel, Series, panels
from hwprof.reports.search_figures import SERIES
from hwprof.reports.sketches import Panels
from hwprof.reports.views import ReportData, latency_scale
from hwprof.units import accuracy_title

PANEL_INCHES = (4.4, 3.9)
MARKERS = "osD^v<>"


def device_fronts_sketch(data: ReportData) -> Panels | None:
    """A panel for each device: all networks that were timed there, by what they were searched for."""
    found = panels(data.places)
    if not found:
        return None
    order = [place.label for place in data.places]
    y_title = accuracy_title(
        t.accuracy_source for place in data.places for s in place.fronts for t in s.front
    )
    width, height = PANEL_INCHES
    n_columns = min(2, len(found))
    n_rows = -(-len(found) // n_columns)
    return Panels(
        title="Fronts of several devices, each on its own axis",
        alt=f"Line charts: for each of {len(found)} devices {y_title} against the latency "
        "on that device, of the networks searched for it and of those searched for the others.",
        inches=(width * n_columns, height * n_rows),
        n_columns=n_columns,
        panels=tuple((_title(panel), _drawer(panel, order, y_title)) for panel in found),
    )


def _title(panel: FrontPanel) -> str:
    return panel.place.label if panel.measured else f"{panel.place.label}: unconfirmed"


def _drawer(panel: FrontPanel, order: Sequence[str], y_title: str) -> Callable[[Axes], None]:
    scale = latency_scale([p.latency.value for s in panel.series for p in s.points])
    how = "measured there" if panel.measured else "predicted"

    def draw(axes: Axes) -> None:
        for series in panel.series:
            _draw_series(axes, series, order.index(series.guest), panel.measured, scale.factor)
        axes.set_xlabel(f"latency, {how} ({scale.unit})")
        axes.set_ylabel(y_title)
        axes.legend(loc="lower right", fontsize=8, title="searched for", title_fontsize=8)

    return draw


def _draw_series(axes: Axes, series: Series, index: int, measured: bool, factor: float) -> None:
    colour = SERIES[index % len(SERIES)]
    front = [series.points[i] for i in series.front]
    axes.step(
        [p.latency.value / factor for p in front],
        [p.accuracy_pct for p in front],
        where="post",
        color=colour,
        linewidth=1.4,
        alpha=0.7,
    )
    levels = [p.latency for p in series.points]
    axes.errorbar(
        [x.value / factor for x in levels],
        [p.accuracy_pct for p in series.points],
        xerr=[
            [(x.value - x.lo) / factor for x in levels],
            [(x.hi - x.value) / factor for x in levels],
        ],
        fmt=MARKERS[index % len(MARKERS)],
        color=colour,
        ecolor=colour,
        elinewidth=0.8,
        markersize=5.5,
        markerfacecolor=colour if measured else PAPER,
        label=series.guest,
    )
