"""Parts add up to the whole, and what was timed beside them stands beside."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from hwprof.errors import PlanError
from hwprof.graph import network_graph
from hwprof.measure.records import Measurement
from hwprof.parts.assembly import assemble, is_same_machine, join_parts, layout_s
from hwprof.parts.comparison import compare_parts, comparison, difference, without
from hwprof.parts.grouping import group_operators, part_times
from hwprof.parts.records import PartsResult
from hwprof.parts.tracing import fastest
from hwprof.protocols import OpTrace
from hwprof.space import Slot, get_space
from hwprof.workload import Workload, distinct
from tests.core.operators import chain, onnx_file, op, trace
from tests.made import measurement


def test_processes_are_chosen_by_what_was_measured() -> None:
    runs = [
        OpTrace(ops=(op("a", "Conv", t),), outside_s=0.0, traced_s=traced, untraced_s=1.0)
        for t, traced in ((5.0, 3.0), (1.0, 4.0), (6.0, 2.0))
    ]
    assert [t.traced_s for t in fastest(runs)] == [2.0, 3.0]


def test_parts_are_joined_by_name_not_by_order() -> None:
    nodes = chain(("/a/Conv", "Conv"), ("/b/Conv", "Conv"))
    first = trace(op("/a/Conv", time_s=1.0), op("/b/Conv", time_s=3.0))
    second = trace(op("/b/Conv", time_s=5.0), op("/a/Conv", time_s=2.0), outside_s=1.5)
    joined = join_parts([part_times(t, group_operators(t.ops, nodes), {}) for t in (first, second)])
    assert {p.part: p.traced_s for p in joined} == {
        "/a/Conv": 1.5,
        "/b/Conv": 4.0,
        "start and end": 1.0,
    }
    assert math.fsum(p.share for p in joined) == pytest.approx(1.0)


def measured(workload: Workload, level_s: float = 12.0, half_s: float = 0.3) -> Measurement:
    return measurement(workload, level_s, (level_s - half_s, level_s + half_s))


def network(space: str = "mobile-mini", seed: int = 0) -> Workload:
    return Workload.network(get_space(space).sample(np.random.default_rng(seed)))


def traced_network(workload: Workload) -> OpTrace:
    assert workload.arch is not None
    graph = network_graph(get_space(workload.arch.space), workload.arch)
    ops = [op(n.name, n.op, 0.1) for n in graph.live_nodes]
    ops.insert(1, op("ReorderOutput", "ReorderOutput", 0.4))
    return trace(*ops, outside_s=0.2)


def test_result_says_how_well_the_parts_add_up() -> None:
    workload = network()
    run = traced_network(workload)
    found = assemble(measured(workload), [run, run])
    total = sum(o.time_s for o in run.ops) + 0.2
    assert found.sum_s == pytest.approx(total)
    assert found.residual_pct == pytest.approx(100 * (total / 12.0 - 1))
    assert found.residual_untraced_pct == pytest.approx(100 * (total / 6.0 - 1))
    assert found.is_reconciled == (abs(total / 12.0 - 1) <= 0.03)
    assert found.slowdown == 1.5
    assert found.time_of("layout") == pytest.approx(0.4)
    assert layout_s(workload, [run]) == pytest.approx(0.4)
    frame = found.to_frame()
    assert len(frame) == len(found.parts)
    assert frame.loc[frame.kind == "block", "traced_s"].sum() == pytest.approx(total - 0.6)
    assert "mbconv" in found._repr_html_()
    data = found.to_json()
    assert data["level_s"] == 12.0
    assert data["reconciliation"]["limit_pct"] == 3.0
    assert [p["part"] for p in data["parts"]] == [p.part for p in found.parts]


@pytest.mark.parametrize(
    ("level_s", "same"), [(6.0, True), (6.11, True), (6.2, False), (5.8, False)]
)
def test_a_level_from_another_mode_of_the_machine_is_noticed(level_s: float, same: bool) -> None:
    workload = network()
    run = traced_network(workload)
    assert run.untraced_s == 6.0
    slow = replace(run, traced_s=2 * run.traced_s, untraced_s=2 * run.untraced_s)
    # The slower half of the processes does not count.
    assert is_same_machine(measured(workload, level_s), [run, run, slow, slow]) is same


def test_every_block_of_the_network_is_a_part() -> None:
    workload = network()
    assert workload.arch is not None
    found = assemble(measured(workload), [traced_network(workload)])
    space = get_space(workload.arch.space)
    expected = [p.scope for p in space.pieces(workload.arch)]
    assert [p.part for p in found.parts if p.kind == "block"] == expected
    blocks = {p.part: p.block for p in found.parts if p.kind == "block"}
    assert blocks == {p.scope: p.block for p in space.pieces(workload.arch)}


def test_optional_layers_are_left_out() -> None:
    deep = get_space("mobile-mini")
    arch = deep.sample(np.random.default_rng(0))
    for unit, blocks in enumerate(arch.units):
        last = Slot(unit, len(blocks) - 1)
        shorter = without(deep, arch, last)
        if len(blocks) - 1 in deep.depths(unit):
            assert shorter is not None
            assert shorter.units[unit] == blocks[:-1]
            deep.validate(shorter)
        else:
            assert shorter is None
        if len(blocks) > 1:
            assert without(deep, arch, Slot(unit, 0)) is None
    skipping = get_space("proxylessnas")
    net = skipping.sample(np.random.default_rng(3))
    assert without(skipping, net, Slot(0, 0)) is None
    left_out = without(skipping, net, Slot(0, 1))
    assert left_out is not None
    assert left_out.units[0][1] == "skip"
    skipping.validate(left_out)
    cell = get_space("nasbench201")
    assert without(cell, cell.sample(np.random.default_rng(0)), Slot(0, 0)) is None


def compared(workload: Workload) -> PartsResult:
    beside = comparison(workload)
    found = assemble(measured(workload), [traced_network(workload)])
    results = {workload.key: found.measurement}
    results |= {w.key: measured(w, 11.0, 0.4) for w in beside.without.values()}
    results |= {w.key: measured(w, 2.0, 0.1) for w in beside.alone.values()}
    return compare_parts(found, beside, results, {w.key: 0.5 for w in beside.alone.values()})


def test_what_was_timed_beside_stands_beside() -> None:
    workload = network()
    beside = comparison(workload)
    found = compared(workload)
    for part in found.parts:
        if part.kind != "block":
            assert part.isolated_hot_s is None
            continue
        assert part.isolated_hot_s is not None
        assert part.isolated_hot_s.value == 2.0
        assert part.isolated_layout_s == 0.5
        assert (part.differential_s is not None) == (part.part in beside.without)
        if part.differential_s is not None:
            assert part.differential_s.value == pytest.approx(1.0)
            assert part.differential_s.half_width == pytest.approx(0.5)  # hypot(0.3, 0.4)
    assert beside.without
    assert len(distinct(beside.workloads)) == len(beside.workloads)


def on_workers(found: Measurement, *workers: str) -> Measurement:
    """Return the measurement with an interval of its own against those of the same workers."""
    half_s = 0.5 * found.half_width_s
    beside = [found.level_s - half_s, found.level_s + half_s]
    told = {"worker_levels_s": dict.fromkeys(workers, found.level_s), "beside_ci95_s": beside}
    return replace(found, telemetry=told)


@pytest.mark.parametrize(
    ("workers", "half_width_s"), [(("w0", "w1"), 0.25), (("w1", "w7"), 0.25), (("w2", "w3"), 0.5)]
)
def test_a_difference_of_two_groups_holds_what_sessions_differ_by(
    workers: tuple[str, ...], half_width_s: float
) -> None:
    more = on_workers(measured(network(), 12.0, 0.3), "w0", "w1")
    less = on_workers(measured(network(seed=1), 11.0, 0.4), *workers)
    found = difference(more, less)
    assert found.value == pytest.approx(1.0)
    assert found.half_width == pytest.approx(half_width_s)


def test_a_difference_is_to_the_network_that_was_timed_beside() -> None:
    workload = network()
    beside = comparison(workload)
    # The machine was slow; measured once more, the network was faster than without a block before.
    shown = assemble(measured(workload, 10.0), [traced_network(workload)])
    results = {w.key: measured(w, 11.0) for w in beside.without.values()}
    found = compare_parts(shown, beside, results | {workload.key: measured(workload, 12.0)}, {})
    differences = [p.differential_s.value for p in found.parts if p.differential_s is not None]
    assert found.measurement.level_s == 10.0
    assert differences == pytest.approx([1.0] * len(beside.without))


def test_what_failed_stays_empty() -> None:
    workload = network()
    found = assemble(measured(workload), [traced_network(workload)])
    kept = compare_parts(found, comparison(workload), {}, {})
    assert all(p.isolated_hot_s is None and p.differential_s is None for p in kept.parts)


def test_models_of_the_users_own_have_no_blocks_to_run_alone(tmp_path: Path) -> None:
    path = onnx_file(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], "y")
    with pytest.raises(PlanError, match="--isolated"):
        comparison(Workload.from_file(path))
