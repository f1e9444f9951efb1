from __future__ import annotations

from dataclasses import replace

import pytest

from hwprof.interval import Interval
from hwprof.measure.records import Fingerprint
from hwprof.pareto import front_indices
from hwprof.reports import Hypervolume, VerdictCount
from hwprof.reports.contexts import (
    prediction_rows,
)
from hwprof.reports.fronts import (
    best_points,
    comparison_rows,
    drawing,
    front_points,
    picks,
    unit_texts,
)
from hwprof.reports.sentences import comparison_sentence, headline, key_figures, trust
from hwprof.reports.views import (
    drop_words,
    everywhere_rows,
    heat_map,
    is_emulated,
    kept_rows,
    ordered_blocks,
    short_block,
)
from hwprof.results import Holdout
from hwprof.space import Architecture, Slot
from hwprof.space.reduction import Drop
from hwprof.units import PERCENTILE_BY
from tests.made import block_effect


def test_heat_map_places_every_effect_in_display_units(report_data):
    heat = heat_map(report_data.effects, "latency")
    assert heat is not None
    assert heat.unit == "ms"
    blocks = [e for e in report_data.effects if e.kind == "block"]
    assert len(heat.values) == len(blocks)
    for effect in blocks:
        row = heat.slots.index(Slot(effect.unit, effect.layer))
        cell = heat.cells[row][heat.blocks.index(effect.block)]
        assert cell is not None
        assert cell.value == pytest.approx(effect.latency.value * 1e3)
        assert cell.excludes_zero == effect.latency.excludes_zero


def test_heat_map_leaves_a_hole_where_a_block_is_no_candidate():
    effects = (
        block_effect(0, 0, "a", 1e-3, 1e-4),
        block_effect(0, 0, "b", -1e-3, 2e-3),
        block_effect(0, 1, "a", 0.0, 1e-4),
    )
    heat = heat_map(effects, "latency")
    assert heat is not None
    assert heat.cells[1][1] is None
    assert heat.n_settled == 1
    assert heat_map(effects, "accuracy") is None


def test_slow_is_bad_and_accurate_is_good(report_data):
    latency, accuracy = (heat_map(report_data.effects, m) for m in ("latency", "accuracy"))
    high = Interval(1e9, 1e9, 1e9)
    assert latency is not None
    assert accuracy is not None
    assert latency.goodness(high) == -1.0
    assert accuracy.goodness(high) == 1.0


def test_blocks_keep_the_order_of_their_space_with_skip_last():
    assert ordered_blocks(["b", "skip", "a", "b", "c"]) == ("b", "a", "c", "skip")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("mbconv_k5_e6", "k5 e6"),
        ("bottleneck_e0.25", "e0.25"),
        ("nor_conv_3x3", "conv 3x3"),
        ("skip", "skip"),
    ],
)
def test_short_names(name, label):
    assert short_block(name) == label


def test_every_drop_is_a_row_with_its_numbers(report_data):
    assert [drop_words(d) for d in report_data.reduction.drops] == [
        "mbconv_k7_e3 everywhere",
        "mbconv_k7_e4 everywhere",
        "depth 4 of unit 1",
    ]
    unit, slot = Drop(rule="", block="skip", unit=1), Drop(rule="", block="skip", unit=1, layer=2)
    assert [drop_words(d) for d in (unit, slot)] == ["skip in unit 1", "skip in unit 1, layer 2"]


def test_what_remains_is_told_unit_by_unit_or_layer_by_layer(report_data):
    rows = kept_rows(report_data.reduction)
    assert [r.where for r in rows[:2]] == ["unit 0 (up to 4 layers)", "unit 1 (up to 3 layers)"]
    uneven = {**report_data.reduction.alive, Slot(0, 2): ("mbconv_k3_e3",)}
    rows = kept_rows(replace(report_data.reduction, alive=uneven))
    assert rows[2].where == "unit 0, layer 2"
    assert rows[2].blocks == ("mbconv_k3_e3",)


def test_dropped_blocks_are_marked_among_those_used_everywhere(report_data):
    rows = everywhere_rows(report_data)
    assert {r.block for r in rows if r.dropped} == {"mbconv_k7_e3", "mbconv_k7_e4"}
    values = [r.latency.value for r in rows if r.latency]
    assert values == sorted(values)


def test_finalists_stand_beside_held_out_networks(report_data):
    rows = prediction_rows(report_data)
    finalists = sum(
        len(s.finalists) for s in report_data.full_searches + report_data.reduced_searches
    )
    assert sum(r.source == "held out" for r in rows) == len(report_data.predictions)
    assert sum(r.source == "finalist" for r in rows) == finalists


def test_the_joint_front_is_the_front_of_all_points(report_data):
    points = front_points(report_data)
    assert [p.number for p in points] == list(range(1, len(points) + 1))
    expected = front_indices(
        [p.trial.latency_s for p in points], [p.trial.accuracy_pct for p in points]
    )
    assert [p.number for p in best_points(points)] == [points[i].number for i in expected]
    names = [name for name, _ in picks(best_points(points))]
    assert names == ["fastest", "balanced", "most accurate"]


