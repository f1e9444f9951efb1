"""``bench --parts`` as the terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwprof.parts.prefixes import PrefixCost
from hwprof.parts.records import RECONCILED_PCT, Grouping, PartsResult, PartTime
from hwprof.reports.text import measurement_text
from hwprof.units import NOTHING, fixed, format_pct, format_seconds, format_share

GROUPED_BY: dict[Grouping, str] = {
    "tensors": "by named tensor",
    "blocks": "by block",
    "modules": "by module",
    "repeats": "by repeated subgraph",
    "operators": "by operator",
    "types": "by type of operator",
}
MOST_TYPES = 4


def parts_text(result: PartsResult) -> RenderableType:
    """Show the whole's measurement, its parts, and whether these add up to it."""
    return Group(
        measurement_text(result.measurement),
        Text(""),
        _table(result),
        *(Text(line) for line in reconciliation_lines(result)),
    )


def prefixes_text(costs: Sequence[PrefixCost]) -> RenderableType:
    """Show what every part of a network adds to it."""
    table = Table(box=box.SIMPLE_HEAD, header_style="")
    for name in ("part", "block"):
        table.add_column(name)
    for name in ("up to here", "adds", "95 % interval"):
        table.add_column(name, justify="right")
    for cost in costs:
        low, high = format_seconds(cost.added_s.lo), format_seconds(cost.added_s.hi)
        times = format_seconds(cost.upto_s.value), format_seconds(cost.added_s.value)
        table.add_row(cost.part, cost.block or NOTHING, *times, f"{low} to {high}")
    return table


def reconciliation_lines(result: PartsResult) -> list[str]:
    """Say how well the parts add up, and what was done to the tracer's times."""
    residual = f"{fixed(result.residual_pct, 1, signed=True)} %"
    against = f"{fixed(result.residual_untraced_pct, 1, signed=True)} %"
    lines = [
        f"Sum of the parts: {format_seconds(result.sum_s)}",
        f"  against the level: {residual}",
        f"  against calls without tracer in the same processes: {against}",
    ]
    slows = f"The tracer slows a call {result.slowdown:.2f} times"
    if result.removed_per_op_s:
        removed = format_seconds(result.removed_per_op_s)
        lines.append(f"{slows}; what it adds, {removed} an operator, is removed.")
    else:
        lines.append(
            f"{slows}, and what it adds to an operator is not known on this device: trust the "
            "shares, not the times."
        )
    if not result.is_reconciled:
        lines.append(
            f"The parts do not add up to the level within {RECONCILED_PCT:g} %: trust the shares "
            "and the order more than the times, or measure again on a quieter machine."
        )
    return lines


def _table(result: PartsResult) -> Table:
    parts = result.parts
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"Parts, {GROUPED_BY[result.grouped_by]}", style="bold"),
        title_justify="left",
        pad_edge=False,
    )
    has_blocks = any(p.block for p in parts)
    is_compared = any(p.isolated_hot_s for p in parts)
    table.add_column(Text("part"), overflow="fold")
    if has_blocks:
        table.add_column(Text("block"), no_wrap=True)
    for head in ("time", "share"):
        table.add_column(Text(head), justify="right", no_wrap=True)
    if is_compared:
        for head in ("alone", "of it layout", "left out"):
            table.add_column(Text(head), justify="right")
    else:
        table.add_column(Text("operators"), overflow="fold")
    for part in parts:
        cells = [_name(part), *([part.block or ""] if has_blocks else [])]
        cells += [format_seconds(part.traced_s), format_share(part.share, 1)]
        cells += _compared(part) if is_compared else [_operators(part)]
        style = "" if part.kind == "block" else "dim"
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def _name(part: PartTime) -> str:
    return f"{part.part} layout" if part.kind == "layout" else part.part


def _operators(part: PartTime) -> str:
    """Return how many operators a part has, and of which types."""
    if not part.n_ops:
        return ""
    more = ", …" if len(part.op_types) > MOST_TYPES else ""
    return f"{part.n_ops} {', '.join(part.op_types[:MOST_TYPES])}{more}"


def _compared(part: PartTime) -> list[str]:
    if part.kind != "block":
        return ["", "", ""]
    alone = part.isolated_hot_s
    share = NOTHING
    if alone is not None and part.isolated_layout_s is not None:
        share = format_pct(100 * part.isolated_layout_s / alone.value, 0)
    left_out = NOTHING
    if (difference := part.differential_s) is not None:
        value, half = format_seconds(difference.value), format_seconds(difference.half_width)
        left_out = f"{value} ± {half}"
    return [format_seconds(alone.value if alone else None), share, left_out]
