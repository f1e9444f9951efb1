"""The golden checks as the terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_STATES: Mapping[bool | None, tuple[str, str]] = {
    True: ("passed", "green"),
    False: ("failed", "bold red"),
    None: ("not done", "yellow"),
}


def selftest_text(result: Mapping[str, Any]) -> RenderableType:
    """Show a self-test (keys of ``hwprof selftest --json``): its checks, then its verdict."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head, justify in (("", "right"), ("check", "left"), ("", "left"), ("found", "left")):
        table.add_column(head, justify=justify, overflow="fold")  # type: ignore[arg-type]
    rows: Sequence[Mapping[str, Any]] = result["checks"]
    for row in rows:
        word, style = _STATES[row["passed"]]
        table.add_row(
            Text(str(row["check"])), Text(row["name"]), Text(word, style=style), Text(row["detail"])
        )
    return Group(table, Text(result["verdict"]))


def power_text(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Show the power curve (rows of ``hwprof selftest --inject --json``)."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    heads = ("injection", "slowdown", "regressed", "equivalent", "open", "improved")
    for head in (*heads, "median shift", "median time"):
        table.add_column(head, justify="right")
    for row in rows:
        counts = (f"{row[name]} of {row['n_trials']}" for name in ("regressed", "equivalent"))
        table.add_row(
            row["injection"],
            f"+{row['slowdown']:.0%}",
            *counts,
            str(row["inconclusive"]),
            str(row["improved"]),
            f"{row['median_shift']:+.2%}",
            f"{row['median_seconds']:.1f} s",
        )
    return Group(table, Text("Regressed at +0 % are false alarms."))