def test_of_a_proxy_nothing_is_called_accurate(report_data):
    best = best_points(front_points(report_data))
    ranked = [
        replace(p, trial=replace(p.trial, accuracy_source=f"{PERCENTILE_BY}naswot")) for p in best
    ]
    assert [name for name, _ in picks(ranked)] == ["fastest", "balanced", "ranked highest"]
    mixed = picks([*ranked[:-1], best[-1]])  # the highest value is an accuracy
    assert mixed[-1][0] == "most accurate"


def test_measured_and_predicted_fronts_never_mix(report_data):
    unconfirmed = tuple(replace(s, confirmed=False) for s in report_data.full_searches)
    points = front_points(replace(report_data, full_searches=unconfirmed))
    assert {p.reduced for p in points} == {True}
    only = front_points(replace(report_data, full_searches=unconfirmed, reduced_searches=()))
    assert only
    assert all(p.measured_s is None and p.predicted_s == p.trial.latency_s for p in only)


def test_searches_that_differ_only_in_seed_are_told_apart(report_data):
    (_, nsga2) = report_data.full_searches
    data = replace(report_data, full_searches=(nsga2, replace(nsga2, seed=7)))
    labels = {p.search for p in front_points(data) if not p.reduced}
    assert labels == {"NSGA-II, full space, seed 0", "NSGA-II, full space, seed 7"}


def test_searches_of_one_seed_are_told_apart(report_data):
    """Such as one seed with two budgets: as one front their points would be joined to a zigzag."""
    (_, nsga2) = report_data.full_searches
    data = replace(report_data, full_searches=(nsga2, nsga2, replace(nsga2, seed=7)))
    labels = [p.search for p in front_points(data) if not p.reduced]
    assert list(dict.fromkeys(labels)) == [
        "NSGA-II, full space, seed 0, no. 1",
        "NSGA-II, full space, seed 0, no. 2",
        "NSGA-II, full space, seed 7",
    ]


def test_gain_compares_the_same_strategy_over_its_seeds(report_data):
    rows = {(r.strategy, r.reduced): r for r in comparison_rows(report_data)}
    assert rows["nsga2", True].gain == pytest.approx(0.252 / 0.239 - 1)
    assert rows["nsga2", False].gain is None
    second = Hypervolume(strategy="nsga2", reduced=True, value_s_pct=0.262)
    data = replace(report_data, hypervolumes=(*report_data.hypervolumes, second))
    row = next(r for r in comparison_rows(data) if (r.strategy, r.reduced) == ("nsga2", True))
    assert row.hypervolume_s_pct == pytest.approx(0.257)
    assert row.hypervolume_range == (0.252, 0.262)


def test_one_search_each_is_called_chance(report_data):
    assert "chance" in comparison_sentence(comparison_rows(report_data))
    assert comparison_sentence(()) == ""


def test_one_search_of_one_space_is_not_called_a_mean(report_data):
    def said(n_full: int, n_reduced: int) -> str:
        rows = [
            replace(r, n_searches=n_reduced if r.reduced else n_full)
            for r in comparison_rows(report_data)
        ]
        return comparison_sentence(rows)

    assert "one search only: differences of this size can be chance" in said(1, 3)
    assert said(3, 3).endswith(" Means over 3 seeds.")
    assert said(2, 3).endswith(" Means over 2 to 3 seeds.")


def test_predicted_hypervolumes_are_not_compared_with_measured_ones(report_data):
    full = tuple(replace(s, confirmed=False) for s in report_data.full_searches)
    rows = comparison_rows(replace(report_data, full_searches=full))
    assert all(r.gain is None for r in rows)


def test_measured_and_predicted_searches_of_a_strategy_are_not_averaged(report_data):
    (_, nsga2) = report_data.full_searches
    front = tuple(replace(t, latency_s=t.latency_s / 10) for t in nsga2.front)
    guessed = replace(nsga2, seed=9, confirmed=False, front=front)
    volume = Hypervolume(strategy="nsga2", reduced=False, value_s_pct=9.0, confirmed=False)
    mixed = replace(
        report_data,
        full_searches=(*report_data.full_searches, guessed),
        hypervolumes=(*report_data.hypervolumes, volume),
    )
    assert comparison_rows(mixed) == comparison_rows(report_data)


def test_a_cell_is_drawn_edge_by_edge():
    cell = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
    arch = Architecture(space="nasbench201", resolution_px=32, cell=cell)
    ((title, blocks),) = drawing(arch)
    assert title == "cell"
    assert [b.label for b in blocks] == [
        "1←0 conv 3x3",
        "2←0 none",
        "2←1 skip connect",
        "3←0 avg pool 3x3",
        "3←1 conv 1x1",
        "3←2 none",
    ]
    assert unit_texts(arch) == (("cell", cell),)


