from __future__ import annotations

import builtins
import csv
import errno
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hwprof.errors import MissingExtraError, StoreError
from hwprof.measure.records import Fingerprint
from hwprof.reports import Campaign, write_report
from hwprof.reports.contexts import context_rows
from hwprof.reports.figures import FIGURES, draw_figures
from hwprof.reports.fronts import front_points, unit_texts
from hwprof.reports.html import fact_row, inline_svg, render_page
from hwprof.results import effects_frame
from hwprof.units import fixed, format_interval

VOID = {"meta", "br", "link", "img", "input", "hr", "wbr", "col"}
HOSTILE = "<script>alert('x')</script>&\"'"


class Page(HTMLParser):
    """Collects what a browser would load, the ids, the text, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.scripts: dict[str | None, str] = {}
        self.words: list[str] = []
        self._open: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()
        assert self._open == [], f"unclosed: {self._open}"

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.loads += [found[a] for a in ("src", "srcset", "data", "poster") if a in found]
        if "href" in found or "xlink:href" in found:
            self.loads.append(found.get("href") or found["xlink:href"])
        if "id" in found:
            self.ids.append(found["id"])
        if tag not in VOID:
            self._open.append((tag, found.get("id")))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open[-1][0] == tag, f"</{tag}> closes <{self._open[-1]}>"
        self._open.pop()

    def handle_data(self, data):
        if self._open and self._open[-1][0] == "script":
            name = self._open[-1][1]
            self.scripts[name] = self.scripts.get(name, "") + data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def page_of(data) -> Page:
    return Page(render_page(data, ()))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(tmp_path_factory, report_data) -> Path:
    out: Path = tmp_path_factory.mktemp("report")
    assert write_report(report_data, out) == out / "index.html"
    return out


@pytest.fixture(scope="module")
def page(written) -> Page:
    return Page((written / "index.html").read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_anywhere(page, written):
    assert all(target.startswith("#") for target in page.loads), page.loads
    text = (written / "index.html").read_text(encoding="utf-8")
    assert "Content-Security-Policy" in text
    assert "default-src 'none'" in text
    (styles,) = re.findall(r"<style>(.*?)</style>", text.split("<body>")[0], re.DOTALL)
    assert "url(" not in styles
    assert "@import" not in styles


def test_every_link_inside_the_page_has_its_target_and_ids_are_unique(page):
    assert len(page.ids) == len(set(page.ids))
    assert {t[1:] for t in page.loads} <= set(page.ids)


def test_plotly_is_inlined_once(written):
    text = (written / "index.html").read_text(encoding="utf-8")
    assert text.count("plotly.js v") == 1


def test_every_front_point_shows_its_network(page, report_data):
    chart = json.loads(page.scripts["front-data"])
    points = front_points(report_data)
    assert sorted(map(int, chart["points"])) == [p.number for p in points]
    drawn = [number for trace in chart["traces"] for number in trace["customdata"]]
    assert sorted(drawn) == [p.number for p in points]
    for point in points:
        network = chart["points"][str(point.number)]
        assert json.loads(network["json"]) == point.trial.arch.to_json()
        blocks = [b["name"] for unit in network["units"] for b in unit["blocks"]]
        assert blocks == [b for unit in point.trial.arch.units for b in unit]
        for part, words in unit_texts(point.trial.arch):
            assert f"{part} {words}" in page.text


def test_hovering_tells_measured_and_predicted_latency_and_cost(page, report_data):
    chart = json.loads(page.scripts["front-data"])
    hovers = [t for trace in chart["traces"] for t in trace["text"]]
    for point, hover in zip(front_points(report_data), hovers, strict=True):
        for label in ("accuracy", "latency measured", "latency predicted", "MACs", "parameters"):
            assert f"{label}: " in hover
        assert all(words in hover for _, words in unit_texts(point.trial.arch))


def test_every_drop_stands_there_with_its_numbers(page, report_data):
    text = page.text
    for drop in report_data.reduction.drops:
        assert drop.why in text
        value, _, bounds = format_interval(drop.latency_s).partition(" [")
        assert value in text
        assert bounds in text


def test_heat_maps_hold_every_effect(written, report_data):
    text = (written / "index.html").read_text(encoding="utf-8")
    cells = re.findall(r"<td( class=\"settled\")?[^>]* title=\"([^\"]+)\"", text)
    assert len(cells) == 2 * sum(e.kind == "block" for e in report_data.effects)
    for effect in report_data.effects:
        if effect.kind != "block":
            continue
        place = f"unit {effect.unit}, layer {effect.layer}, {effect.block}: "
        value = fixed(effect.latency.value * 1e3, 3, signed=True)
        mark = next(m for m, title in cells if title.startswith(f"{place}{value}\u00a0ms"))
        assert bool(mark) == effect.latency.excludes_zero


def test_gaps_beyond_both_intervals_are_marked(written, report_data):
    """In the table of every block, as docs/friendliness.md says."""
    text = (written / "index.html").read_text(encoding="utf-8")
    (table,) = re.findall(r'aria-label="Every block.s cost">(.*?)</table>', text, re.DOTALL)
    lines = [line for line in table.split("<tr>") if line.startswith('<th scope="row">')]
    marks = ["<b>" in line for line in lines]
    rows = context_rows(report_data.isolated, report_data.effects)
    assert marks == [row.disagrees for row in rows]
    assert 0 < sum(marks) < len(marks)


def test_failures_machine_and_commands_are_told(page, report_data):
    text = page.text
    assert report_data.campaign.failures[0].message in text
    assert "Intel Xeon Platinum 8481C" in text
    assert report_data.fingerprint.digest in text
    for command in report_data.commands:
        assert command in text


def test_commands_can_be_copied(make_report):
    command = "hwprof profile --max-time 30 s --out k3 e6"
    assert command in render_page(make_report(commands=(command,)), ())


def test_figures_in_the_page_have_words_for_those_who_cannot_see(written):
    text = (written / "index.html").read_text(encoding="utf-8")
    figures = re.findall(r"<svg [^>]*>", text.split("<script>")[0])
    assert len(figures) >= 5
    assert all('role="img"' in f and 'aria-label="' in f for f in figures)


def test_hostile_names_stay_text(report_data):
    fingerprint = Fingerprint(stable={"device": HOSTILE, "hardware": HOSTILE})
    full = tuple(replace(s, strategy=HOSTILE) for s in report_data.full_searches)
    data = replace(
        report_data,
        title=HOSTILE,
        insights=(HOSTILE,),
        notes=(HOSTILE,),
        commands=(HOSTILE,),
        fingerprint=fingerprint,
        full_searches=full,
        effects=(),
        isolated=(),
        predictions=(),
    )
    raw = render_page(data, draw_figures(data))
    assert HOSTILE not in raw
    assert "<script>alert" not in raw
    page = Page(raw)
    assert HOSTILE in page.text
    hovers = json.loads(page.scripts["front-data"])["traces"][0]["text"]
    assert all("<script" not in hover for hover in hovers)


@pytest.mark.parametrize(
    "changes",
    [
        {"reduction": None},
        {"full_searches": (), "reduced_searches": (), "hypervolumes": ()},
        {"reduced_searches": (), "hypervolumes": (), "hypervolume_reference": None},
        {"campaign": Campaign(n_networks=3, n_blocks=0)},
        {"isolated": ()},
        {"effects": (), "insights": (), "mean_latency": None, "mean_accuracy": None},
        {"holdout": None, "predictions": ()},
        {"verdicts": ()},
        {"commands": (), "notes": ()},
    ],
)
def test_missing_parts_leave_no_hole(make_report, changes):
    page = page_of(make_report(**changes))
    assert {t[1:] for t in page.loads} <= set(page.ids)
    assert not re.search(r"\b(None|nan|Undefined)\b", page.text)


def test_no_accuracy_at_all(report_data):
    effects = tuple(replace(e, accuracy=None) for e in report_data.effects)
    data = replace(report_data, effects=effects, mean_accuracy=None, accuracy_source=None)
    page = page_of(data)
    assert "Effect of each block on latency" in page.text
    assert "Effect of each block on accuracy" not in page.text


def test_the_smallest_report(bare_data):
    page = page_of(bare_data)
    assert "Nothing was measured" in page.text
    assert "front-data" not in page.scripts


def test_an_unconfirmed_front_says_so(report_data):
    full = tuple(replace(s, confirmed=False) for s in report_data.full_searches)
    page = page_of(replace(report_data, full_searches=full, reduced_searches=()))
    assert "Unconfirmed" in page.text
    assert "not measured" in page.text
    hidden = page_of(replace(report_data, full_searches=full))
    assert "2 searches without measured finalists are not shown" in hidden.text


def test_notes_of_a_reduction_are_sentences(report_data):
    notes = ("the budget left 4 cuts aside; raise it", "All is said.")
    page = page_of(replace(report_data, reduction=replace(report_data.reduction, notes=notes)))
    words = " ".join(page.text.split())
    assert "all cuts together. The budget left 4 cuts aside; raise it. All is said." in words


def test_percentiles_by_a_proxy_are_not_called_accuracies(report_data):
    searches = tuple(
        replace(
            s,
            front=tuple(replace(t, accuracy_source="percentile by proxy:macs") for t in s.front),
        )
        for s in report_data.full_searches
    )
    page = page_of(replace(report_data, full_searches=searches, reduced_searches=()))
    assert json.loads(page.scripts["front-data"])["y_title"] == "percentile by a proxy (%)"
    assert "# percentile" in " ".join(page.text.split())


def test_emulated_results_are_labelled_everywhere(emulated_data, tmp_path):
    text = write_report(emulated_data, tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    (title,) = re.findall(r"<title>(.*?)</title>", text.split("</head>")[0])
    assert "(EMULATED)" in title
    assert "say nothing about real hardware" in page.text
    assert "EMULATED" in json.loads(page.scripts["front-data"])["x_title"]
    for table in (tmp_path / "tables").glob("*.csv"):
        assert {row["emulated"] for row in read_csv(table)} == {"True"}, table.name
    for figure in (tmp_path / "figures").glob("*.svg"):
        assert "EMULATED" in figure.read_text(encoding="utf-8"), figure.name


def test_figures_lie_beside_the_page_in_both_formats(written):
    names = sorted(p.name for p in (written / "figures").iterdir())
    assert names == sorted(f"{n}.{kind}" for n in FIGURES for kind in ("png", "svg"))


def test_tables_have_the_documented_columns_and_all_rows(written, report_data):
    def rows(name: str) -> list[dict[str, str]]:
        return read_csv(written / "tables" / f"{name}.csv")

    effects = rows("effects")
    assert list(effects[0]) == list(effects_frame(report_data.effects).columns)
    assert len(effects) == len(report_data.effects)
    assert float(effects[0]["latency_s"]) == report_data.effects[0].latency.value
    front = rows("front")
    assert len(front) == len(front_points(report_data))
    for row, point in zip(front, front_points(report_data), strict=True):
        assert json.loads(row["arch"]) == point.trial.arch.to_json()
        assert float(row["latency_s"]) == point.trial.latency_s
        lo_hi = (float(row["ci95_lo_s"]), float(row["ci95_hi_s"]))
        assert lo_hi == point.trial.ci95_s
    drops = rows("drops")
    assert [float(r["latency_saved_s"]) for r in drops] == [
        d.latency_s.value for d in report_data.reduction.drops
    ]
    contexts = context_rows(report_data.isolated, report_data.effects)
    assert len(rows("isolated_vs_context")) == len(contexts)
    assert {r["fact"] for r in rows("machine")} >= {"hardware", "steal_pct"}
    assert rows("verdicts")[0] == {"verdict": "clean", "n": "566", "evidence": ""}
    assert rows("failures")[0]["kind"] == "hung"


def test_a_second_report_replaces_the_first_and_leaves_other_files_alone(
    report_data, bare_data, tmp_path
):
    small = replace(report_data, effects=(), isolated=(), predictions=())
    write_report(small, tmp_path)
    (tmp_path / "figures" / "mine.png").write_bytes(b"mine")
    assert (tmp_path / "figures" / "front.svg").exists()
    write_report(bare_data, tmp_path)
    assert not (tmp_path / "figures" / "front.svg").exists()
    assert not (tmp_path / "tables" / "front.csv").exists()
    assert (tmp_path / "figures" / "mine.png").read_bytes() == b"mine"
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]


def test_a_folder_that_cannot_be_written_is_one_line(bare_data, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write the report into .*--out") as caught:
        write_report(bare_data, blocked)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_said_to_be_full(bare_data, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hwprof.files.os.replace", full)
    with pytest.raises(StoreError, match="No space left on device; free some space"):
        write_report(bare_data, tmp_path)


@pytest.mark.parametrize("package", ["jinja2", "plotly"])
def test_a_missing_package_is_named_before_anything_is_written(
    bare_data, tmp_path, monkeypatch, package
):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"hwprof\[report\]"):
        write_report(bare_data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_inlined_figures_follow_the_page(report_data):
    (front,) = (f for f in draw_figures(replace(report_data, effects=())) if f.name == "front")
    svg = inline_svg(front)
    assert svg.startswith("<svg role=")
    assert "<metadata>" not in svg
    assert "currentColor" in svg
    assert all(i.startswith("front-") for i in re.findall(r'\bid="([^"]+)"', svg))


@pytest.mark.parametrize(
    ("name", "value", "row"),
    [
        ("memory_bytes", 8 * 2**30, ("memory", "8.00 GiB")),
        ("clock_mhz", 2600.0, ("clock", "2600 MHz")),
        ("steal_pct", 0.4, ("steal", "0.4 %")),
        ("governor", None, ("governor", "unknown")),
        ("turbo", True, ("turbo", "yes")),
        ("load_1m", 0.31, ("load 1m", "0.31")),
        ("cores", 2, ("cores", "2")),
    ],
)
def test_facts_of_the_machine_read_well(name, value, row):
    assert fact_row(name, value) == row
