"""The history of a suite as the terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwprof.units import NOTHING, format_seconds

HEADS = ("workload", "sessions", "since", "when (UTC)", "before", "after", "change", "p")


def history_text(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Show rows of ``hwprof suite history --json``: a line a change, then what must be said."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in HEADS:
        table.add_column(head, overflow="fold")
    for row in rows:
        begin = (Text(str(row["workload"])), str(row["n_sessions"]))
        for change in row["changes"]:
            style = "bold red" if change["shift"] > 0 else "green"
            table.add_row(
                *begin,
                Text(str(change["session"])),
                str(change["at"])[:16].replace("T", " "),
                format_seconds(change["before_s"]),
                format_seconds(change["after_s"]),
                Text(f"{change['shift']:+.1%}", style=style),
                f"{change['p']:.2g}",
            )
        if not row["changes"]:
            said = "none found" if row["is_long_enough"] else "too few sessions"
            table.add_row(*begin, Text(str(row["since"] or NOTHING)), *[NOTHING] * 3, said, NOTHING)
    return Group(table, *map(Text, sentences(rows)))


def sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the notes, and at which changes the machine moved too."""
    found = []
    for row in rows:
        if row["note"]:
            found.append(f"{row['workload']}: {row['note']}")
        found += [
            f"{row['workload']}: at {change['session']} the reference block, which never changes, "
            f"moved by {change['reference_shift']:+.1%} too: the machine changed"
            for change in row["changes"]
            if change["is_machines"]
        ]
    return found