def test_height_follows_expansion_and_tone_follows_kernel():
    arch = Architecture(
        space="s", resolution_px=224, units=(("mbconv_k3_e3", "mbconv_k7_e6", "skip"),)
    )
    ((_, (small, large, skip)),) = drawing(arch)
    assert (small.height, small.tone) == (0.5, 1)
    assert (large.height, large.tone) == (1.0, 3)
    assert (skip.height, skip.tone) == (0.0, 0)


def test_resnet_decisions_beside_the_units_are_told():
    arch = Architecture(
        space="ofa-resnet50",
        resolution_px=224,
        units=(("bottleneck_e0.35",),),
        stem_depth=2,
        widths=(0, 1, 2, 2, 2, 2),
    )
    assert dict(unit_texts(arch)) == {
        "unit 0": "e0.35",
        "stem depth": "2",
        "width indices": "0, 1, 2, 2, 2, 2",
    }


@pytest.mark.parametrize(
    ("counts", "median_error", "coverage", "level"),
    [
        ({"clean": 95, "noisy": 5}, 0.02, 0.95, "good"),
        ({"clean": 80, "contaminated": 20}, 0.02, 0.95, "care"),
        ({"clean": 40, "contaminated": 60}, 0.02, 0.95, "poor"),
        ({"clean": 100}, 0.07, 0.95, "care"),
        ({"clean": 100}, 0.02, 0.80, "care"),
        ({"clean": 100}, 0.12, 0.95, "poor"),
    ],
)
def test_trust_follows_its_stated_rule(make_report, counts, median_error, coverage, level):
    holdout = Holdout(
        n=100,
        median_rel_error=median_error,
        within_5pct=0.9,
        within_10pct=0.95,
        spearman=0.99,
        coverage95=coverage,
    )
    verdicts = tuple(VerdictCount(verdict=v, n=n) for v, n in counts.items())
    assert trust(make_report(verdicts=verdicts, holdout=holdout)).level == level


def test_imported_latencies_are_not_vouched_for(bare_data):
    statement = trust(bare_data)
    assert statement.level == "unknown"
    assert "imported" in " ".join(statement.reasons)


@pytest.mark.parametrize(
    "fingerprint",
    [
        {"emulated": True},
        {"stable": {"emulated": True}, "volatile": {}},
        {"stable": {}, "volatile": {"emulated": "qemu-aarch64"}},
    ],
)
def test_emulation_is_seen_wherever_the_fingerprint_says_it(fingerprint):
    assert is_emulated(fingerprint)


def test_real_hardware_is_not_emulated(report_data):
    assert not report_data.emulated
    assert not is_emulated({"emulated": False})


def test_an_emulated_device_is_never_trusted(make_report):
    data = make_report(fingerprint=Fingerprint(stable={"device": "cpu", "emulated": True}))
    assert trust(data).level == "poor"


def test_headline_names_blocks_drops_and_networks(report_data):
    points = front_points(report_data)
    blocks, drops, networks = headline(report_data, points)
    assert "Prefer mbconv_k3_e6" in blocks
    assert "Avoid mbconv_k7_e3" in blocks
    assert "is faster and more accurate" in blocks
    assert "mbconv_k7_e3 everywhere (saves 6.46 ms)" in drops
    for _, point in picks(best_points(points)):
        assert f"#{point.number}" in networks


def test_a_cut_for_accuracy_that_costs_time_is_said_to(report_data):
    slower = replace(report_data.reduction.drops[0], latency_s=Interval(-2e-3, -3e-3, -1e-3))
    data = replace(report_data, reduction=replace(report_data.reduction, drops=(slower,)))
    said = headline(data, ())[1]
    assert said.endswith("(costs 2.00 ms).")


def test_headline_without_accuracy_speaks_of_latency_alone(report_data):
    effects = tuple(replace(e, accuracy=None) for e in report_data.effects)
    (sentence, *_) = headline(replace(report_data, effects=effects), ())
    assert sentence.startswith("Fastest block: mbconv_k3_e3")
    assert "pp" not in sentence


def test_a_latency_that_is_not_settled_is_said_not_to_be(report_data):
    wide = Interval(-9e-3, -2e-2, 1e-3)
    effects = tuple(
        replace(
            e,
            accuracy=None,
            latency=wide if (e.kind, e.block) == ("network", "mbconv_k3_e3") else e.latency,
        )
        for e in report_data.effects
    )
    (sentence, *_) = headline(replace(report_data, effects=effects), ())
    fastest, _ = sentence.split(" Slowest")
    assert fastest.startswith("Fastest block: mbconv_k3_e3")
    assert "ms (not settled) against" in fastest
    assert sentence.count("not settled") == 1


def test_a_device_that_does_not_care_is_said_not_to(report_data):
    flat = tuple(
        replace(e, latency=Interval(1e-6, -1e-3, 1e-3)) if e.kind == "network" else e
        for e in report_data.effects
    )
    (sentence, *_) = headline(replace(report_data, effects=flat), ())
    assert "no difference" in sentence


def test_nothing_measured_gives_no_answer(bare_data):
    assert headline(bare_data, ()) == ()
    assert dict(key_figures(bare_data, ()))["networks measured"] == "0"
