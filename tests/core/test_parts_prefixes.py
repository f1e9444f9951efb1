"""Blocks in context by growing prefixes of a network."""

from __future__ import annotations

import json

import numpy as np
import pytest

import hwprof
from hwprof.errors import PlanError
from hwprof.graph import network_graph, piece_graph
from hwprof.parts.prefixes import prefixes
from hwprof.space import get_space, space_names
from hwprof.space.lookup import piece_from_json
from hwprof.space.pieces import SkipPiece
from hwprof.workload import Workload


@pytest.mark.parametrize("name", space_names())
def test_the_last_prefix_but_one_lacks_only_the_head(name: str) -> None:
    space = get_space(name)
    arch = space.sample(np.random.default_rng(0))
    cuts = prefixes(Workload.network(arch))
    assert cuts[-1].workload.arch == arch
    head = space.pieces(arch)[-1].piece
    before = cuts[-2].workload.piece
    assert before is not None
    whole = network_graph(space, arch)
    assert piece_graph(before).macs + piece_graph(head).macs == whole.macs
    parts = [p.scope for p in space.pieces(arch) if not isinstance(p.piece, SkipPiece)]
    assert [cut.part for cut in cuts] == parts
    assert piece_from_json(json.loads(json.dumps(before.to_json()))) == before


def test_what_a_block_adds_is_found_on_a_device_without_a_trace() -> None:
    arch = get_space("mobile-mini").sample(np.random.default_rng(0))
    cuts = prefixes(Workload.network(arch))
    upto_s = {cut.workload.label: 1e-3 + 2e-4 * n for n, cut in enumerate(cuts)}
    script = json.dumps({"latency": {"labels": upto_s}, "noise": {"call": 0.0, "worker": 0.0}})
    costs = hwprof.bench_prefixes(arch, device="null", preset="quick", script=script)
    assert [c.part for c in costs] == [cut.part for cut in cuts]
    assert costs[0].added_s.value == pytest.approx(1e-3, rel=1e-3)
    assert [c.added_s.value for c in costs[1:]] == pytest.approx([2e-4] * (len(cuts) - 1), rel=0.02)
    rounding = 1e-12
    for cost in costs:
        assert cost.added_s.lo - rounding <= cost.added_s.value <= cost.added_s.hi + rounding


def test_a_model_of_the_users_own_is_not_cut() -> None:
    with pytest.raises(PlanError, match="--prefixes takes a network"):
        prefixes(Workload(role="model", label="m.onnx", path="/m.onnx"))
