"""Effects with their uncertainty: the numbers behind friendliness, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.least_squares import t_quantile
from hwprof.interval import Interval
from hwprof.results import Effect, EffectKind, effects_frame
from hwprof.space import DesignSpace

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LackOfFit:
    """How far the metric is from a sum of effects.

    ``curvature_p``: p-value of the one added term, the squared prediction (Tukey's one degree
    of freedom); ``r2_curved``: R² with it.
    """

    curvature_p: float
    r2_curved: float
    curvature: float = 0.0
    """Coefficient of the squared term, per unit of the metric: below zero it saturates."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Response:
    """The effects on one metric, in its unit (seconds, or percentage points).

    Attributes:
        values: ``float64[n_terms]`` in the order of ``DesignMatrix.terms``.
        covariance: ``float64[n_terms, n_terms]`` of ``values``, for intervals (HC3).
        even_covariance: the same if all networks were equally noisy, s² (XᵀX)⁻¹. Less robust,
            but far less noisy as a matrix, which matters where it is inverted.
        degrees: degrees of freedom of the intervals, infinite where they are normal.
        mean: mean over the space's random networks; None where only differences are known.
        r2: share of the variance that is a sum of effects; None, as are ``residual_sd`` and
            ``lack_of_fit``, where no regression gave the effects.
    """

    values: Floats
    covariance: Floats
    even_covariance: Floats
    degrees: float
    n_networks: int
    mean: Interval | None
    r2: float | None = None
    residual_sd: float | None = None
    lack_of_fit: LackOfFit | None = None

    def interval(self, weights: Floats) -> Interval:
        """Return the two-sided 95 % interval of a linear combination of the terms."""
        value, sd = self.contrast(weights)
        half = t_quantile(0.975, self.degrees) * sd
        return Interval(value, value - half, value + half)

    def contrast(self, weights: Floats) -> tuple[float, float]:
        """Return value and standard error of ``weights @ values``, from the full covariance."""
        variance = float(weights @ self.covariance @ weights)
        return float(weights @ self.values), float(np.sqrt(max(variance, 0.0)))

    def intervals(self) -> list[Interval]:
        """Return the 95 % interval of every term."""
        half = t_quantile(0.975, self.degrees) * np.sqrt(np.diag(self.covariance).clip(0.0))
        return [
            Interval(float(v), float(v - h), float(v + h))
            for v, h in zip(self.values, half, strict=True)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Friendliness:
    """Effects of a space's blocks, depths and factors on a device, with their uncertainty."""

    space: DesignSpace = field(repr=False)
    design: DesignMatrix = field(repr=False)
    latency: Response = field(repr=False)
    accuracy: Response | None = field(repr=False)
    effects: tuple[Effect, ...] = field(repr=False)
    device: str = ""
    fingerprint: Mapping[str, Any] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        design: DesignMatrix,
        latency: Response,
        accuracy: Response | None,
        counts: NDArray[np.int64],
        notes: Sequence[str] = (),
    ) -> Self:
        """Return the effects that responses hold, one a term, in the order of ``design.terms``.

        ``counts`` are the networks behind every term.
        """
        columns = zip(
            design.terms,
            latency.intervals(),
            accuracy.intervals() if accuracy else [None] * len(design.terms),
            counts,
            strict=True,
        )
        effects = (
            Effect(
                kind=term.kind,
                unit=term.unit,
                layer=term.layer,
                depth=term.depth,
                block=term.block,
                latency=seconds,
                accuracy=points,
                n_networks=int(count),
            )
            for term, seconds, points, count in columns
        )
        return cls(
            space=design.space,
            design=design,
            latency=latency,
            accuracy=accuracy,
            effects=tuple(effects),
            notes=tuple(notes),
        )

    @property
    def n_networks(self) -> int:
        """Number of networks behind the latencies."""
        return self.latency.n_networks

    @property
    def mean_latency(self) -> Interval | None:
        """Mean latency of the space's random networks, seconds; None where a file had none."""
        return self.latency.mean

    @property
    def mean_accuracy(self) -> Interval | None:
        """Mean top-1 of the space's random networks, percent."""
        return self.accuracy.mean if self.accuracy else None

    def of_kind(self, kind: EffectKind) -> tuple[Effect, ...]:
        """Return the effects of one kind."""
        return tuple(e for e in self.effects if e.kind == kind)

    def to_frame(self) -> pd.DataFrame:
        """Return one row an effect, with the documented columns."""
        return effects_frame(self.effects)

    def to_csv(self) -> str:
        """Return the frame as CSV text."""
        text: str = self.to_frame().to_csv(index=False)
        return text

    def __repr__(self) -> str:
        of = f" on {self.device}" if self.device else ""
        return f"<Friendliness of {self.space.name}{of}: {len(self.effects)} effects>"

    def _repr_html_(self) -> str:
        html: str = effects_frame(self.of_kind("network")).to_html(index=False)
        return html
