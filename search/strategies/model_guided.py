"""Model-guided search: judge where a surrogate expects the front to gain most.

Judging accuracy is dear, latency is predicted for nothing. So a Gaussian process
(:mod:`hwprof.search.strategies.surrogate`) learns accuracy from what was judged, and every round judges the
candidates with the largest expected hypervolume improvement at their known latency
(:mod:`hwprof.search.strategies.improvement`), one after the other as if the earlier ones had scored as
expected (the "kriging believer" of Ginsbourger et al. 2010). Candidates are random networks,
neighbours of the front, and, for some generations, neighbours of the best candidates, so that
spaces too large to list are searched as well.

Where no latency is known in advance (:meth:`ModelGuided.foresee` was not called), it is learnt
from the networks told, as accuracy is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.errors import PlanError
from hwprof.pareto import domination_ranks
from hwprof.search.strategies.candidates import Candidate, Pool
from hwprof.search.strategies.improvement import Staircase
from hwprof.search.strategies.members import Member, members_of
from hwprof.search.strategies.proposer import Rounds
from hwprof.search.strategies.surrogate import Coding, Surrogate
from hwprof.search.strategy import Outcome
from hwprof.space import Architecture, DesignSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

GROWTH = 20
"""A round judges a batch, or one network for every GROWTH judged before if that is more."""
RELEARN = 1.15
"""The surrogate's weights are learnt again once there are this many times the networks."""
BOLD_EVERY, BOLDNESS = 4, 4.0
"""Every fourth choice of a round takes uncertainty for four times what the surrogate claims: a
process that was fitted to few networks is sure of too much, and would leave a region for good."""
LOWEST = 0.1
"""Accuracies below this quantile count as equal to it: how bad a useless network is says nothing
about good ones, and would rule the fit (collapsed networks of a cell space score 10 %)."""
EDGE = 0.2
"""Accuracy a is learnt as −log(best + EDGE · (best − median) − a): differences count more the
nearer they are to the best."""
MOST_PARENTS = 40
BARREN_ROUNDS = 20
"""Rounds of networks that are all beyond the ceiling, and no nearer to it than those before: then
no more is to be expected. Each was chosen among a thousand that are no faster."""


@dataclass(frozen=True, kw_only=True)
class ModelGuidedSettings:
    """How many networks are judged and looked at.

    Attributes:
        initial: random networks that are judged before there is a model.
        batch: networks of a round at least.
        draws: random candidates of a round, and again as many neighbours of the front.
        generations: how often the best candidates are varied.
        children: candidates that each of these generations adds.
    """

    initial: int = 16
    batch: int = 8
    draws: int = 200
    generations: int = 2
    children: int = 200

    def __post_init__(self) -> None:
        for name, least in (("initial", 2), ("batch", 1), ("draws", 1), ("generations", 0)):
            if getattr(self, name) < least:
                raise PlanError(f"{name} is {getattr(self, name)}; expected at least {least}")


