"""How many networks a wished precision of the slot effects needs.

In the shared design every network informs every slot that it fills. With K candidates drawn
equally often, a layer that is there with probability P, and a residual variance σ²(1 − R²) that
blocks and depths do not explain, the variance of a slot's effect is (K − 1) σ²(1 − R²) / (P N):
a 95 % interval of half-width h needs

    N = (K − 1) z² σ²(1 − R²) / (P h²),

8 z² σ²(1 − R²)/(P h²) for nine candidates. That is for N far above the p coefficients of the
model. Fitting them leaves N − p to tell from, and the robust (HC3) variance that the intervals
are made of takes as much off again: N/(N − p)² in place of 1/N. The slot that needs most decides:
as a rule the last layer of a unit with many candidates, P being its chance to be there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hwprof.campaign import LEAST_NETWORKS
from hwprof.errors import PlanError
from hwprof.estimate.design_matrix import n_coefficients
from hwprof.estimate.favouring import presence
from hwprof.estimate.latency_fit import OLS_RATIO
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.interval import NORMAL_975
from hwprof.units import format_seconds, format_share

if TYPE_CHECKING:
    from hwprof.results import Sample
    from hwprof.space import DesignSpace, Slot


@dataclass(frozen=True, kw_only=True)
class PrecisionPlan:
    """A number of networks and what it was computed from."""

    n_networks: int
    n_pilot: int
    n_coefficients: int
    half_width_s: float
    mean_latency_s: float
    residual_sd_s: float
    slot: Slot
    n_candidates: int
    presence: float
    """Probability that the slot's layer is there."""

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return {**asdict(self), "slot": str(self.slot)}

    def __str__(self) -> str:
        return (
            f"{self.n_networks} networks give every slot effect a 95 % interval of "
            f"±{format_seconds(self.half_width_s)} "
            f"({format_share(self.half_width_s / self.mean_latency_s, 2)} of the mean latency, "
            f"{format_seconds(self.mean_latency_s)}): the residual sd over {self.n_pilot} networks "
            f"is {format_seconds(self.residual_sd_s)}, and {self.slot} with {self.n_candidates} "
            f"candidates is there in {format_share(self.presence)} of the networks"
        )


def require_share(half_width_share: float) -> None:
    """Refuse a half-width that is no share of the mean latency.

    Raises:
        PlanError: it is not between 0 and 1.
    """
    if not 0.0 < half_width_share < 1.0:
        raise PlanError(f"--half-width is {half_width_share:.3g}; expected a share such as 1%")


def pilot_size(space: DesignSpace) -> int:
    """Return how many networks tell the residual: max(100, 1.5 × coefficients)."""
    return max(LEAST_NETWORKS, math.floor(OLS_RATIO * n_coefficients(space)) + 1)


def networks_for_half_width(
    *, residual_sd: float, half_width: float, n_candidates: int, presence: float
) -> float:
    """Return N = (K − 1) z² s² / (P h²); ``residual_sd`` s and ``half_width`` h in one unit."""
    return (n_candidates - 1) * (NORMAL_975 * residual_sd / half_width) ** 2 / presence


def allowing_for_fit(wanted: float, n_coefficients: int) -> int:
    """Return the N at which N/(N − p)² is 1/``wanted``; about ``wanted`` + 2p."""
    p = n_coefficients
    return math.ceil(p + wanted / 2 + math.sqrt(wanted**2 / 4 + wanted * p))


def hardest_slot(space: DesignSpace, *, favour_depth: bool = False) -> tuple[Slot, float]:
    """Return the slot whose effects need most networks, and how often its layer is there."""

    def share(slot: Slot) -> float:
        return presence(space, slot, favour_depth=favour_depth)

    slot = max(space.slots, key=lambda s: (len(space.choices(s)) - 1) / share(s))
    return slot, share(slot)


def plan_precision(
    space: DesignSpace,
    pilot: Sequence[Sample],
    half_width_share: float,
    *,
    favour_depth: bool = False,
) -> PrecisionPlan:
    """Choose the number of networks from a pilot.

    Args:
        space: the design space.
        pilot: the first :func:`pilot_size` networks of the campaign, measured.
        half_width_share: wished half-width of the slot effects' 95 % intervals, as a share of
            the mean latency (0.01 for 1 %).
        favour_depth: as the campaign draws its networks.

    Raises:
        PlanError: the share is not between 0 and 1.
        DataError: the pilot is too small for a model.
    """
    require_share(half_width_share)
    model = AdditiveLatencyModel.fit(space, pilot, interactions=False)
    mean_s = float(model.coefficients[0])
    half_width_s = half_width_share * mean_s
    slot, share = hardest_slot(space, favour_depth=favour_depth)
    wanted = networks_for_half_width(
        residual_sd=model.residual_sd_s,
        half_width=half_width_s,
        n_candidates=len(space.choices(slot)),
        presence=share,
    )
    p = n_coefficients(space)
    return PrecisionPlan(
        n_networks=max(len(pilot), allowing_for_fit(wanted, p)),
        n_pilot=len(pilot),
        n_coefficients=p,
        half_width_s=half_width_s,
        mean_latency_s=mean_s,
        residual_sd_s=model.residual_sd_s,
        slot=slot,
        n_candidates=len(space.choices(slot)),
        presence=share,
    )
