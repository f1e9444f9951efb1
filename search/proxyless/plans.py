"""From architecture parameters to gate plans: which options of a step run and which are probed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwprof.search.proxyless.choices import Choices, Path, Where
from hwprof.search.supernets.gates import GatePlan, Mix, straight_through
from hwprof.space import Slot


def run_plan(path: Path) -> GatePlan:
    """Return the plan that runs a drawn network and nothing else."""
    return GatePlan.single_path(path.arch)


def full_plan(path: Path, probabilities: Mapping[Where, Tensor], *, recompute: bool) -> GatePlan:
    """Return the plan that runs ``path`` and probes every other option of every decision."""
    involved = {
        where: (pick, *(i for i in range(len(probabilities[where])) if i != pick))
        for where, pick in path.picks.items()
    }
    shares = {where: probabilities[where][list(order)] for where, order in involved.items()}
    return gated_plan(path, involved, shares, recompute=recompute)


def pair_plan(
    choices: Choices, pairs: Mapping[Where, tuple[int, int]], rng: np.random.Generator
) -> tuple[GatePlan, dict[Where, Tensor]]:
    """Draw which of each pair runs; return the plan and the distribution that the pairs make.

    That distribution is the whole one, in value; its gradient follows only what a pair step may
    change: how the pair shares the probability that it has (:func:`pair_probabilities`).
    """
    shares = {w: choices.alpha[w][list(pair)].softmax(dim=0) for w, pair in pairs.items()}
    first = {w: bool(rng.random() < q[0].item()) for w, q in shares.items()}
    involved = {w: pair if first[w] else pair[::-1] for w, pair in pairs.items()}
    gates = {w: q if first[w] else q.flip(0) for w, q in shares.items()}
    path = Path(space=choices.space, picks={w: order[0] for w, order in involved.items()})
    plan = gated_plan(path, involved, gates, recompute=False)
    return plan, {w: pair_probabilities(choices.alpha[w], pair) for w, pair in pairs.items()}


def pair_probabilities(alpha: Tensor, pair: tuple[int, int]) -> Tensor:
    """Return softmax(α) (n,), differentiable only in how a pair divides its probability."""
    index = torch.tensor(pair)
    whole = alpha.detach().softmax(dim=0)
    shared = whole[index].sum() * alpha[index].softmax(dim=0)
    return whole.index_put((index,), shared)


def gated_plan(
    path: Path,
    involved: Mapping[Where, Sequence[int]],
    shares: Mapping[Where, Tensor],
    *,
    recompute: bool,
) -> GatePlan:
    """Return the plan that runs ``path`` and probes what else is involved, with one-hot gates.

    Args:
        path: what runs.
        involved: the options of every decision, the one that runs first.
        shares: their differentiable probabilities, in the same order.
        recompute: whether probes wait for the backward pass.
    """
    space = path.space
    blocks: dict[Slot, Mix[str]] = {}
    for slot in space.slots:
        # Behind the layers that run no gate gets a gradient: a probe of depth needs the block.
        if slot in involved and path.holds(slot):
            order = [space.choices(slot)[i] for i in involved[slot]]
            blocks[slot] = _mix(order, shares[slot], recompute)
        else:
            blocks[slot] = Mix(run=(path.block(slot),))
    depths: dict[int, Mix[int]] = {}
    for unit in range(space.n_units):
        if unit in involved:
            lengths = [space.depths(unit)[i] for i in involved[unit]]
            depths[unit] = _mix(lengths, shares[unit], recompute)
    factors = {
        factor.name: _mix([factor.levels[i] for i in involved[factor]], shares[factor], recompute)
        if factor in involved
        else Mix(run=(path.level(factor),))
        for factor in space.factors
    }
    return GatePlan(blocks=blocks, depths=depths, factors=factors)


def _mix(options: Sequence[Any], shares: Tensor, recompute: bool) -> Mix[Any]:
    return Mix(
        run=(options[0],),
        probe=tuple(options[1:]),
        gate=straight_through(shares, 0),
        recompute=recompute,
    )


def pair_update(
    choices: Choices, pairs: Mapping[Where, tuple[int, int]], update: Callable[[], object]
) -> None:
    """Update the logits, then shift every pair so that the other options keep their probabilities.

    The shift is logsumexp(α of the pair, new) − logsumexp(…, old): the pair's exponentials sum
    to what they did, in a form that cannot overflow.
    """
    indices = {where: torch.tensor(pair) for where, pair in pairs.items()}
    with torch.no_grad():
        before = {w: choices.alpha[w][index].logsumexp(dim=0) for w, index in indices.items()}
    update()
    with torch.no_grad():
        for where, index in indices.items():
            alpha = choices.alpha[where]
            alpha[index] -= alpha[index].logsumexp(dim=0) - before[where]