class ModelGuided(Rounds):
    """Rounds of candidates, surrogate, choice; a round's networks wait in a queue."""

    name = "model-guided"

    def __init__(
        self,
        space: DesignSpace,
        rng: np.random.Generator,
        *,
        target_s: float | None = None,
        settings: ModelGuidedSettings | None = None,
    ) -> None:
        self._settings = settings or ModelGuidedSettings()
        super().__init__(space, rng, asdict(self._settings), target_s=target_s)
        self._coding = Coding(space)
        self._members: list[Member] = []
        self._weights: list[float] | None = None
        self._n_learnt = 0
        """Networks that the weights were learnt from."""

    def tell(self, outcome: Outcome) -> None:
        """Remember what was judged."""
        self._members += members_of(outcome)

    def state_dict(self) -> dict[str, Any]:
        """Return generator state, what was told and what waits to be asked."""
        return super().state_dict() | {
            "members": [m.to_row() for m in self._members],
            "weights": self._weights,
            "n_learnt": self._n_learnt,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        super().load_state_dict(state)
        self._members = [Member.from_row(row) for row in state["members"]]
        self._weights, self._n_learnt = state["weights"], state["n_learnt"]

    def _plan(self) -> list[Architecture]:
        """Return the networks of the next round; none where no more come up within the ceiling."""
        judged = [m for m in self._members if m.accuracy_pct is not None]
        size = max(self._settings.batch, len(judged) // GROWTH)
        if self._is_barren(BARREN_ROUNDS * size):
            return []
        if len(judged) < self._settings.initial:
            chosen = self._least_violation(size)
        else:
            chosen = self._largest_gain(judged, size)
        queue = [self._new.admit(arch) for arch in chosen]
        # Candidates are drawn without insisting: only where they run out is every draw needed.
        queue = queue or [self._draw()]
        return [arch for arch in queue if arch is not None]

    def _is_barren(self, n_last: int) -> bool:
        # Whole rounds: the best of a round come first, so that the end of a large one says nothing.
        before, last = self._members[:-n_last], self._members[-n_last:]
        if not before or any(m.accuracy_pct is not None for m in last):
            return False
        nearest, found = (min(m.excess_s(self._ceiling_s) for m in part) for part in (before, last))
        return found >= nearest

    def _least_violation(self, size: int) -> list[Architecture]:
        """Choose random networks, those within the ceiling first; without foresight, any."""
        pool = self._pool()
        if np.isinf(self._ceiling_s):
            pool.draw(size)
        else:
            pool.draw(self._settings.draws)
            # One network alone may have no neighbour.
            if len(self._members) > 1:
                nearest = sorted(self._members, key=lambda m: m.excess_s(self._ceiling_s))
                parents = [m.arch for m in nearest[: self._settings.initial]]
                pool.breed(parents, self._settings.draws)
        latency_s = np.array([c.latency_s for c in pool.candidates])
        # What is not foreseen (nan) counts as within.
        order = np.argsort(np.fmax(latency_s - self._ceiling_s, 0.0), kind="stable")
        return [pool.candidates[i].arch for i in order[:size]]

    def _largest_gain(self, judged: Sequence[Member], size: int) -> list[Architecture]:
        model = self._model(judged)
        settings, pool = self._settings, self._pool()
        pool.draw(settings.draws)
        pool.breed(_front_first(judged), settings.draws)
        for _ in range(settings.generations if pool.candidates else 0):
            gains = model.gains(pool.candidates)
            best = np.argsort(-gains, kind="stable")[:MOST_PARENTS]
            pool.breed([pool.candidates[i].arch for i in best], settings.children)
        return model.choose(pool.candidates, size)

    def _pool(self) -> Pool:
        return Pool(self._space, self._rng, self._new, self._foresight)

    def _model(self, judged: Sequence[Member]) -> _Model:
        relearn = self._weights is None or len(judged) >= RELEARN * self._n_learnt
        model = _Model(
            self._coding,
            self._space.encode_many([m.arch for m in judged]),
            judged,
            None if relearn else np.array(self._weights),
            self._ceiling_s,
        )
        if relearn:
            self._weights, self._n_learnt = model.accuracy.weights.tolist(), len(judged)
        return model


class _Model:
    """What is believed about networks: accuracy always, latency where it is not foreseen."""

    def __init__(
        self,
        coding: Coding,
        codes: NDArray[np.int64],
        judged: Sequence[Member],
        weights: Floats | None,
        ceiling_s: float,
    ) -> None:
        self._coding = coding
        self._latency_s = np.array([m.latency_s for m in judged])
        self._codes = codes
        self._ceiling_s = ceiling_s
        accuracy = np.array([m.accuracy_pct for m in judged], dtype=float)
        self._scores = _scores(accuracy)
        known = coding.features(codes, self._latency_s)
        self.accuracy = Surrogate.fit(coding, known, self._scores, weights)

    def gains(self, candidates: Sequence[Candidate]) -> Floats:
        """Return the expected gain of each candidate; below zero, by how much it is too slow."""
        latency_s, codes = self._seen(candidates)
        belief = self.accuracy.belief(self._coding.features(codes, latency_s))
        gains = self._staircase(latency_s).expected_gain(latency_s, belief.mean, belief.sd)
        return self._within(gains, latency_s)

    def choose(self, candidates: Sequence[Candidate], size: int) -> list[Architecture]:
        """Return the candidates to judge, best first."""
        if not candidates:
            return []
        latency_s, codes = self._seen(candidates)
        belief = self.accuracy.belief(self._coding.features(codes, latency_s))
        mean, stairs = belief.mean, self._staircase(latency_s)
        chosen: list[int] = []
        while len(chosen) < min(size, len(candidates)):
            bold = BOLDNESS if len(chosen) % BOLD_EVERY == BOLD_EVERY - 1 else 1.0
            gains = stairs.expected_gain(latency_s, mean, bold * belief.sd)
            gains = self._within(gains, latency_s)
            gains[chosen] = -np.inf
            best = int(np.argmax(gains))
            chosen.append(best)
            stairs.add(latency_s[best], mean[best])
            belief.suppose(best)
        return [candidates[i].arch for i in chosen]

    def _staircase(self, latency_s: Floats) -> Staircase:
        slowest_s = max(float(self._latency_s.max()), float(latency_s.max()))
        end = min(self._ceiling_s, slowest_s)
        return Staircase(self._latency_s, self._scores, end=end)

    def _within(self, gains: Floats, latency_s: Floats) -> Floats:
        excess = latency_s - self._ceiling_s
        return np.where(excess > 0.0, -excess, gains)

    def _seen(self, candidates: Sequence[Candidate]) -> tuple[Floats, NDArray[np.int64]]:
        """Return latencies, foreseen or learnt, and codes."""
        codes = np.stack([c.codes for c in candidates])
        latency_s = np.array([c.latency_s for c in candidates])
        if np.isnan(latency_s).any():
            latency_s = self._learnt_latency(codes)
        return latency_s, codes

    def _learnt_latency(self, codes: NDArray[np.int64]) -> Floats:
        """Return latencies learnt from the judged networks by the accuracy's covariance."""
        # The term of latency itself sees the same latency everywhere and so says nothing.
        known = self._coding.features(self._codes, np.ones(len(self._codes)))
        learnt = Surrogate.fit(self._coding, known, np.log(self._latency_s), self.accuracy.weights)
        return np.exp(learnt.belief(self._coding.features(codes, np.ones(len(codes)))).mean)


def _scores(accuracy_pct: Floats) -> Floats:
    """Return accuracies as they are learnt: cut off below, stretched towards the best."""
    best = accuracy_pct.max()
    cut = np.maximum(accuracy_pct, np.quantile(accuracy_pct, LOWEST))
    edge = EDGE * float(best - np.median(accuracy_pct))
    # Half of all networks score the same: there is no scale to stretch by.
    return -np.log(edge + best - cut) if edge > 0.0 else cut


def _front_first(judged: Sequence[Member]) -> list[Architecture]:
    """Return the architectures of the leading fronts."""
    ranks = domination_ranks(
        [m.latency_s for m in judged], [float(m.accuracy_pct or 0.0) for m in judged]
    )
    order = np.argsort(ranks, kind="stable")
    return [judged[i].arch for i in order[:MOST_PARENTS]]
