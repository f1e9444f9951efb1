"""DDPNAS: drop the least probable choice of every decision, stage by stage.

Zheng et al., "Dynamic Distribution Pruning for Efficient Network Architecture Search", arXiv 2019
(IJCV 2023). A network is as probable as the product of its choices, θ. In a stage's three passes
every decision walks through its live choices in a fresh random order (uniform without
replacement, as the released sampler does; not drawn from θ). Then θ becomes
mean over passes of softmax(100 · accuracy) + θ / 2, and the smallest live θ of every decision
goes, until one is left: 3 (K (K + 1) / 2 - 1) networks for K choices. A large accuracy is good:
the current release feeds errors here, and keeps the worst.

The paper's decisions all have K choices in a network of fixed depth. Here one with fewer choices
walks through them again within a pass and is decided earlier. A choice that is in no judged
network of a pass (all refused, or too shallow) counts as the mean of the others there. Pruned
choices get nothing, so that their θ halves with every stage and keeps the order of pruning.

With what is left of the budget networks are generated from θ: for latencies spread over the
reachable range, the one with the largest sum of θ that is at most that slow. Latency is foreseen
for whole networks, so that random and bred candidates stand in for the paper's knapsack.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.errors import PlanError
from hwprof.results import Trial
from hwprof.search.strategies.candidates import Candidate, Pool
from hwprof.search.strategies.decisions import Decisions
from hwprof.search.strategies.proposer import Rounds
from hwprof.search.strategy import Outcome
from hwprof.space import Architecture, DesignSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

log = logging.getLogger(__name__)

BUDGETS, DRAWS, GENERATIONS = 8, 200, 2
"""Of a round of generated networks: latencies aimed at, random candidates, and how often as many
are bred from the best of them."""
BARREN_ROUNDS = 20
"""Rounds in a row, each bred towards the fastest networks, without one within the target: then no
more is to be expected."""


@dataclass(frozen=True, kw_only=True)
class DdpnasSettings:
    """``passes`` through the live choices before each pruning (the release's ``PRUNING_STEP``)."""

    passes: int = 3

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise PlanError(f"passes is {self.passes}; expected at least 1")


class Ddpnas(Rounds):
    """Stages while a decision has two live choices, then rounds of networks generated from θ.

    Attributes:
        theta: ``float64[D, K]``, one row a decision; 0 where it has fewer than K choices.
        alive: ``bool[D, K]``, the choices that were not pruned.
    """

    name = "ddpnas"

    def __init__(
        self,
        space: DesignSpace,
        rng: np.random.Generator,
        *,
        target_s: float | None = None,
        settings: DdpnasSettings | None = None,
    ) -> None:
        self._settings = settings or DdpnasSettings()
        super().__init__(space, rng, asdict(self._settings), target_s=target_s)
        self._decisions = Decisions(space)
        counts = np.array([len(options) for options in self._decisions.options])
        self.alive: Mask = np.arange(counts.max()) < counts[:, None]
        self.theta: Floats = self.alive / counts[:, None]
        self._stage: list[list[Architecture]] = []
        """Networks of every pass, also those that need not or cannot be judged."""
        self._accuracy_pct: dict[str, float] = {}
        """By the identity of the canonical encoding."""
        self._parents: list[Architecture] = []
        self._barren = 0
        """Rounds since a generated network was last within the target."""

    @property
    def decided(self) -> bool:
        """Whether every decision has one choice left."""
        return int(self.alive.sum(axis=1).max()) == 1

    def most_probable(self) -> Architecture:
        """Return the network of the largest θ of every decision: in the end, what is left."""
        return self._decisions.network(self.theta.argmax(axis=1))

    def tell(self, outcome: Outcome) -> None:
        """Remember accuracies; a refused network is no evidence."""
        for judged in outcome.outcomes:
            if isinstance(judged, Trial):
                self._accuracy_pct[self._key(judged.arch)] = judged.accuracy_pct

    def state_dict(self) -> dict[str, Any]:
        """Return generator state, θ, what is under way and what is known."""
        return super().state_dict() | {
            "theta": self.theta.tolist(),
            "alive": self.alive.tolist(),
            "stage": [[arch.to_json() for arch in archs] for archs in self._stage],
            "accuracy_pct": dict(self._accuracy_pct),
            "parents": [arch.to_json() for arch in self._parents],
            "barren": self._barren,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        super().load_state_dict(state)
        self.theta, self.alive = np.array(state["theta"]), np.array(state["alive"])
        self._stage = [[Architecture.from_json(a) for a in archs] for archs in state["stage"]]
        self._accuracy_pct = dict(state["accuracy_pct"])
        self._parents = [Architecture.from_json(data) for data in state["parents"]]
        self._barren = state.get("barren", 0)

    def _plan(self) -> list[Architecture]:
        """Return what is judged next, once all before was told; none: the space is exhausted."""
        queue: list[Architecture] = []
        while not queue and not self.decided:
            if self._stage:
                self._learn()
            else:
                self._stage = [self._walk() for _ in range(self._settings.passes)]
                queue = self._judgeable([arch for archs in self._stage for arch in archs])
        queue = queue or self._judgeable([self.most_probable()]) or self._generated()
        drawn = None if queue or self._barren >= BARREN_ROUNDS else self._draw()
        return queue if drawn is None else [drawn]

    def _walk(self) -> list[Architecture]:
        """Return the networks of one pass."""
        size, columns = int(self.alive.sum(axis=1).max()), []
        for row in self.alive:
            live = np.flatnonzero(row)
            orders = [self._rng.permutation(live) for _ in range(-(-size // len(live)))]
            columns.append(np.concatenate(orders)[:size])
        return [self._decisions.network(picks) for picks in np.stack(columns, axis=1)]

    def _judgeable(self, archs: Sequence[Architecture]) -> list[Architecture]:
        """Return what is new of ``archs`` and not foreseen to be refused."""
        times = [0.0] * len(archs) if self._foresight is None else self._foresight(archs)
        pairs = zip(archs, times, strict=True)
        within = [arch for arch, t in pairs if t is not None and t <= self._ceiling_s]
        return [found for found in map(self._new.admit, within) if found is not None]

    def _learn(self) -> None:
        """Update θ by the stage that was told, and prune."""
        accuracy = np.stack([self._evidence(archs) for archs in self._stage])
        if np.isnan(accuracy).all():
            log.warning("no network of this stage has an accuracy: choices go without evidence")
        self.theta = updated(self.theta, self.alive, accuracy)
        self.alive = pruned(self.theta, self.alive)
        self._stage = []

    def _evidence(self, archs: Sequence[Architecture]) -> Floats:
        """Return the mean accuracy of the networks with each choice, nan where there is none."""
        total, count = np.zeros(self.theta.shape), np.zeros(self.theta.shape)
        picked = self._decisions.picks(self._space.encode_many(archs))
        for arch, picks in zip(archs, picked, strict=True):
            accuracy_pct = self._accuracy_pct.get(self._key(arch))
            if accuracy_pct is not None:
                used = np.flatnonzero(picks >= 0)
                total[used, picks[used]] += accuracy_pct / 100.0
                count[used, picks[used]] += 1.0
        return np.where(count > 0.0, total / np.maximum(count, 1.0), np.nan)

    def _key(self, arch: Architecture) -> str:
        return self._space.canonical(arch).arch_id

    def _generated(self) -> list[Architecture]:
        """Return the networks of the next round; none where targets are out of reach."""
        if self._barren >= BARREN_ROUNDS:
            return []
        pool = Pool(self._space, self._rng, self._new, self._foresight)
        pool.draw(DRAWS)
        chosen = self._parents or [self.most_probable()]
        # A space of one network has no neighbours to breed.
        for _ in range(GENERATIONS if self.theta.shape[1] > 1 else 0):
            pool.breed(chosen, DRAWS)
            chosen = self._best(pool.candidates) or chosen
        self._parents = chosen
        # Without foresight latencies are nan, and none is above the ceiling.
        fastest_s = min((c.latency_s for c in pool.candidates), default=0.0)
        self._barren = self._barren + 1 if fastest_s > self._ceiling_s else 0
        return [found for found in map(self._new.admit, chosen) if found is not None]

    def _best(self, candidates: Sequence[Candidate]) -> list[Architecture]:
        """Choose a network for every latency aimed at, the fastest first."""
        if not candidates:
            return []
        # Without foresight all are as fast, and the largest sums of θ are chosen.
        latency_s = np.nan_to_num(np.array([c.latency_s for c in candidates]))
        worth = self._worth(candidates)
        fastest_s = float(latency_s.min())
        reach_s = max(min(float(latency_s.max()), self._ceiling_s) - fastest_s, 0.0)
        chosen: list[int] = []
        for share in (np.arange(BUDGETS) + self._rng.random()) / BUDGETS:
            fits = latency_s <= fastest_s + share * reach_s
            fits[chosen] = False
            if fits.any():
                chosen.append(int(np.where(fits, worth, -np.inf).argmax()))
        return [candidates[i].arch for i in chosen]

    def _worth(self, candidates: Sequence[Candidate]) -> Floats:
        """Return Σ (θ - largest θ) over the decisions that each network depends on.

        That ranks as Σ θ does where depth is fixed, and favours no depth where it is not.
        """
        picks = self._decisions.picks(np.stack([c.codes for c in candidates]))
        lack = self.theta - self.theta.max(axis=1, keepdims=True)
        worth: Floats = np.where(picks >= 0, lack[np.arange(len(lack)), picks], 0.0).sum(axis=1)
        return worth


def updated(theta: Floats, alive: Mask, accuracy: Floats) -> Floats:
    """Return θ after a stage.

    Args:
        theta: ``float64[D, K]`` before.
        alive: ``bool[D, K]``.
        accuracy: ``float64[passes, D, K]``, shares of 1; nan where there is no evidence.
    """
    known = ~np.isnan(accuracy) & alive
    total = np.where(known, accuracy, 0.0).sum(axis=-1, keepdims=True)
    filled = np.where(known, accuracy, total / np.maximum(known.sum(axis=-1, keepdims=True), 1))
    filled = np.where(alive, filled, -np.inf)
    raised = np.exp(100.0 * (filled - filled.max(axis=-1, keepdims=True)))
    mean: Floats = (raised / raised.sum(axis=-1, keepdims=True)).mean(axis=0)
    return mean + 0.5 * theta


def pruned(theta: Floats, alive: Mask) -> Mask:
    """Return ``alive`` without the smallest θ (of equals the last) of decisions not yet made."""
    last_first = np.where(alive, theta, np.inf)[:, ::-1]
    smallest = theta.shape[1] - 1 - last_first.argmin(axis=1)
    left = alive.copy()
    left[np.arange(len(theta)), smallest] = alive.sum(axis=1) == 1
    return left
