"""Drawing deep networks more often: the law, what it gains, and that effects keep their meaning."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hwprof import api
from hwprof.campaign import plan_campaign, sample_networks
from hwprof.errors import IncompatibleRunError, PlanError
from hwprof.estimate.favouring import acceptance, depth_shares, presence
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.precision import hardest_slot
from hwprof.measure.records import DeviceOptions, DeviceRef, plan_for
from hwprof.results import Sample
from hwprof.space import Slot, get_space
from hwprof.store import Run
from tests.core.pinned_truth import additive, design_of, tiny_space

NAME = "ofa-mbv3-w1.2"
SPACE = get_space(NAME)


def test_the_law_is_that_of_the_method() -> None:
    """.2 .2 .6 of depths 2, 3, 4 (block-profiling method, proposed estimator)."""
    assert depth_shares(SPACE, 0) == pytest.approx({2: 0.2, 3: 0.2, 4: 0.6})
    there = [presence(SPACE, Slot(0, layer), favour_depth=True) for layer in range(4)]
    assert there == pytest.approx([1.0, 1.0, 0.8, 0.6])
    assert presence(SPACE, Slot(0, 3), favour_depth=False) == pytest.approx(1 / 3)
    slot, share = hardest_slot(SPACE, favour_depth=True)
    assert slot.layer == 3
    assert share == pytest.approx(0.6)
    cells = get_space("nasbench201")
    assert acceptance(cells, cells.sample(np.random.default_rng(0))) == 1.0
    assert presence(cells, cells.slots[0], favour_depth=True) == 1.0


def test_networks_are_drawn_by_that_law() -> None:
    n = 600
    archs = sample_networks(SPACE, 0, n, favour_depth=True)
    for unit in range(SPACE.n_units):
        found = Counter(len(a.units[unit]) for a in archs)
        for depth, share in depth_shares(SPACE, unit).items():
            sd = np.sqrt(share * (1.0 - share) / n)
            assert found[depth] / n == pytest.approx(share, abs=4.5 * sd)
    first = Counter(a.units[0][0] for a in archs)
    assert len(first) == 9
    assert max(first.values()) < 2 * n / 9


@pytest.mark.parametrize("noise_s", [0.0, 1e-3])
def test_last_layers_become_known_better_and_mean_the_same(noise_s: float) -> None:
    design = design_of(NAME)
    truth = design.expansion @ additive(design)
    widths = {}
    for favour_depth in (False, True):
        rng = np.random.default_rng(1)
        archs = sample_networks(SPACE, 0, 700, favour_depth=favour_depth)
        y = design.predictions(additive(design), design.encode(archs))
        y = y + noise_s * rng.standard_normal(len(y))
        samples = [Sample(arch=a, latency_s=float(v)) for a, v in zip(archs, y, strict=True)]
        found = fit_friendliness(SPACE, samples)
        if noise_s == 0.0:
            np.testing.assert_allclose(found.latency.values, truth, atol=1e-12)
            assert found.mean_latency is not None
            assert found.mean_latency.value == pytest.approx(0.04)
        widths[favour_depth] = np.mean(
            [e.latency.half_width for e in found.of_kind("block") if e.latency and e.layer == 3]
        )
    if noise_s > 0.0:
        # Variance goes with 1/P: √(1/3 / 0.6) = 0.745.
        assert widths[True] / widths[False] == pytest.approx(0.745, rel=0.1)


def test_a_campaign_says_so_and_goes_on_alike(tmp_path: Path) -> None:
    few = plan_campaign(SPACE, n_networks=4, isolated=False, favour_depth=True)
    more = plan_campaign(SPACE, n_networks=9, isolated=False, favour_depth=True)
    assert few.networks == more.networks[:4]
    device = DeviceRef(name="null", factory="", options=DeviceOptions())
    assert few.request(device, plan_for("quick"))["favour_depth"] is True
    usual = plan_campaign(SPACE, n_networks=4, isolated=False)
    assert "favour_depth" not in usual.request(device, plan_for("quick"))
    with pytest.raises(PlanError, match="leave out --favour-depth"):
        plan_campaign(SPACE, n_networks=4, design="pinned", favour_depth=True)
    out = tmp_path / "run"
    api.profile(
        space=tiny_space(), out=out, device="null", networks=5, isolated=False, favour_depth=True
    )
    with Run.open(out) as run:
        assert run.request["favour_depth"] is True
    with pytest.raises(IncompatibleRunError, match="favour_depth"):
        api.profile(space=tiny_space(), out=out, device="null", networks=5, isolated=False)
