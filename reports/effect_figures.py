"""Block friendliness as figures: heat maps, blocks used everywhere, depth."""

from __future__ import annotations

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hwprof.interval import Interval
from hwprof.reports.palette import FULL, INK, MUTED, REDUCED, effect_hex
from hwprof.reports.sketches import SMALL_INCHES, Sketch, name_apart
from hwprof.reports.views import (
    HeatMap,
    ReportData,
    effects_of_kind,
    everywhere_rows,
    heat_map,
    latency_scale,
    scaled,
    short_block,
    slot_label,
)
from hwprof.results import Metric
from hwprof.units import fixed


def heat_sketch(data: ReportData, metric: Metric) -> Sketch | None:
    """Effects of every block at every slot, with their sign's certainty."""
    heat = heat_map(data.effects, metric)
    if heat is None:
        return None
    return Sketch(
        title=f"Effect of each block on {metric} ({heat.unit})",
        alt=(
            f"Heat map of {len(heat.slots)} slots by {len(heat.blocks)} blocks: the difference "
            f"in {metric} of the whole network in {heat.unit}; {heat.n_settled} of "
            f"{len(heat.values)} cells have a settled sign."
        ),
        inches=(2.1 + 0.6 * len(heat.blocks), 1.75 + 0.3 * len(heat.slots)),
        draw=lambda axes: _draw_heat(axes, heat),
    )


def _draw_heat(axes: Axes, heat: HeatMap) -> None:
    n_rows, n_columns = len(heat.slots), len(heat.blocks)
    for row, cells in enumerate(heat.cells):
        for column, cell in enumerate(cells):
            _draw_cell(axes, heat, row, column, cell)
    axes.set_xlim(0, n_columns)
    axes.set_ylim(n_rows, 0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()
    labels = [short_block(b).replace(" ", "\n", 1) for b in heat.blocks]
    axes.set_xticks([c + 0.5 for c in range(n_columns)], labels)
    axes.set_yticks([r + 0.5 for r in range(n_rows)], [slot_label(s) for s in heat.slots])
    for row in range(1, n_rows):
        if heat.slots[row].unit != heat.slots[row - 1].unit:
            axes.axhline(row, color=MUTED, linewidth=1.0)
    stops = [effect_hex(-1 + step / 5) for step in range(11)]
    if heat.metric == "latency":
        stops.reverse()
    colours = LinearSegmentedColormap.from_list("effect", stops)
    figure = axes.figure
    assert isinstance(figure, Figure)
    bar = figure.colorbar(
        matplotlib.cm.ScalarMappable(Normalize(-heat.limit, heat.limit), colours),
        ax=axes,
        orientation="horizontal",
        location="bottom",
        aspect=40,
        shrink=0.8,
        pad=0.02,
        extend="both",
    )
    bar.outline.set_visible(False)
    words = ("faster", "slower") if heat.metric == "latency" else ("less accurate", "more accurate")
    bar.set_label(
        f"← {words[0]}    {heat.unit} against the slot's mean    {words[1]} →\n"
        "grey: the 95 % interval includes zero",
        fontsize=9,
    )


def _draw_cell(axes: Axes, heat: HeatMap, row: int, column: int, cell: Interval | None) -> None:
    if cell is None:
        return
    settled = cell.excludes_zero
    colour = effect_hex(heat.goodness(cell)) if settled else "#f4f5f7"
    axes.add_patch(
        Rectangle((column + 0.03, row + 0.04), 0.94, 0.92, facecolor=colour, linewidth=0)
    )
    axes.text(
        column + 0.5,
        row + 0.52,
        fixed(cell.value, heat.decimals, signed=True),
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold" if settled else "normal",
        color=INK if settled else MUTED,
    )


def everywhere_sketch(data: ReportData) -> Sketch | None:
    """Latency and accuracy of every block used at every place."""
    rows = [r for r in everywhere_rows(data) if r.latency is not None and r.accuracy is not None]
    if len(rows) < 2:
        return None
    unit = latency_scale([r.latency.value for r in rows if r.latency])

    def draw(axes: Axes) -> None:
        names = []
        for row in rows:
            assert row.latency is not None
            assert row.accuracy is not None
            latency = scaled(row.latency, unit.factor)
            colour = FULL if row.dropped else REDUCED
            _cross(axes, latency, row.accuracy, colour)
            text = short_block(row.block) + (" (dropped)" if row.dropped else "")
            names.append((text, (latency.value, row.accuracy.value), colour))
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.margins(0.14)
        name_apart(axes, names)
        axes.set_xlabel(f"latency against a random mix ({unit.unit}); slower →")
        axes.set_ylabel("accuracy against a random mix (pp)")

    return Sketch(
        title="Each block used everywhere",
        alt="Scatter plot: latency and accuracy of every block used at every place, with "
        "95 % intervals; up and left is better.",
        inches=SMALL_INCHES,
        draw=draw,
    )


def _cross(axes: Axes, x: Interval, y: Interval, colour: str) -> None:
    axes.errorbar(
        x.value,
        y.value,
        xerr=[[x.value - x.lo], [x.hi - x.value]],
        yerr=[[y.value - y.lo], [y.hi - y.value]],
        fmt="o",
        color=colour,
        markersize=6,
        elinewidth=1.2,
        alpha=0.9,
    )


def depth_sketch(data: ReportData) -> Sketch | None:
    """Latency (and accuracy) that each depth of each unit adds."""
    effects = [e for e in effects_of_kind(data.effects, "depth") if e.latency is not None]
    if not effects:
        return None
    unit = latency_scale([e.latency.value for e in effects if e.latency])
    with_accuracy = any(e.accuracy is not None for e in effects)
    labels = [f"unit {e.unit}: {e.depth} layers" for e in effects]

    def draw(axes: Axes) -> None:
        for row, effect in enumerate(effects):
            assert effect.latency is not None
            latency = scaled(effect.latency, unit.factor)
            axes.barh(row, latency.value, height=0.62, color=REDUCED, alpha=0.75)
            axes.plot([latency.lo, latency.hi], [row, row], color=INK, linewidth=1.4)
            accuracy = effect.accuracy
            words = f"{fixed(latency.value, 2, signed=True)} {unit.unit}"
            words += f", {fixed(accuracy.value, 2, signed=True)} pp" if accuracy else ""
            axes.annotate(
                words,
                (max(0.0, latency.hi), row),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        axes.set_yticks(range(len(effects)), labels)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.margins(x=0.42 if with_accuracy else 0.25)
        axes.set_xlabel(f"latency added by reaching this depth ({unit.unit})")

    return Sketch(
        title="What one more layer costs",
        alt="Bar chart: latency that reaching each depth of each unit adds to the network, with "
        "95 % intervals" + (" and the accuracy it brings." if with_accuracy else "."),
        inches=(SMALL_INCHES[0], 1.4 + 0.3 * len(effects)),
        draw=draw,
    )
