"""How many networks give the half-width that is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hwprof import api
from hwprof.errors import PlanError
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.pinning import random_codes
from hwprof.estimate.precision import (
    PrecisionPlan,
    allowing_for_fit,
    hardest_slot,
    networks_for_half_width,
    pilot_size,
    plan_precision,
)
from hwprof.results import Sample
from hwprof.space import Slot, get_space
from tests.core.pinned_truth import additive, design_of, tiny_space


def test_half_width_formula() -> None:
    """N = 8 z² σ²(1 − R²)/(P h²) for nine candidates (block-profiling method)."""
    n = networks_for_half_width(residual_sd=0.8, half_width=0.1, n_candidates=9, presence=1 / 3)
    assert n == pytest.approx(8 * 1.96**2 * 0.8**2 / (1 / 3 * 0.1**2), rel=1e-4)
    slot, presence = hardest_slot(get_space("ofa-mbv3-w1.2"))
    assert slot.layer == 3
    assert presence == pytest.approx(1 / 3)
    slot, presence = hardest_slot(get_space("nasbench201"))
    assert presence == 1.0


@pytest.mark.parametrize(("wanted", "p"), [(10.0, 52), (300.0, 171), (1e6, 171)])
def test_networks_that_the_fit_uses_up(wanted: float, p: int) -> None:
    n = allowing_for_fit(wanted, p)
    assert n / (n - p) ** 2 <= 1 / wanted < (n - 1) / (n - 1 - p) ** 2
    assert n <= wanted + 2 * p + 1


def test_the_planned_number_of_networks_gives_the_half_width() -> None:
    space = get_space("mobile-mini")
    design = design_of("mobile-mini")
    coefficients, rng = additive(design), np.random.default_rng(6)
    ratios = []
    for _ in range(12):
        codes = random_codes(design, rng, 3000)
        y = design.predictions(coefficients, codes) + rng.normal(0.0, 1e-3, len(codes))
        archs = [space.decode(row) for row in codes[:900]]
        samples = [Sample(arch=a, latency_s=float(v)) for a, v in zip(archs, y, strict=False)]
        plan = plan_precision(space, samples[: pilot_size(space)], 0.01)
        assert plan.n_networks < len(samples)
        found = fit_friendliness(space, samples[: plan.n_networks])
        widths = [
            e.latency.half_width
            for e in found.of_kind("block")
            if e.latency is not None and (e.unit, e.layer) == tuple(plan.slot)
        ]
        ratios.append(np.mean(widths) / plan.half_width_s)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)


def test_a_share_is_asked_for() -> None:
    with pytest.raises(PlanError, match="expected a share such as 1%"):
        plan_precision(tiny_space(), [], 1.5)


def test_a_share_is_asked_for_before_the_pilot_is_measured(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="expected a share such as 1%"):
        api.profile(space="mobile-mini", device="null", out=tmp_path / "run", half_width=1.0)
    assert not (tmp_path / "run").exists()


def test_networks_that_fail_do_not_count(tmp_path: Path) -> None:
    """A quarter of them is refused: as many more are tried as it takes to have the number."""
    fault = {"label": "network [0-3]*", "stage": "supports", "kind": "unsupported"}
    found = api.profile(
        space="mobile-mini",
        device="null",
        out=tmp_path / "run",
        half_width=2.5e-4,
        isolated=False,
        script=json.dumps({"faults": [fault]}),
    )
    plan = found.precision
    assert plan is not None
    assert plan.n_networks > pilot_size(get_space("mobile-mini"))
    assert found.n_failed > 0.15 * found.n_done
    assert found.n_done == pytest.approx(plan.n_networks, rel=0.08)


def test_the_plan_is_said_in_units_that_people_read() -> None:
    plan = PrecisionPlan(
        n_networks=400,
        n_pilot=100,
        n_coefficients=52,
        half_width_s=15e-3,
        mean_latency_s=1.5,
        residual_sd_s=40e-6,
        slot=Slot(0, 2),
        n_candidates=6,
        presence=1 / 3,
    )
    assert str(plan) == (
        "400 networks give every slot effect a 95 % interval of ±15.0 ms (1.00 % of the mean "
        "latency, 1.50 s): the residual sd over 100 networks is 40.0 µs, and u0.l2 with 6 "
        "candidates is there in 33 % of the networks"
    )
