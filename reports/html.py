"""The page: one file that opens from disk, prints, fits a phone, and asks the network nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.errors import MissingExtraError
from hwprof.reports import sentences
from hwprof.reports.chart import front_chart
from hwprof.reports.contexts import context_rows, context_summary, largest_gaps
from hwprof.reports.devices import device_sentences, side_by_side
from hwprof.reports.fronts import (
    FrontPoint,
    best_points,
    comparison_rows,
    front_points,
    shown_searches,
    strategy_name,
    unit_texts,
)
from hwprof.reports.palette import FULL, GRID, INK, MUTED, PAPER, REDUCED, effect_css
from hwprof.reports.places import columns, crossed, gaps, tallies, tally_sentence
from hwprof.reports.tables import block_costs
from hwprof.reports.views import (
    HeatMap,
    ReportData,
    drop_words,
    effects_of_kind,
    everywhere_rows,
    heat_map,
    kept_rows,
    short_block,
    slot_label,
)
from hwprof.units import (
    NOTHING,
    fixed,
    format_bytes,
    format_count,
    format_duration,
    format_interval,
    format_pct,
    format_points,
    format_seconds,
    format_share,
    only_ranked,
)

if TYPE_CHECKING:
    from hwprof.reports.sketches import DrawnFigure

TEMPLATES = Path(__file__).parent / "templates"

_FACT_UNITS = {"bytes": "", "pct": "%", "mhz": "MHz", "s": "s", "c": "°C"}
# A number and its unit, or kernel and expansion of a block: what a line break would tear apart.
_TOGETHER = re.compile(
    r"(\d) (?=(?:s|ms|µs|ns|pp|%|k|M|G|T|KiB|MiB|GiB|min|h|px)(?:\W|$))|(\bk\d+) (?=e\d)"
)

_CSS_COLOURS = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    PAPER: "var(--paper)",
    FULL: "var(--full)",
    REDUCED: "var(--reduced)",
}


def render_page(data: ReportData, figures: Sequence[DrawnFigure]) -> str:
    """Return the whole page as text.

    Raises:
        MissingExtraError: Jinja2 or plotly is not installed.
    """
    environment, plotly_js = require_extra()
    points = front_points(data)
    inline = {f.name: environment.markup(inline_svg(f)) for f in figures}
    chart = front_chart(points, emulated=data.emulated) if points else None
    text: str = environment.page.render(
        data=data,
        version=version("hwprof"),
        figures=inline,
        figure_list=figures,
        plotly_js=environment.markup(plotly_js) if chart else "",
        chart=chart,
        **_rows(data, points),
    )
    return text


class _Environment:
    """The page's template with the formatters it uses."""

    def __init__(self) -> None:
        import jinja2
        from markupsafe import Markup

        self.markup = Markup
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_keep_together,
        )
        environment.filters.update(
            seconds=format_seconds,
            interval=format_interval,
            points=format_points,
            only_ranked=only_ranked,
            pct=format_pct,
            share=format_share,
            count=format_count,
            duration=format_duration,
            fixed=fixed,
            short_block=short_block,
            slot=slot_label,
            strategy=strategy_name,
            units=unit_texts,
            fact=fact_row,
            drop=drop_words,
        )
        environment.globals.update(cell_css=cell_css, cell_title=cell_title)
        self.page = environment.get_template("report.html")


def _keep_together(value: Any) -> Any:
    """Put no line break where it would tear a number or a block's name apart."""
    if type(value) is not str:
        return value
    return _TOGETHER.sub(lambda found: found[0][:-1] + "\u00a0", value)


def require_extra() -> tuple[_Environment, str]:
    """Return what makes the page, its template and plotly's script, before anything is written.

    Raises:
        MissingExtraError: Jinja2 or plotly is not installed.
    """
    try:
        environment = _Environment()
    except ImportError as error:
        raise MissingExtraError("Jinja2", "report", "the report") from error
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("plotly", "report", "the report") from error
    return environment, str(get_plotlyjs())


