"""Figures of searches by gradient: what is in them is what was logged."""

from __future__ import annotations

import re
from dataclasses import replace

from hwprof.reports import search_figures
from hwprof.reports.search_figures import derived_sketch, entropy_sketch, latency_sketch
from hwprof.reports.sketches import render
from hwprof.results import SearchCourse
from hwprof.space import SKIP, Architecture, UnitLayout
from hwprof.space.families import FAMILIES, make_piece
from tests.made import own_space

MINI = Architecture(
    space="mobile-mini",
    resolution_px=32,
    units=(("mbconv_k3_e6", "mbconv_k7_e3"), ("mbconv_k5_e3",), ("mbconv_k3_e3",)),
)


def test_a_network_is_drawn_block_by_block(small_data):
    course = SearchCourse(name="w0.1", points=(), arch=MINI, measured_s=0.0031, accuracy_pct=71.5)
    sketch = derived_sketch(replace(small_data, courses=(course,)))
    assert sketch is not None
    svg = render("derived", sketch, emulated=False).svg
    texts = re.findall(r">(MB\d|\d×\d|\d+×\d+²)<", svg)
    kernels = [t for t in texts if re.fullmatch(r"\d×\d", t)]
    assert [t for t in texts if t.startswith("MB")] == ["MB6", "MB3", "MB3", "MB3"]
    assert kernels == ["3×3", "7×7", "5×5", "3×3"]
    # Channels and sides after every unit: from the definition of mobile-mini.
    assert [t for t in texts if t.endswith("²")] == ["24×8²", "40×4²", "64×4²"]
    assert "w0.1, 71.50 %, 3.10 ms measured" in svg


def test_a_skipped_layer_is_not_drawn(small_data):
    units = [["mbconv_k3_e3", SKIP, SKIP, SKIP]] * 5 + [["mbconv_k3_e3"]]
    arch = Architecture(
        space="proxylessnas", resolution_px=224, units=tuple(tuple(u) for u in units)
    )
    course = SearchCourse(name="s", points=(), arch=arch, measured_s=None, accuracy_pct=None)
    sketch = derived_sketch(replace(small_data, courses=(course,)))
    assert sketch is not None
    svg = render("derived", sketch, emulated=False).svg
    assert svg.count(">MB3<") == 6
    # Widths and strides of the paper's space.
    for size in ("24×56²", "40×28²", "80×14²", "96×14²", "192×7²", "320×7²"):
        assert size in svg


def test_blocks_of_a_users_own_are_drawn_by_name(small_data, monkeypatch):
    """Beside mobile ones in a network, and in networks that have no other."""
    monkeypatch.setitem(
        FAMILIES, r"ghost_k(\d+)", lambda m, place: make_piece(f"mbconv_k{m[1]}_e1", place)
    )
    unit = UnitLayout(
        channels=24,
        stride=2,
        min_depth=1,
        max_depth=2,
        act="relu",
        candidates=("ghost_k5", "mbconv_k3_e3"),
    )
    space = own_space(unit)
    monkeypatch.setattr(search_figures, "space_of", lambda arch: space)
    courses = tuple(
        SearchCourse(
            name=str(blocks),
            points=(),
            arch=Architecture(space="own-space", resolution_px=32, units=(blocks,)),
            measured_s=None,
            accuracy_pct=None,
        )
        for blocks in (("ghost_k5", "mbconv_k3_e3"), ("ghost_k5",))
    )
    sketch = derived_sketch(replace(small_data, courses=courses))
    assert sketch is not None
    svg = render("derived", sketch, emulated=False).svg
    assert re.findall(r">(ghost|MB3)<", svg) == ["ghost", "MB3", "ghost"]
    assert svg.count("24×8²") == 2


def test_measured_latency_is_marked_where_it_was_measured(small_data):
    sketch = latency_sketch(small_data)
    assert sketch is not None
    svg = render("latency", sketch, emulated=False).svg
    assert "latency (ms)" in svg
    assert "recompute-linear-w0.1" in svg


def test_without_searches_there_is_no_figure(small_data):
    bare = replace(small_data, courses=())
    assert [f(bare) for f in (derived_sketch, entropy_sketch, latency_sketch)] == [None] * 3
