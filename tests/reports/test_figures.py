from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from hwprof.interval import Interval
from hwprof.reports.figures import FIGURES, draw_figures
from hwprof.reports.palette import BAD, GOOD, INK, effect_css, effect_hex
from hwprof.reports.sketches import DrawnFigure, name_apart
from hwprof.units import fixed


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.1)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.fixture(scope="module")
def figures(small_data) -> tuple[DrawnFigure, ...]:
    return draw_figures(small_data)


def test_drawing_leaves_the_settings_of_matplotlib_alone(small_data):
    before = dict(matplotlib.rcParams)
    draw_figures(replace(small_data, effects=()))
    assert dict(matplotlib.rcParams) == before


def test_every_figure_is_drawn_in_both_formats(figures):
    assert [f.name for f in figures] == list(FIGURES)
    for figure in figures:
        image = Image.open(io.BytesIO(figure.png))
        assert image.format == "PNG"
        assert min(image.size) >= 300
        assert ET.fromstring(figure.svg).tag.endswith("svg")
        assert figure.alt


def test_heat_map_shows_every_value(small_data, figures):
    figure = next(f for f in figures if f.name == "friendliness_latency")
    for effect in small_data.effects:
        if effect.kind == "block":
            assert fixed(effect.latency.value * 1e3, 2, signed=True) in figure.svg
    assert "unit 0, layer 1" in figure.svg


def test_units_are_in_the_labels(figures):
    by_name = {f.name: f for f in figures}
    assert "latency, measured (ms)" in by_name["front"].svg
    assert "predicted (ms)" in by_name["predicted_vs_measured"].svg


def test_the_same_data_gives_the_same_bytes(small_data):
    data = replace(small_data, effects=(), isolated=())
    first, second = draw_figures(data), draw_figures(data)
    assert [f.svg for f in first] == [f.svg for f in second]
    assert [f.png for f in first] == [f.png for f in second]


def test_figures_without_data_are_left_out(bare_data, small_data):
    assert draw_figures(bare_data) == ()
    no_accuracy = tuple(replace(e, accuracy=None) for e in small_data.effects)
    bare = replace(bare_data, effects=no_accuracy)
    assert [f.name for f in draw_figures(bare)] == ["friendliness_latency", "depth"]


def test_names_with_dollars_are_text_not_formulas(small_data):
    searches = tuple(replace(s, strategy="a$b_{$") for s in small_data.full_searches)
    data = replace(small_data, full_searches=searches, effects=(), isolated=(), predictions=())
    (front,) = (f for f in draw_figures(data) if f.name == "front")
    assert "a$b_{$" in front.svg


def test_emulated_figures_say_so(emulated_data):
    figures = draw_figures(emulated_data)
    assert len(figures) == len(FIGURES)
    assert all("EMULATED" in f.svg for f in figures)


def test_unmeasured_fronts_say_so(small_data):
    searches = tuple(replace(s, confirmed=False) for s in small_data.full_searches)
    data = replace(small_data, full_searches=searches, reduced_searches=(), effects=())
    (front,) = (f for f in draw_figures(data) if f.name == "front")
    assert "unconfirmed" in front.svg


def test_a_single_network_and_a_single_slot_can_be_drawn(small_data):
    effect = next(e for e in small_data.effects if e.kind == "block")
    (search, _) = small_data.full_searches
    data = replace(
        small_data,
        effects=(replace(effect, latency=Interval(0.0, 0.0, 0.0)),),
        full_searches=(replace(search, front=search.front[:1]),),
        reduced_searches=(),
    )
    names = [f.name for f in draw_figures(data)]
    assert "front" in names
    assert "friendliness_latency" in names


def test_good_and_bad_differ_for_the_colour_blind_and_carry_readable_ink():
    # Deuteranopia and protanopia leave blue against yellow: the blue channel must differ.
    assert abs(GOOD[2] - BAD[2]) > 120
    for goodness in (-1.0, 1.0):
        ratio = (luminance(effect_hex(goodness)) + 0.05) / (luminance(INK) + 0.05)
        assert ratio > 4.5
    assert effect_hex(0.0) == "#ffffff"
    assert effect_css(1.0).startswith("rgb(31 95 165")


@pytest.mark.parametrize("goodness", [0.2, 0.5, 0.9])
def test_stronger_effects_have_stronger_colours(goodness):
    assert luminance(effect_hex(goodness)) > luminance(effect_hex(goodness + 0.1))
    assert luminance(effect_hex(-goodness)) > luminance(effect_hex(-goodness - 0.1))


def test_names_of_points_close_together_cover_neither_each_other_nor_a_point():
    figure = Figure()
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 100), ylim=(0, 100))
    places = ((50.0, 50.0), (51.0, 49.0), (58.0, 53.0))
    names = [(f"k{i} e6 (dropped)", place, "black") for i, place in enumerate(places)]
    name_apart(axes, names)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == [text for text, _, _ in names]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert not any(box.contains(*axes.transData.transform(p)) for box in boxes for p in places)
