"""The interactive front as plain data: traces for plotly, and every network for the drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from hwprof.reports.fronts import FrontPoint, best_points, drawing, picks, unit_texts
from hwprof.reports.views import latency_scale
from hwprof.units import (
    Scale,
    accuracy_title,
    format_count,
    format_interval,
    format_pct,
    format_seconds,
)


def front_chart(points: Sequence[FrontPoint], *, emulated: bool = False) -> dict[str, Any]:
    """Return the interactive front as plain data: traces, axis titles, and every network."""
    unit = latency_scale([p.trial.latency_s for p in points])
    groups: dict[str, list[FrontPoint]] = {}
    for point in points:
        groups.setdefault(point.search, []).append(point)
    named = picks(best_points(points))
    source = "measured" if points[0].confirmed else "predicted, unconfirmed"
    mark = ", EMULATED" if emulated else ""
    return {
        "traces": [_trace(name, members, unit) for name, members in groups.items()],
        "x_title": f"latency, {source}{mark} ({unit.unit})",
        "y_title": accuracy_title(p.trial.accuracy_source for p in points),
        "selected": named[len(named) // 2][1].number,
        "points": {str(p.number): _network(p, unit) for p in points},
    }


def _trace(name: str, points: Sequence[FrontPoint], unit: Scale) -> dict[str, Any]:
    first = points[0]
    random = first.strategy == "random"
    shape = "square" if random else "circle"
    levels = [p.trial.latency for p in points]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escape(name),
        "x": [v.value / unit.factor for v in levels],
        "y": [p.trial.accuracy_pct for p in points],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [(v.hi - v.value) / unit.factor for v in levels],
            "arrayminus": [(v.value - v.lo) / unit.factor for v in levels],
            "thickness": 1,
            "width": 0,
        },
        "customdata": [p.number for p in points],
        "text": [_hover(p) for p in points],
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"shape": "hv", "width": 1.5, "dash": "dash" if random else "solid"},
        "marker": {
            "size": [11 if p.best else 8 for p in points],
            "symbol": shape if first.confirmed else f"{shape}-open",
        },
        "meta": "reduced" if first.reduced else "full",
    }


def _hover(point: FrontPoint) -> str:
    lines = [f"<b>#{point.number}</b> {escape(point.search)}"]
    lines += [f"{escape(label)}: {escape(value)}" for label, value in point_facts(point)]
    lines += [f"{escape(part)}: {escape(text)}" for part, text in unit_texts(point.trial.arch)]
    return "<br>".join(lines)


def point_facts(point: FrontPoint) -> tuple[tuple[str, str], ...]:
    """Return a network's numbers as (label, text)."""
    trial = point.trial
    measured, predicted = "not measured", format_interval(trial.latency)
    if point.confirmed:
        measured, predicted = predicted, format_seconds(point.predicted_s, digits=4)
    facts = [
        ("accuracy", f"{format_pct(trial.accuracy_pct)} ({trial.accuracy_source})"),
        ("latency measured", measured),
        ("latency predicted", predicted),
        ("MACs", format_count(trial.macs)),
        ("parameters", format_count(trial.params)),
    ]
    if trial.test_accuracy_pct is not None:
        facts.insert(1, ("accuracy on unseen test images", format_pct(trial.test_accuracy_pct)))
    if trial.verdict is not None:
        facts.append(("verdict", trial.verdict))
    return tuple(facts)


def _network(point: FrontPoint, unit: Scale) -> Mapping[str, Any]:
    arch = point.trial.arch
    units = drawing(arch)
    mobile = any(b.name.startswith("mbconv_") for _, blocks in units for b in blocks)
    return {
        "title": f"#{point.number} · {point.search}",
        "x": point.trial.latency_s / unit.factor,
        "y": point.trial.accuracy_pct,
        "facts": point_facts(point),
        "units": [
            {"title": title, "blocks": [asdict(block) for block in blocks]}
            for title, blocks in units
        ],
        "legend": "Height: expansion. Shade: kernel, darker is larger." if mobile else "",
        "json": arch.canonical_json(),
    }
