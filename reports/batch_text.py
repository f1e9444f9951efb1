"""A sweep over batch sizes, as the terminal shows it; and the three times of work on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwprof.units import NOTHING, decimals_for, format_bytes, format_seconds, format_share

LAUNCH_BOUND = 0.8
"""Share of the GPU's time from which the host's enqueueing decides (as in NVIDIA's trtexec)."""
Row = Mapping[str, Any]


def batches_text(rows: Sequence[Row]) -> RenderableType:
    """Show the rows of ``hwprof bench --batch N,M --json``: one line a batch size."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("batch", "level", "± 95 %", "an image", "images/s", "enqueue", "end to end"):
        table.add_column(name, justify="right")
    table.add_column("peak memory", justify="right")
    table.add_column("verdict")
    failures = []
    for row in rows:
        found = row["measurement"]
        if found is None:
            table.add_row(str(row["batch"]), *[NOTHING] * 7, "failed")
            failures.append(f"batch {row['batch']}: {row['failure']}")
            continue
        low, high = found["ci95_s"]
        telemetry = found["telemetry"]
        table.add_row(
            str(row["batch"]),
            format_seconds(found["level_s"]),
            format_share(0.5 * (high - low) / found["level_s"], 1),
            format_seconds(row["per_image_s"]),
            _rate(1.0 / row["per_image_s"]),
            _or_nothing(telemetry.get("enqueue_median_s")),
            _or_nothing(telemetry.get("end_to_end_median_s")),
            format_bytes(found["peak_memory_bytes"]),
            found["verdict"],
        )
    return Group(table, *(Text(line) for line in failures))


def gpu_times(telemetry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the lines about GPU, enqueue and end to end; none where the host timed the calls."""
    gpu_s = telemetry.get("gpu_median_s")
    if gpu_s is None:
        return []
    enqueue_s, whole_s = telemetry["enqueue_median_s"], telemetry["end_to_end_median_s"]
    times = ", ".join(format_seconds(v) for v in (gpu_s, enqueue_s, whole_s))
    lines = [("GPU, enqueue, end to end", f"{times}  (medians; the level is the GPU's)")]
    if enqueue_s > LAUNCH_BOUND * gpu_s:
        lines.append(
            ("", f"the host takes {format_share(enqueue_s / gpu_s)} of the GPU's time to enqueue")
        )
    return lines


def _or_nothing(seconds: float | None) -> str:
    return NOTHING if seconds is None else format_seconds(seconds)


def _rate(per_s: float) -> str:
    """Write images a second with three digits at least: a slow device may take seconds for one."""
    return f"{per_s:,.{decimals_for(per_s)}f}"
