"""Carry out an ``Evaluate`` request: predicted latency, cost, accuracy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hwprof.errors import HwprofError
from hwprof.graph import architecture_cost
from hwprof.protocols import AccuracySource
from hwprof.results import LatencySource, Trial
from hwprof.search.ledger import Ledger
from hwprof.search.strategy import Evaluate, Evaluated, Refusal
from hwprof.space import Architecture, DesignSpace

Latency = Callable[[Sequence[Architecture]], Sequence[tuple[float, float]]]
"""Predicts, for each network, its latency and the half-width of the 95 % interval, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A predicted latency; the truth lies within ``half_width_s`` of it at 95 %."""

    latency_s: float
    half_width_s: float

    @property
    def ci95_s(self) -> tuple[float, float] | None:
        """The interval; None where the source claims to be exact (a table)."""
        if self.half_width_s == 0.0:
            return None
        return (max(self.latency_s - self.half_width_s, 0.0), self.latency_s + self.half_width_s)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Gives every network a verdict: a trial, or the reason why there is none.

    A network that is slower than ``target_s`` even at the lower end of its interval costs no
    accuracy evaluation.
    """

    space: DesignSpace
    accuracy: AccuracySource
    latency: Latency
    latency_source: LatencySource
    target_s: float | None
    ledger: Ledger

    def evaluate(self, request: Evaluate) -> Evaluated:
        """Judge the networks of ``request``, in its order."""
        predictions = self.predict(request.archs)
        wanted = [
            arch
            for arch, found in zip(request.archs, predictions, strict=True)
            if isinstance(found, Prediction)
        ]
        scores = dict(zip((a.arch_id for a in wanted), self._score(wanted), strict=True))
        outcomes = tuple(
            found
            if isinstance(found, Refusal)
            else self._verdict(arch, found, scores[arch.arch_id])
            for arch, found in zip(request.archs, predictions, strict=True)
        )
        self.ledger.proposals += len(outcomes)
        self.ledger.refused += sum(isinstance(o, Refusal) for o in outcomes)
        return Evaluated(outcomes=outcomes)

    def predict(self, archs: Sequence[Architecture]) -> list[Prediction | Refusal]:
        """Predict the latency of each network, or say why it is refused."""
        if not archs:
            return []
        try:
            values: Sequence[tuple[float, float] | HwprofError] = self.latency(archs)
        except HwprofError as error:
            # One network without a latency must not take the others of its batch with it.
            values = [error] if len(archs) == 1 else [self._predict_one(arch) for arch in archs]
        return [self._prediction(a, value) for a, value in zip(archs, values, strict=True)]

    def foresee(self, archs: Sequence[Architecture]) -> list[float | None]:
        """Predict latencies in seconds as :meth:`predict` does; None where there is none."""
        return [found.latency_s for found in self.predict(archs)]

    def _predict_one(self, arch: Architecture) -> tuple[float, float] | HwprofError:
        try:
            (value,) = self.latency([arch])
        except HwprofError as error:
            return error
        return value

    def _prediction(
        self, arch: Architecture, value: tuple[float, float] | HwprofError
    ) -> Prediction | Refusal:
        if isinstance(value, HwprofError):
            return Refusal(arch=arch, stage="latency", reason=str(value))
        found = Prediction(latency_s=float(value[0]), half_width_s=float(value[1]))
        if not (found.latency_s > 0.0 and math.isfinite(found.latency_s + found.half_width_s)):
            reason = f"the predicted latency is {value[0]} s with a half-width of {value[1]} s"
            return Refusal(arch=arch, stage="latency", reason=reason)
        if self.target_s is not None and found.latency_s - found.half_width_s > self.target_s:
            return Refusal(
                arch=arch,
                stage="target",
                reason=f"predicted {found.latency_s * 1e3:.4g} ms, wanted at most "
                f"{self.target_s * 1e3:.4g} ms",
                latency_s=found.latency_s,
            )
        return found

    def _score(self, archs: Sequence[Architecture]) -> list[float | None]:
        if not archs:
            return []
        started_s = time.monotonic()
        scores = self.accuracy.score(archs)
        self.ledger.accuracy_s += time.monotonic() - started_s
        self.ledger.evaluations += len(archs)
        return scores

    def _verdict(
        self, arch: Architecture, found: Prediction, accuracy_pct: float | None
    ) -> Trial | Refusal:
        if accuracy_pct is None or not math.isfinite(accuracy_pct):
            given = "no accuracy" if accuracy_pct is None else f"an accuracy of {accuracy_pct}"
            return Refusal(
                arch=arch,
                stage="accuracy",
                reason=f"{self.accuracy.name} has {given} for {arch}",
                latency_s=found.latency_s,
            )
        cost = architecture_cost(self.space, arch)
        return Trial(
            arch=arch,
            accuracy_pct=float(accuracy_pct),
            accuracy_source=self.accuracy.name,
            latency_s=found.latency_s,
            latency_source=self.latency_source,
            macs=cost.macs,
            params=cost.params,
            ci95_s=found.ci95_s,
        )
