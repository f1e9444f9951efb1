"""Every figure of a report, in its order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hwprof.reports.effect_figures import depth_sketch, everywhere_sketch, heat_sketch
from hwprof.reports.network_figures import context_sketch, front_sketch, prediction_sketch
from hwprof.reports.place_figures import device_fronts_sketch
from hwprof.reports.search_figures import (
    accuracy_sketch,
    derived_sketch,
    entropy_sketch,
    latency_sketch,
)
from hwprof.reports.sketches import DrawnFigure, Panels, Sketch, render
from hwprof.reports.views import ReportData

FIGURES: Mapping[str, Callable[[ReportData], Sketch | Panels | None]] = {
    "friendliness_latency": lambda data: heat_sketch(data, "latency"),
    "friendliness_accuracy": lambda data: heat_sketch(data, "accuracy"),
    "blocks_everywhere": everywhere_sketch,
    "depth": depth_sketch,
    "isolated_vs_context": context_sketch,
    "predicted_vs_measured": prediction_sketch,
    "front": front_sketch,
    "device_fronts": device_fronts_sketch,
    "search_entropy": entropy_sketch,
    "search_latency": latency_sketch,
    "search_accuracy": accuracy_sketch,
    "derived_networks": derived_sketch,
}


def draw_figures(data: ReportData) -> tuple[DrawnFigure, ...]:
    """Draw every figure whose data is there."""
    sketches = ((name, sketch(data)) for name, sketch in FIGURES.items())
    return tuple(
        render(name, sketch, emulated=data.emulated)
        for name, sketch in sketches
        if sketch is not None
    )
