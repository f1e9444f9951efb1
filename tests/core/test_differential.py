"""With a layer less without it: pairs that differ in one block, and exact costs where additive."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwprof import api
from hwprof.api.contexts import differential_costs
from hwprof.differential import differential_networks, differential_pairs
from hwprof.errors import SpaceError
from hwprof.graph import piece_graph
from hwprof.space import SKIP, Slot, get_space


@pytest.mark.parametrize("name", ["mobile-mini", "proxylessnas", "ofa-mbv3-w1.0", "ofa-resnet50"])
def test_pairs_differ_in_one_layer(name: str) -> None:
    space = get_space(name)
    pairs = differential_pairs(space, 0)
    optional = {
        slot
        for slot in space.slots
        if SKIP in space.choices(slot) or slot.layer >= space.min_depth[slot.unit]
    }
    assert {pair.slot for pair in pairs} == optional
    for pair in pairs:
        space.validate(pair.with_it)
        space.validate(pair.without)
        differs = space.encode(pair.with_it) != space.encode(pair.without)
        assert np.flatnonzero(differs).tolist() == [space.slots.index(pair.slot)]
    assert len(pairs) == sum(len(set(space.choices(s)) - {SKIP}) for s in optional)
    assert differential_networks(space, 0) == differential_networks(space, 0)


def test_a_space_without_optional_layers_has_none() -> None:
    with pytest.raises(SpaceError, match="no layer of nasbench201 may be absent"):
        differential_pairs(get_space("nasbench201"), 0)


def test_a_space_without_optional_layers_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    with pytest.raises(SpaceError, match="leave out --differential"):
        api.profile(
            space="nasbench201", device="null", out=tmp_path / "run", networks=2, differential=True
        )
    assert not (tmp_path / "run").exists()


def test_differences_are_the_layer_s_cost(tmp_path: Path) -> None:
    full = get_space("mobile-mini")
    space = full.restrict({s: full.choices(s)[:2] for s in full.slots}, (2, 1, 1))
    per_operator = 1e-5
    script = json.dumps(
        {
            "latency": {"base_s": 1e-4, "per_operator_s": per_operator},
            "noise": {"call": 0.0, "worker": 0.0},
        }
    )
    api.profile(
        space=space,
        device="null",
        out=tmp_path / "run",
        networks=20,
        differential=True,
        script=script,
    )
    found = differential_costs(tmp_path / "run")
    slot = Slot(0, 1)
    assert set(found) == {(slot, block) for block in space.choices(slot)}
    for (place, block), interval in found.items():
        piece = space.block_pieces(place, block)[0][0]
        expected = per_operator * len(piece_graph(piece).nodes)
        assert interval.value == pytest.approx(expected, rel=0.02)
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    api.report(tmp_path / "run", out=tmp_path / "page")
    table = pd.read_csv(next((tmp_path / "page").rglob("isolated_vs_context.csv")))
    known = table[(table["unit"] == 0) & (table["layer"] == 1)]
    assert known["differential_s"].to_numpy() == pytest.approx(
        known["regressed_s"].to_numpy(), rel=0.05
    )
    assert table["differential_s"].notna().sum() == len(known)