def _rows(data: ReportData, points: Sequence[FrontPoint]) -> dict[str, Any]:
    """Return everything the template shows that is not in ``data`` itself."""
    contexts = context_rows(data.isolated, data.effects)
    summary = context_summary(contexts)
    comparison = comparison_rows(data)
    heats = [heat_map(data.effects, "latency"), heat_map(data.effects, "accuracy")]
    best = best_points(points)
    return {
        "answer": sentences.headline(data, points),
        "cards": sentences.key_figures(data, points),
        "trust": sentences.trust(data),
        "trust_rule": sentences.TRUST_RULE,
        "verdict_meanings": sentences.VERDICT_MEANINGS,
        "emulated_text": sentences.EMULATED,
        "heats": [(heat, sentences.heat_note(heat)) for heat in heats if heat is not None],
        "everywhere": everywhere_rows(data),
        "factors": effects_of_kind(data.effects, "factor"),
        "side_by_side": side_by_side(data.devices) if data.devices else (),
        "device_sentences": device_sentences(data.devices) if data.devices else (),
        "context_text": sentences.context_sentence(summary) if summary else "",
        "gaps": largest_gaps(contexts),
        "block_costs": block_costs(data),
        "kept": kept_rows(data.reduction) if data.reduction else (),
        "best": best,
        "beaten": [p for p in points if not p.best],
        "confirmed": all(p.confirmed for p in points),
        "n_hidden": len(data.full_searches + data.reduced_searches) - len(shown_searches(data)),
        "target_sentences": _target_sentences(data),
        "hosts": columns(data.places),
        "crossed": crossed(data.places),
        "place_sentences": [tally_sentence(t) for t in tallies(data.places)],
        "place_gaps": gaps(data.places),
        "comparison": comparison,
        "comparison_text": sentences.comparison_sentence(comparison),
        "nothing": NOTHING,
    }


def _target_sentences(data: ReportData) -> list[str]:
    """Say how near to their targets searches came; those of other devices are named after them."""
    own = (*data.full_searches, *data.reduced_searches)
    found = [sentences.target_sentence(t) for search in own for t in search.targets]
    for place in data.places:
        others = (s for s in place.searches if not any(s is mine for mine in own))
        found += [
            f"{place.label}: {sentences.target_sentence(t)}" for s in others for t in s.targets
        ]
    return found


def cell_css(heat: HeatMap, cell: Any) -> str:
    """Return a heat-map cell's colour; none where its sign is not settled."""
    return f"background:{effect_css(heat.goodness(cell))}" if cell.excludes_zero else ""


def cell_title(heat: HeatMap, row: int, column: int) -> str:
    """Return what a cell says when asked: place, block, value and interval."""
    cell = heat.cells[row][column]
    assert cell is not None
    value, lo, hi = (fixed(v, heat.decimals + 1, signed=True) for v in cell)
    place = f"{slot_label(heat.slots[row])}, {heat.blocks[column]}"
    return f"{place}: {value} {heat.unit} [{lo}, {hi}]"


def fact_row(name: str, value: object) -> tuple[str, str]:
    """Write a fact of the fingerprint for people: its unit goes from the name to the value."""
    stem, _, unit = name.rpartition("_")
    if value is None:
        return name.replace("_", " "), "unknown"
    if isinstance(value, bool):
        return name.replace("_", " "), "yes" if value else "no"
    if isinstance(value, int | float) and unit in _FACT_UNITS:
        text = format_bytes(int(value)) if unit == "bytes" else f"{value:g} {_FACT_UNITS[unit]}"
        return stem.replace("_", " "), text
    return name.replace("_", " "), f"{value:g}" if isinstance(value, float) else str(value)


def inline_svg(figure: DrawnFigure) -> str:
    """Return a figure as an SVG element for the page.

    Its colours follow the page's (light, dark, print), its ids are its own, and it carries the
    words for those who cannot see it.
    """
    svg = figure.svg[figure.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{figure.name}-', svg)
    svg = re.sub(r'href="#', f'href="#{figure.name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{figure.name}-", svg)
    for colour, css in _CSS_COLOURS.items():
        svg = svg.replace(colour, css)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(figure.alt)}" ', 1)
