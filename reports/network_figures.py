"""Figures of whole networks: isolated against in context, predictions, fronts."""

from __future__ import annotations

from matplotlib.axes import Axes

from hwprof.interval import Interval
from hwprof.reports.contexts import context_rows, prediction_rows
from hwprof.reports.fronts import FrontPoint, best_points, front_points, picks
from hwprof.reports.palette import ACCENT, FULL, PAPER, REDUCED
from hwprof.reports.sketches import SMALL_INCHES, Sketch, diagonal, errors
from hwprof.reports.views import ReportData, latency_scale, scaled
from hwprof.units import Scale, accuracy_title


def context_sketch(data: ReportData) -> Sketch | None:
    """Blocks timed alone against their effect in whole networks."""
    rows = context_rows(data.isolated, data.effects)
    if not rows:
        return None
    unit = latency_scale(
        [v for r in rows for v in (r.isolated.value, r.in_context.value)],
    )

    def draw(axes: Axes) -> None:
        for agree, colour, label in (
            (True, REDUCED, "agree within the intervals"),
            (False, FULL, "differ"),
        ):
            chosen = [r for r in rows if r.disagrees != agree]
            if not chosen:
                continue
            errors(
                axes,
                [scaled(r.isolated, unit.factor) for r in chosen],
                [scaled(r.in_context, unit.factor) for r in chosen],
                colour=colour,
                label=f"{label} ({len(chosen)})",
            )
        diagonal(axes)
        axes.set_xlabel(f"alone, against the slot's mean ({unit.unit})")
        axes.set_ylabel(f"in a network, against the slot's mean ({unit.unit})")
        axes.legend(loc="upper left")

    return Sketch(
        title="Blocks alone against in a network",
        alt="Scatter plot: each block's latency timed alone against its effect in whole "
        "networks, both relative to the slot's mean; the line marks equality.",
        inches=SMALL_INCHES,
        draw=draw,
    )


def prediction_sketch(data: ReportData) -> Sketch | None:
    """Predicted against measured latency of unseen networks."""
    rows = prediction_rows(data)
    if not rows:
        return None
    unit = latency_scale([r.measured_s for r in rows])

    def draw(axes: Axes) -> None:
        for source, colour, marker in (("held out", REDUCED, "o"), ("finalist", FULL, "D")):
            chosen = [r for r in rows if r.source == source]
            if not chosen:
                continue
            predicted = [
                _around(r.predicted_s / unit.factor, (r.half_width_s or 0.0) / unit.factor)
                for r in chosen
            ]
            measured = [_around(r.measured_s / unit.factor, 0.0) for r in chosen]
            label = f"{source} ({len(chosen)})"
            errors(axes, predicted, measured, colour=colour, label=label, marker=marker)
        diagonal(axes)
        axes.set_xlabel(f"predicted ({unit.unit})")
        axes.set_ylabel(f"measured ({unit.unit})")
        axes.legend(loc="upper left")

    return Sketch(
        title="Predicted against measured",
        alt="Scatter plot: predicted against measured latency of networks that the model has "
        "not seen; the line marks equality.",
        inches=SMALL_INCHES,
        draw=draw,
    )


def _around(value: float, half: float) -> Interval:
    return Interval(value, value - half, value + half)


def front_sketch(data: ReportData) -> Sketch | None:
    """The fronts of all searches, the joint front ringed."""
    points = front_points(data)
    if not points:
        return None
    unit = latency_scale([p.trial.latency_s for p in points])
    source = "measured" if points[0].confirmed else "predicted, unconfirmed"

    def draw(axes: Axes) -> None:
        for search in dict.fromkeys(p.search for p in points):
            _draw_front(axes, [p for p in points if p.search == search], unit)
        for name, point in picks(best_points(points)):
            # Above and left of a front there is nothing by definition: the names stand there.
            axes.annotate(
                f"#{point.number} {name}",
                (point.trial.latency_s / unit.factor, point.trial.accuracy_pct),
                xytext=(-5, 7),
                textcoords="offset points",
                ha="right",
                fontsize=9,
            )
        axes.margins(0.1)
        left, right = axes.get_xlim()
        left -= 0.12 * (right - left)
        axes.set_xticks([tick for tick in axes.get_xticks() if max(0.0, left) <= tick <= right])
        axes.set_xlim(left, right)
        axes.set_xlabel(f"latency, {source} ({unit.unit})")
        axes.set_ylabel(accuracy_title(p.trial.accuracy_source for p in points))
        axes.legend(loc="lower right")

    return Sketch(
        title="Accuracy against latency: the fronts",
        alt=f"Line chart: the best accuracy found at each latency by each search, "
        f"{len(points)} networks; the same networks are listed in the table.",
        inches=(5.6, 4.4),
        draw=draw,
    )


def _draw_front(axes: Axes, points: list[FrontPoint], unit: Scale) -> None:
    first = points[0]
    colour = REDUCED if first.reduced else FULL
    xs = [p.trial.latency_s / unit.factor for p in points]
    ys = [p.trial.accuracy_pct for p in points]
    axes.step(
        xs,
        ys,
        where="post",
        color=colour,
        linewidth=1.4,
        linestyle="--" if first.strategy == "random" else "-",
        alpha=0.7,
    )
    axes.plot(
        xs,
        ys,
        linestyle="none",
        marker="s" if first.strategy == "random" else "o",
        markersize=6,
        color=colour,
        markerfacecolor=colour if first.confirmed else PAPER,
        label=first.search,
    )
    best = [p for p in points if p.best]
    axes.plot(
        [p.trial.latency_s / unit.factor for p in best],
        [p.trial.accuracy_pct for p in best],
        linestyle="none",
        marker="o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor=ACCENT,
        markeredgewidth=1.4,
    )
