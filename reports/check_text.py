"""The golden checks as the terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwprof.interval import NORMAL_975
from hwprof.measure.session_spread import FEW_SESSIONS

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
    return Group(table, *map(_session_text, result["sessions"].items()), Text(result["verdict"]))


def _session_text(kind_and_spread: tuple[str, Mapping[str, Any]]) -> Text:
    """Say how far sessions lie apart, and what that makes of every interval."""
    kind, spread = kind_and_spread
    sd, n_known = spread["sd"], spread["n_known"]
    assumed = ", so that this is mostly assumed" if n_known < FEW_SESSIONS else ""
    return Text(
        f"From session to session a {kind} differs by {sd:.1%} on this machine (standard deviation, "
        f"{n_known} known{assumed}): the interval of its level is at least ±{NORMAL_975 * sd:.1%}, and "
        "narrower beside others of its session."
    )


_INJECTIONS = {"delay": "busy wait", "work": "real work"}


def power_text(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Show the power curve (rows of ``hwprof selftest --inject --json``)."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    heads = ("slowed by", "size", "called regressed", "95 % interval", "equivalent")
    for head in (*heads, "open", "improved", "median shift", "median time"):
        table.add_column(head, justify="right")
    for row in rows:
        low, high = row["regressed_ci95"]
        table.add_row(
            _INJECTIONS[row["injection"]],
            f"+{row['slowdown']:.0%}",
            f"{row['regressed']} of {row['n_trials']}",
            f"{low:.0%} to {high:.0%}",
            *(str(row[name]) for name in ("equivalent", "inconclusive", "improved")),
            f"{row['median_shift']:+.2%}",
            f"{row['median_seconds']:.1f} s",
        )
    return Group(
        table,
        Text(
            "Each comparison is of a block with itself, one side made slower on purpose. At +0% "
            "every regression is a false alarm; +1% is the threshold, which may fall on either side; "
            "from +2% on every regression should be found; open: neither could be said. The interval "
            "is that of the share called regressed: --trials narrows it."
        ),
    )
