"""Penalties: values and derivatives by hand, what they refuse."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from hwprof.errors import PlanError
from hwprof.search.proxyless.penalties import Penalty, PenaltyKind

CE, E, T = 2.0, 0.012, 0.010


def loss_and_gradients(penalty: Penalty) -> tuple[float, float, float]:
    """Return the loss and its derivatives by cross-entropy and by expected latency."""
    ce, e = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (CE, E))
    loss = penalty(ce, e)
    by_ce, by_e = torch.autograd.grad(loss, [ce, e], allow_unused=True, materialize_grads=True)
    return loss.item(), by_ce.item(), by_e.item()


BY_HAND = {
    "linear": (CE + 0.3 * 0.2, 1.0, 0.3 / T),
    "power": (CE * 1.2**0.3, 1.2**0.3, CE * 0.3 * 1.2**0.3 / E),
    "hinge": (CE + 0.3 * 0.2, 1.0, 0.3 / T),
    "target": (CE + 0.3 * 0.2, 1.0, 0.3 / T),
    "legacy_mul_log": (
        CE * (math.log(12) / math.log(10)) ** 0.3,
        (math.log(12) / math.log(10)) ** 0.3,
        CE * (math.log(12) / math.log(10)) ** 0.3 * 0.3 / math.log(12) / E,
    ),
}


@pytest.mark.parametrize("kind", get_args(PenaltyKind))
def test_value_and_derivatives(kind: PenaltyKind):
    found = loss_and_gradients(Penalty(kind=kind, weight=0.3, target_s=T))
    assert found == pytest.approx(BY_HAND[kind], rel=1e-12)


def test_below_its_ceiling_a_hinge_is_free():
    found = loss_and_gradients(Penalty(kind="hinge", weight=0.3, target_s=0.020))
    assert found == (CE, 1.0, 0.0)


def test_power_does_not_depend_on_the_unit():
    """The elasticity ∂ ln L / ∂ ln E is the exponent, whatever the latency."""
    for scale in (1e-3, 1.0, 1e3):
        ce = torch.tensor(CE, dtype=torch.float64)
        e = torch.tensor(E * scale, dtype=torch.float64, requires_grad=True)
        loss = Penalty(kind="power", weight=0.07, target_s=T * scale)(ce, e)
        (by_e,) = torch.autograd.grad(loss, e)
        assert (by_e * e / loss).item() == pytest.approx(0.07, rel=1e-12)


def test_a_weight_of_zero_is_blind_to_latency():
    for kind in get_args(PenaltyKind):
        loss, by_ce, by_e = loss_and_gradients(Penalty(kind=kind, weight=0.0, target_s=T))
        assert (loss, by_ce, by_e) == (CE, 1.0, 0.0)


def test_legacy_refuses_up_to_one_ms():
    with pytest.raises(PlanError, match=r"reference latency is 1 ms.*--penalty power"):
        Penalty(kind="legacy_mul_log", weight=0.3, target_s=1e-3)
    penalty = Penalty(kind="legacy_mul_log", weight=0.3, target_s=2e-3)
    with pytest.raises(PlanError, match=r"expected latency is 0.5 ms"):
        penalty(torch.tensor(1.0), torch.tensor(0.5e-3, dtype=torch.float64))


@pytest.mark.parametrize(("weight", "target_s"), [(-0.1, T), (math.nan, T), (0.1, 0.0), (0.1, -1)])
def test_refuses_numbers_without_meaning(weight: float, target_s: float):
    with pytest.raises(PlanError):
        Penalty(weight=weight, target_s=target_s)
