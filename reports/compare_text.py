"""A comparison as the terminal shows it, and the sentences that its files share."""

from __future__ import annotations

from collections import Counter
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
MOST_NAMED = 3
"""Workloads that a reason names where more have the same."""
HEADS = ("workload", "verdict", "base", "new", "shift", "99 % interval", "detectable")


def compare_text(rows: Sequence[Row]) -> RenderableType:
    """Show rows of ``hwprof compare --json``: a table, then the reasons, and of several the count."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in HEADS:
        table.add_column(head, overflow="fold", no_wrap=head in ("verdict", "detectable"))
    for row in rows:
        first, verdict, *rest = cells(row)
        table.add_row(Text(first), Text(verdict, style=STYLES[verdict]), *map(Text, rest))
    lines = [Text(f"{who}: {why}") for who, why in reasons(rows)]
    if len(rows) > 1:
        lines.append(Text(f"{len(rows)} compared: {summary(rows)}"))
    return Group(table, *(lines or [Text("nothing to compare: neither side holds a measurement")]))


def reasons(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return what rows rest on, each with the workloads that it is said of.

    Where no level can be called, hundreds of them may lack the same. What two versions or settings
    differ by is most often the same for all, and comes first then.
    """
    changes = {_changes(row) for row in rows}
    is_one = len(rows) > 1 and len(changes) == 1
    found = [(f"all {len(rows)}", change) for change in changes if is_one and change]
    workloads: dict[str, list[str]] = {}
    for row in rows:
        why = _basis(row) if is_one else sentence(row)
        workloads.setdefault(why, []).append(str(row["workload"]))
    for why, names in workloads.items():
        n_more = len(names) - MOST_NAMED
        more = f" and {n_more} more" if n_more > 0 else ""
        found.append((", ".join(names[:MOST_NAMED]) + more, why))
    return found


def is_slower(row: Row) -> bool:
    """Return whether a row's level or tail regressed."""
    tail = row["tail"]
    return row["verdict"] == "REGRESSED" or (tail is not None and tail["verdict"] == "REGRESSED")


def summary(rows: Sequence[Row]) -> str:
    """Return the verdicts counted: ``1 regressed, 3 equivalent``."""
    counts = Counter(str(row["verdict"]).lower().replace("_", " ") for row in rows)
    n_tails = sum(is_slower(row) and row["verdict"] != "REGRESSED" for row in rows)
    words = [f"{n} {word}" for word, n in counts.most_common()]
    if n_tails:
        words.insert(0, f"{n_tails} with a slower tail")
    return ", ".join(words) or "nothing compared"


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
    return "; ".join(part for part in (_changes(row), _basis(row)) if part)


def _changes(row: Row) -> str:
    """Return what a row's two sides differ by, where they were timed side by side."""
    if row["method"] != "paired" or not row["differences"]:
        return ""
    changed = (f"{name} {a} -> {b}" for name, (a, b) in row["differences"].items())
    return "between " + ", ".join(changed)


def _basis(row: Row) -> str:
    parts = [str(row["reason"])]
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
