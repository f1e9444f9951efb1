"""Measurements of a level, tables of blocks, effects, and small spaces, that the test chooses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hwprof.interval import Interval
from hwprof.measure.records import (
    Fingerprint,
    LabelledBurst,
    Loaded,
    Measurement,
    MeasurePlan,
    plan_for,
)
from hwprof.results import Effect
from hwprof.space import MBConvLayout, MBConvSpace, UnitLayout, get_space
from hwprof.workload import Workload


def measurement(
    workload: Workload,
    level_s: float,
    ci95_s: tuple[float, float],
    *,
    plan: MeasurePlan | None = None,
    fingerprint: Fingerprint | None = None,
    bursts: Sequence[LabelledBurst] = (),
) -> Measurement:
    return Measurement(
        workload=workload,
        plan=plan or plan_for("quick"),
        fingerprint=fingerprint or Fingerprint(stable={"device": "cpu"}),
        bursts=tuple(bursts),
        loaded=Loaded(load_s=0.1, artifact_bytes=1, peak_memory_bytes=None),
        level_s=level_s,
        ci95_s=ci95_s,
        median_s=level_s,
        p90_s=level_s,
        p99_s=level_s,
        verdict="clean",
        evidence=(),
    )


def block_table(path: Path, *, without: str | None = None) -> Path:
    """Write a table of mobile-mini, later candidates slower, perhaps without one of its blocks."""
    space = get_space("mobile-mini")
    lines = ["resolution_px,unit,layer,block,latency_ms", "32,,,fixed,0.4"]
    for slot in space.slots:
        for i, block in enumerate(space.choices(slot)):
            if block != without:
                lines.append(f"32,{slot.unit},{slot.layer},{block},{0.1 + 0.05 * i}")
    path.write_text("\n".join(lines))
    return path


def own_space(*units: UnitLayout, name: str = "own-space") -> MBConvSpace:
    """A user's own space of mobile blocks, as a file or package would give it."""
    layout = MBConvLayout(
        name=name,
        resolution_px=32,
        n_classes=10,
        bn_eps=1e-5,
        stem_channels=8,
        stem_act="relu",
        first_channels=8,
        first_act="relu",
        first_shortcut=True,
        units=units,
        head_channels=16,
        head_act="relu",
    )
    return MBConvSpace.from_layout(layout)


def block_effect(unit: int, layer: int, block: str, value_s: float, half_s: float) -> Effect:
    return Effect(
        kind="block",
        unit=unit,
        layer=layer,
        depth=None,
        block=block,
        latency=Interval(value_s, value_s - half_s, value_s + half_s),
        accuracy=None,
        n_networks=100,
    )
