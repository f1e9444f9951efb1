"""A comparison as the terminal shows it, and the sentences that its files share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwprof.units import format_seconds

Row = Mapping[str, Any]

STYLES: Mapping[str, str] = {
    "REGRESSED": "bold red",
    "IMPROVED": "green",
    "EQUIVALENT": "green",
    "INCONCLUSIVE": "yellow",
    "NOT_COMPARABLE": "bold yellow",
}
HEADS = ("workload", "verdict", "base", "new", "shift", "99 % interval", "detectable")


def compare_text(rows: Sequence[Row]) -> RenderableType:
    """Show rows of ``hwprof compare --json``: a table, then a line for each with its reason."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in HEADS:
        table.add_column(head, overflow="fold")
    for row in rows:
        first, verdict, *rest = cells(row)
        table.add_row(Text(first), Text(verdict, style=STYLES[verdict]), *map(Text, rest))
    lines = [Text(f"{row['workload']}: {sentence(row)}") for row in rows]
    return Group(table, *(lines or [Text("nothing to compare: neither side holds a measurement")]))


def cells(row: Row) -> tuple[str, ...]:
    """Return a row's cells under :data:`HEADS`."""
    return (
        str(row["workload"]),
        str(row["verdict"]),
        format_seconds(row["base_s"]),
        format_seconds(row["new_s"]),
        _pct(row["shift"]),
        _interval(row["shift_ci99"]),
        "–" if row["detectable"] is None else f"{row['detectable']:.1%}",
    )


def sentence(row: Row) -> str:
    """Return in words what a row rests on, and what is said of its tail."""
    parts = [str(row["reason"])]
    if row["method"] == "paired" and row["differences"]:
        changed = (f"{name} {a} -> {b}" for name, (a, b) in row["differences"].items())
        parts.append("between " + ", ".join(changed))
    tail = row["tail"]
    if tail is not None:
        parts.append(f"tail (p90) {tail['verdict']}, {_pct(tail['shift'])}")
    elif row["tail_note"]:
        parts.append(f"tail not judged: {row['tail_note']}")
    return "; ".join(parts)


def _pct(share: float | None) -> str:
    return "–" if share is None else f"{share:+.2%}"


def _interval(pair: Sequence[float | None] | None) -> str:
    if pair is None:
        return "–"
    # Nothing takes less than no time: -100 % is no bound.
    low, high = ("open" if v is None or v <= -1.0 else f"{v:+.2%}" for v in pair)
    return f"{low} to {high}"
