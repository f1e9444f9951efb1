"""How latency enters the loss of an architecture step.

Every penalty takes the cross-entropy and the expected latency, both differentiable scalars, and
returns the loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from hwprof.errors import PlanError

PenaltyKind = Literal["linear", "power", "hinge", "target", "legacy_mul_log"]


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """A loss of cross-entropy CE and expected latency E with a reference T = ``target_s``.

    - ``linear``: CE + λ (E − T) / T, the paper's form (its released code: λ = 0.1).
    - ``power``: CE · (E / T)^λ; no unit enters.
    - ``hinge``: CE + λ · max(0, (E − T) / T); T is a ceiling below which latency is free.
    - ``target``: ``linear``, with a weight that adapts until E ≤ T, and a network derived near T
      (:mod:`hwprof.search.proxyless.target`); λ is what it starts from.
    - ``legacy_mul_log``: CE · (ln E / ln T)^λ, E and T in ms: the default of the released code
      (λ = 0.3; its factor before CE changes nothing under Adam without weight decay). Its pull
      depends on the unit, and E of at most 1 ms has no meaning.

    Attributes:
        weight: λ; 0 is blind to latency.
    """

    kind: PenaltyKind = "linear"
    weight: float
    target_s: float

    def __post_init__(self) -> None:
        if self.kind not in get_args(PenaltyKind):
            raise PlanError(
                f"unknown penalty {self.kind!r}; expected one of {', '.join(get_args(PenaltyKind))}"
            )
        if not (math.isfinite(self.weight) and self.weight >= 0.0):
            raise PlanError(f"the latency weight is {self.weight}; expected a number from 0 up")
        if not (math.isfinite(self.target_s) and self.target_s > 0.0):
            raise PlanError(
                f"the reference latency is {self.target_s} s; expected more than 0: name one "
                "with --target-ms"
            )
        if self.kind == "legacy_mul_log":
            _require_above_1_ms(self.target_s, "reference")

    def __call__(self, cross_entropy: Tensor, expected_s: Tensor) -> Tensor:
        """Return the loss.

        Raises:
            PlanError: the expected latency is one that the penalty has no meaning for.
        """
        ce = cross_entropy.to(expected_s)
        ratio = expected_s / self.target_s
        if self.kind in ("linear", "target"):
            return ce + self.weight * (ratio - 1.0)
        if self.kind == "hinge":
            return ce + self.weight * (ratio - 1.0).clamp(min=0.0)
        if self.kind == "power":
            if float(expected_s.detach()) <= 0.0:
                raise PlanError(
                    f"the expected latency is {float(expected_s.detach())} s; a power of it needs "
                    "more than 0: use --penalty linear, or a table with the constant part"
                )
            powered: Tensor = ce * ratio**self.weight
            return powered
        _require_above_1_ms(float(expected_s.detach()), "expected")
        legacy: Tensor = ce * ((expected_s * 1e3).log() / math.log(self.target_s * 1e3)) ** (
            self.weight
        )
        return legacy


def _require_above_1_ms(latency_s: float, which: str) -> None:
    if latency_s <= 1e-3:
        raise PlanError(
            f"the {which} latency is {latency_s * 1e3:.4g} ms; legacy_mul_log takes logarithms of "
            "milliseconds and has no meaning up to 1 ms: use --penalty power"
        )
