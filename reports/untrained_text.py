"""The network of a search that trains nothing, as the terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.text import Text

from hwprof.interval import Interval
from hwprof.reports.fronts import strategy_name, unit_texts
from hwprof.space import Architecture
from hwprof.units import format_count, format_duration, format_interval, format_seconds


def untrained_text(row: Mapping[str, Any]) -> Group:
    """Show what ``hwprof search --strategy te-nas`` came to (its JSON)."""
    arch = Architecture.from_json(row["arch"])
    where = f" on {row['device']}" if row["device"] else ""
    head = f"{strategy_name(row['strategy'])} in {row['space']}: one network, chosen untrained"
    lines = [
        f"{head}; its accuracy is not known",
        *(f"{part}: {blocks}" for part, blocks in unit_texts(arch)),
        f"{format_count(row['macs'])} MACs, {format_count(row['params'])} parameters",
        f"latency{where}, {row['latency_source']}: {_time(row['latency_s'], row['ci95_s'])}",
    ]
    if row["target_s"] is not None:
        lines[-1] += f" (target {format_seconds(row['target_s'])})"
    if row["measured_s"] is not None:
        time = _time(row["measured_s"], row["measured_ci95_s"])
        lines.append(f"latency on {row['measured_on']}, measured: {time}, {row['verdict']}")
    lines.append(f"spent: {row['n_rounds']} rounds, {format_duration(row['seconds'])}")
    return Group(*(Text(line) for line in lines))


def _time(value_s: float, ci95_s: tuple[float, float] | None) -> str:
    return (
        format_seconds(value_s) if ci95_s is None else format_interval(Interval(value_s, *ci95_s))
    )
