"""Several devices side by side, as the terminal shows them."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwprof.estimate.comparing import EffectsComparison
from hwprof.reports.devices import device_sentences, side_by_side
from hwprof.units import NOTHING, fixed


def devices_text(comparison: EffectsComparison) -> RenderableType:
    """Show what differs in words, then every block on every device."""
    title = "Used everywhere, against a random mix, in % of the device's mean latency"
    table = Table(
        box=box.SIMPLE_HEAD, title=Text(title, style="bold"), title_justify="left", pad_edge=False
    )
    table.add_column(Text("block"))
    for device in comparison.devices:
        table.add_column(Text(device.name), justify="right")
    for row in side_by_side(comparison):
        cells = (
            f"{fixed(100 * s.value, 1, signed=True)} ± {fixed(100 * s.half_width, 1)}"
            if s is not None
            else NOTHING
            for s in row.shares
        )
        table.add_row(Text(row.block), *(Text(cell) for cell in cells))
    return Group(*(Text(f"• {s}") for s in device_sentences(comparison)), table)
