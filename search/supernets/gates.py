"""Gates: which candidates of a decision run, and how their outputs become one.

One form serves every supernet method: the output is Σ_run g·o(x) + Σ_probe g·sg(o(x)), where sg
stops gradients. Single path: one candidate runs, without a gate. DARTS: all run, the gates are a
softmax. ProxylessNAS (Cai et al., ICLR 2019): one runs, others are probed, and the gates are
one-hot in value with the gradient of a softmax (:func:`straight_through`), so that autograd gives
∂L/∂α_i = Σ_j ∂L/∂g_j · p_j (δ_ij − p_i), the paper's equation 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from hwprof.space import SKIP, Architecture, Slot, space_of

Option = TypeVar("Option", bound=str | int)
Apply = Callable[[Option, Tensor], Tensor]
"""Runs one option of a decision on an input."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Mix(Generic[Option]):
    """What becomes of the options of one decision.

    Attributes:
        run: options that run and train; their sum, weighted, is the output.
        probe: options that run only for the gradient of their gates: no gradient reaches their
            weights or their input. They need one option that runs, and gates that are one-hot
            on it, with a gradient that sums to zero, as :func:`straight_through` makes them.
        gate: one weight for each of ``run``, then of ``probe``; None weighs all by one.
        recompute: run the probes in the backward pass, so that nothing of theirs is kept in
            memory.
    """

    run: tuple[Option, ...]
    probe: tuple[Option, ...] = ()
    gate: Tensor | None = None
    recompute: bool = False

    @property
    def options(self) -> tuple[Option, ...]:
        """All options that take part, in the order of the gates."""
        return (*self.run, *self.probe)


@dataclass(frozen=True, kw_only=True)
class GatePlan:
    """What becomes of every decision of a supernet.

    A slot that ``blocks`` does not name hands its input on. A unit that ``depths`` does not name
    runs all its slots that are named; one that it names is a mix of its prefixes: an option is
    the number of layers. ``factors`` holds the levels of every factor of the space, by its name.
    """

    blocks: Mapping[Slot, Mix[str]]
    depths: Mapping[int, Mix[int]] = field(default_factory=dict)
    factors: Mapping[str, Mix[int]] = field(default_factory=dict)

    @classmethod
    def single_path(cls, arch: Architecture) -> GatePlan:
        """Return the plan that runs exactly the blocks of ``arch``, at its levels."""
        factors: dict[str, Mix[int]] = {}
        # No other space with slots has factors, and none of a user's own.
        if arch.widths is not None:
            space = space_of(arch)
            levels = zip(space.factors, space.factor_levels(arch), strict=True)
            factors = {factor.name: Mix(run=(level,)) for factor, level in levels}
        return cls(
            factors=factors,
            blocks={
                Slot(unit, layer): Mix(run=(block,))
                for unit, blocks in enumerate(arch.units)
                for layer, block in enumerate(blocks)
                if block != SKIP
            },
        )


def mixed(x: Tensor, mix: Mix[Option], apply: Apply[Option]) -> Tensor:
    """Return the mixed output of a decision for the input ``x`` [N, C, H, W]."""
    if mix.gate is None:
        return _sum([apply(option, x) for option in mix.run])
    gate = mix.gate.to(x.device, torch.promote_types(x.dtype, torch.float32))
    if mix.probe:
        y = apply(mix.run[0], x)
        if not torch.is_grad_enabled():
            # Without gradients probes say nothing.
            return y
        probes = [partial(apply, option) for option in mix.probe]
        output: Tensor = _Probed.apply(y, x.detach(), gate, probes, mix.recompute)  # type: ignore[no-untyped-call]
        return output
    return _sum([g * apply(o, x) for g, o in zip(gate, mix.run, strict=True)])


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def straight_through(probabilities: Tensor, active: int) -> Tensor:
    """Return gates that are one-hot at ``active`` with the gradient of ``probabilities``.

    Args:
        probabilities: shape (n,), differentiable.
        active: index of the option that runs.
    """
    hot = torch.zeros_like(probabilities)
    hot[active] = 1.0
    # First the difference, which is exactly zero: the gates are exactly one-hot.
    return hot + (probabilities - probabilities.detach())


class _Probed(torch.autograd.Function):
    """Hands the output y of what runs on; probes o give their gates the gradient ⟨∂L/∂y, o − y⟩.

    That is ∂L/∂g of every gate less that of the one that runs: behind a softmax a common amount
    makes no difference, and one tensor a probe is kept instead of o and y. With ``recompute`` only
    input and output are kept. What probes compute in the backward pass must be what they would
    have computed now: keep :func:`frozen` open until it is over.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        x: Tensor,
        gate: Tensor,
        probes: Sequence[Callable[[Tensor], Tensor]],
        recompute: bool,
    ) -> Tensor:
        if recompute:
            ctx.save_for_backward(y, x)
            ctx.probes = probes
        else:
            ctx.save_for_backward(*(probe(x) - y for probe in probes))
            ctx.probes = None
        ctx.gate_dtype = gate.dtype
        kind = x.device.type
        # Backward may run in another thread, which does not know of the caller's autocast.
        ctx.autocast = partial(
            torch.autocast,
            kind,
            dtype=torch.get_autocast_dtype(kind),
            enabled=torch.is_autocast_enabled(kind),
        )
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        wide = ctx.gate_dtype

        def differences() -> Iterator[Tensor]:
            if ctx.probes is None:
                yield from ctx.saved_tensors
                return
            y, x = ctx.saved_tensors
            for probe in ctx.probes:
                yield probe(x) - y

        with torch.no_grad(), ctx.autocast():
            found = [(grad.to(wide) * d.to(wide)).sum() for d in differences()]
        return grad, None, torch.stack([torch.zeros_like(found[0]), *found]), None, None


def norms_of(modules: Iterable[nn.Module]) -> list[nn.BatchNorm2d]:
    """Return every batch norm inside ``modules``."""
    return [n for module in modules for n in module.modules() if isinstance(n, nn.BatchNorm2d)]


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Freeze weights and batch norm statistics, as architecture steps need it.

    Inside, norms use the statistics of the batch, as in training, without recording them, and no
    parameter takes a gradient. Restores both afterwards.
    """
    norms = norms_of([module])
    parameters = [p for p in module.parameters() if p.requires_grad]
    tracking = [n.track_running_stats for n in norms]
    modes = [n.training for n in norms]
    try:
        for norm in norms:
            norm.train()
            norm.track_running_stats = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for norm, tracked, mode in zip(norms, tracking, modes, strict=True):
            norm.track_running_stats = tracked
            norm.train(mode)
        for parameter in parameters:
            parameter.requires_grad_(True)
