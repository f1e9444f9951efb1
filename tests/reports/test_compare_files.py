"""The files for build servers: every verdict in each of them, escaped, and none a false pass."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from hwprof.regression.records import Comparison, Tail
from hwprof.reports import compare_files
from hwprof.reports.compare_text import compare_text, reasons


def row(verdict: str, **fields: Any) -> dict[str, Any]:
    given = {"workload": "net <a|b>", "reason": "because", "method": "paired", **fields}
    return Comparison(verdict=verdict, **given).to_row()  # type: ignore[arg-type]


FIGURES: dict[str, Any] = {
    "shift": 0.05,
    "shift_ci99": (0.04, float("inf")),
    "detectable": 0.012,
    "base_s": 1e-3,
    "new_s": 1.05e-3,
}
TAIL = Tail(verdict="REGRESSED", shift=0.2, shift_ci99=(0.15, 0.25))


@pytest.mark.parametrize(
    ("verdict", "allow", "child"),
    [
        ("REGRESSED", (), "failure"),
        ("NOT_COMPARABLE", (), "error"),
        ("NOT_COMPARABLE", ("inconclusive",), "error"),
        ("INCONCLUSIVE", (), "error"),
        ("INCONCLUSIVE", ("inconclusive",), "skipped"),
        ("EQUIVALENT", (), "system-out"),
        ("IMPROVED", (), "system-out"),
    ],
)
def test_junit_says_every_verdict(verdict: str, allow: tuple[str, ...], child: str) -> None:
    suite = ElementTree.fromstring(compare_files.junit([row(verdict, **FIGURES)], allow))
    (case,) = suite
    assert case.attrib["name"] == "net <a|b>"
    assert [element.tag for element in case] == [child]
    assert suite.attrib["failures"] == str(int(child == "failure"))
    assert suite.attrib["errors"] == str(int(child == "error"))


def test_a_slower_tail_is_a_failure_everywhere() -> None:
    rows = [row("EQUIVALENT", tail=TAIL, **FIGURES)]
    assert "<failure" in compare_files.junit(rows)
    assert "1 with a slower tail" in compare_files.markdown(rows)
    assert "slower tail" in compare_files.badge(rows)
    assert "not slower" not in compare_files.badge(rows)


@pytest.mark.parametrize(
    ("verdicts", "allow", "text"),
    [
        (["EQUIVALENT", "IMPROVED"], (), "not slower"),
        (["EQUIVALENT", "REGRESSED"], (), "1 regressed"),
        (["EQUIVALENT", "NOT_COMPARABLE"], (), "1 not comparable"),
        (["INCONCLUSIVE"], (), "1 inconclusive"),
        (["EQUIVALENT", "INCONCLUSIVE"], ("inconclusive",), "no slowdown found, 1 inconclusive"),
        ([], (), "nothing compared"),
    ],
)
def test_the_badge_shows_the_worst(verdicts: list[str], allow: tuple[str, ...], text: str) -> None:
    svg = compare_files.badge([row(v) for v in verdicts], allow)
    root = ElementTree.fromstring(svg)
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert text in str(title.text)
    assert (text == "not slower") == ("not slower" in svg)


def test_markdown_has_a_line_a_workload_and_keeps_its_table() -> None:
    text = compare_files.markdown([row("REGRESSED", **FIGURES), row("NOT_COMPARABLE")])
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert "net &lt;a\\|b>" in table[2]
    assert "+5.00%" in table[2]
    assert "+4.00% to open" in table[2]
    assert "because" in text


def test_the_terminal_names_what_changed_and_why_no_tail() -> None:
    console = Console(width=300, record=True)
    changed = row(
        "EQUIVALENT",
        differences={"runtime_version": ("1.20", "1.32")},
        tail_note="too few calls",
        **FIGURES,
    )
    with console.capture() as captured:
        console.print(compare_text([changed]))
    assert "between runtime_version 1.20 -> 1.32" in captured.get()
    assert "tail not judged: too few calls" in captured.get()


def test_no_head_of_the_table_breaks_in_a_terminal_of_80() -> None:
    console = Console(width=80)
    named = row("INCONCLUSIVE", workload="old.onnx -> new.onnx", **FIGURES)
    with console.capture() as captured:
        console.print(compare_text([named]))
    assert "detectable" in captured.get()


def test_what_many_lack_is_said_once() -> None:
    rows = [row("INCONCLUSIVE", workload=f"net{i}", reason="too few levels") for i in range(5)]
    rows.insert(1, row("EQUIVALENT", workload="other", reason="close enough"))
    console = Console(width=80)
    with console.capture() as captured:
        console.print(compare_text(rows))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert lines[-3:] == [
        "net0, net1, net2 and 2 more: too few levels",
        "other: close enough",
        "6 compared: 5 inconclusive, 1 equivalent",
    ]
    assert sum("INCONCLUSIVE" in line for line in lines) == 5  # no verdict is folded
    assert "- net0, net1, net2 and 2 more: too few levels" in compare_files.markdown(rows)


def test_what_all_differ_by_is_said_once() -> None:
    changed = {"runtime_version": ("1.20", "1.32")}
    rows = [
        row("EQUIVALENT", workload=w, reason=f"of {w}", differences=changed) for w in ("a", "b")
    ]
    between = "between runtime_version 1.20 -> 1.32"
    assert reasons(rows) == [("all 2", between), ("a", "of a"), ("b", "of b")]
    rows[1] |= {"differences": {}}
    assert reasons(rows) == [("a", f"{between}; of a"), ("b", "of b")]


def test_the_terminal_says_that_there_was_nothing() -> None:
    console = Console(width=300)
    with console.capture() as captured:
        console.print(compare_text([]))
    assert "nothing to compare" in captured.get()


def test_an_interval_without_bounds_is_open_on_both_sides() -> None:
    text = compare_files.markdown([row("INCONCLUSIVE", shift_ci99=(-1.0, float("inf")))])
    assert "| open to open |" in text


@pytest.mark.parametrize("verdict", ["REGRESSED", "EQUIVALENT"])
def test_names_that_xml_and_utf_8_have_not_still_give_files(verdict: str) -> None:
    rows = [row(verdict, workload="a\x01\x1b[2J\udcff.onnx", reason="\x00", **FIGURES)]
    (case,) = ElementTree.fromstring(compare_files.junit(rows).encode())
    assert case.get("name") == "a  [2J .onnx"
    assert "\x1b" not in compare_files.markdown(rows).encode().decode()
