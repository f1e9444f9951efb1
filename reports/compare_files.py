"""A comparison as files that build servers show: Markdown, JUnit, an SVG badge.

Every function takes rows of ``hwprof compare --json`` and what ``--allow`` lets pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from hwprof.measure.wire import plain
from hwprof.reports.compare_text import HEADS, cells, is_slower, reasons, sentence, summary

Row = Mapping[str, Any]

_COLOURS = {"regressed": "#c62828", "open": "#b07d00", "passed": "#2e7d32"}
_CHARACTER_PX = 6.6
_PADDING_PX = 12


def is_open(row: Row, allow: Collection[str]) -> bool:
    """Return whether a row neither fails nor passes."""
    if row["verdict"] == "NOT_COMPARABLE":
        return True
    return row["verdict"] == "INCONCLUSIVE" and "inconclusive" not in allow


def markdown(rows: Sequence[Row], allow: Collection[str] = ()) -> str:
    """Return a table and the reasons."""
    lines = [f"**hwprof compare:** {summary(rows)}", ""]
    lines += [_line(HEADS), _line(["---"] * len(HEADS))]
    lines += [_line(cells(row)) for row in rows]
    lines += ["", *(f"- {_cell(who)}: {_cell(why)}" for who, why in reasons(rows))]
    return "\n".join(lines) + "\n"


def _line(values: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(v) for v in values) + " |"


def _cell(text: object) -> str:
    return " ".join(plain(str(text)).replace("|", "\\|").replace("<", "&lt;").split())


def junit(rows: Sequence[Row], allow: Collection[str] = ()) -> str:
    """Return a JUnit file: a regression is a failure, what stays open is an error.

    What ``allow`` lets pass is skipped, with its reason.
    """
    failures = [row for row in rows if is_slower(row)]
    errors = [row for row in rows if not is_slower(row) and is_open(row, allow)]
    suite = ElementTree.Element(
        "testsuite",
        name="hwprof compare",
        tests=str(len(rows)),
        failures=str(len(failures)),
        errors=str(len(errors)),
    )
    for row in rows:
        case = ElementTree.SubElement(
            suite, "testcase", classname="hwprof.compare", name=plain(str(row["workload"]))
        )
        # XML has no control characters, and UTF-8 no half of one: file names have both.
        message = plain(f"{row['verdict']}: {sentence(row)}")
        if is_slower(row):
            ElementTree.SubElement(case, "failure", message=message)
        elif is_open(row, allow):
            ElementTree.SubElement(case, "error", message=message)
        elif row["verdict"] == "INCONCLUSIVE":
            ElementTree.SubElement(case, "skipped", message=message)
        else:
            ElementTree.SubElement(case, "system-out").text = message
    text: str = ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)
    return text + "\n"


def badge(rows: Sequence[Row], allow: Collection[str] = ()) -> str:
    """Return an SVG badge with the worst that was found.

    What ``allow`` lets pass is let pass, and not called shown: the badge counts it.
    """
    n_unclear = sum(row["verdict"] == "INCONCLUSIVE" for row in rows)
    if any(map(is_slower, rows)):
        state, text = "regressed", summary(rows)
    elif not rows or any(is_open(row, allow) for row in rows):
        state, text = "open", summary(rows)
    elif n_unclear:
        state, text = "passed", f"no slowdown found, {n_unclear} inconclusive"
    else:
        state, text = "passed", "not slower"
    return _svg("latency", text, _COLOURS[state])


def _svg(left: str, right: str, colour: str) -> str:
    a, b = (round(_PADDING_PX + _CHARACTER_PX * len(text)) for text in (left, right))
    title = escape(f"{left}: {right}", {'"': "&quot;"})
    style = 'font-family="DejaVu Sans,Verdana,sans-serif" font-size="11" text-anchor="middle"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{a + b}" height="20" role="img" '
        f'aria-label="{title}"><title>{title}</title>'
        f'<rect width="{a}" height="20" fill="#555"/>'
        f'<rect x="{a}" width="{b}" height="20" fill="{colour}"/>'
        f'<g fill="#fff" {style}>'
        f'<text x="{a / 2:g}" y="14">{escape(left)}</text>'
        f'<text x="{a + b / 2:g}" y="14">{escape(right)}</text></g></svg>\n'
    )
