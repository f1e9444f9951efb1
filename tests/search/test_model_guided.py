"""Model-guided search: what it judges, and when it gives up."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from hwprof.errors import PlanError
from hwprof.pareto import hypervolume
from hwprof.results import Trial
from hwprof.search.strategies.model_guided import ModelGuided, ModelGuidedSettings
from hwprof.search.strategy import Evaluated, Refusal
from hwprof.space import Architecture, get_space
from tests.search.equal import EQUAL

MINI = get_space("mobile-mini")
NB201 = get_space("nasbench201")


class TestModelGuided:
    @staticmethod
    def latency_s(arch: Architecture) -> float:
        return 1e-3 * (1.0 + float(MINI.encode(arch).clip(0).sum()))

    def trial(self, arch: Architecture) -> Trial:
        """Score by what the model can learn: every slot has blocks that suit it."""
        codes = MINI.encode(arch)
        return Trial(
            arch=arch,
            accuracy_pct=50.0 + float((codes * np.arange(1, codes.size + 1)).sum()) / 10.0,
            accuracy_source="made up",
            latency_s=self.latency_s(arch),
            latency_source="predicted",
            macs=1,
            params=1,
        )

    def search(self, n: int, target_s: float | None = None, **settings: int) -> list[Trial]:
        strategy = ModelGuided(
            MINI,
            np.random.default_rng(1),
            target_s=target_s,
            settings=ModelGuidedSettings(**settings),
        )
        strategy.foresee(lambda archs: [self.latency_s(a) for a in archs])
        trials: list[Trial] = []
        while len(trials) < n:
            asked = strategy.ask(n - len(trials)).archs
            told = tuple(self.trial(a) for a in asked)
            strategy.tell(Evaluated(outcomes=told))
            trials += told
        return trials

    def test_it_judges_nothing_that_it_knows_to_be_too_slow(self) -> None:
        rng = np.random.default_rng(0)
        drawn = [self.latency_s(MINI.sample(rng)) for _ in range(300)]
        target_s = float(np.quantile(drawn, 0.2))
        trials = self.search(60, target_s)
        assert max(t.latency_s for t in trials) <= target_s

    def test_it_makes_for_a_ceiling_that_no_random_network_keeps(self) -> None:
        """Four blocks of the smallest code and no skip: one network in some hundred thousand."""
        rng = np.random.default_rng(0)
        fastest = min(self.latency_s(MINI.sample(rng)) for _ in range(300))
        found = min(t.latency_s for t in self.search(120, 0.5 * fastest))
        assert found < fastest

    def test_it_beats_random_draws_where_there_is_something_to_learn(self) -> None:
        rng = np.random.default_rng(2)
        drawn = [self.trial(MINI.sample(rng)) for _ in range(1200)]

        def volume(trials: list[Trial]) -> float:
            latency, accuracy = zip(*((t.latency_s, t.accuracy_pct) for t in trials), strict=True)
            return hypervolume(latency, accuracy, (0.05, 50.0))

        # Ten times as many networks.
        assert volume(self.search(120)) > volume(drawn)

    @pytest.mark.parametrize("name", ["initial", "batch", "draws", "generations"])
    def test_settings_without_sense_are_refused(self, name: str) -> None:
        with pytest.raises(PlanError, match=name):
            ModelGuidedSettings(**{name: -1})


def test_equal_scores_do_not_stop_the_model() -> None:
    """An accuracy source that tells nothing leaves nothing to learn, and the search goes on."""
    strategy = ModelGuided(MINI, np.random.default_rng(0))
    for _ in range(6):
        archs = strategy.ask(8).archs
        assert len(archs) == 8
        strategy.tell(Evaluated(outcomes=tuple(replace(EQUAL, arch=arch) for arch in archs)))


@pytest.mark.parametrize("batch", [8, 200])
def test_the_model_gives_up_once_nothing_new_keeps_the_ceiling(batch: int) -> None:
    def judged(arch: Architecture) -> Trial | Refusal:
        latency_s = float(NB201.encode(arch).sum() + 1)
        if latency_s > 3.0:
            return Refusal(arch=arch, stage="target", reason="", latency_s=latency_s)
        return replace(EQUAL, arch=arch, latency_s=latency_s)

    settings = ModelGuidedSettings(batch=batch)
    strategy = ModelGuided(NB201, np.random.default_rng(0), target_s=3.0, settings=settings)
    strategy.foresee(lambda archs: [judged(a).latency_s for a in archs])
    outcomes: list[Trial | Refusal] = []
    while not strategy.done and len(outcomes) < 50 * batch:
        told = tuple(judged(a) for a in strategy.ask(8).archs)
        strategy.tell(Evaluated(outcomes=told))
        outcomes += told
    assert strategy.done
    cells = product(*map(NB201.choices, NB201.slots))
    networks = {NB201.canonical(NB201.assemble((cell,), ())) for cell in cells}
    within = {a for a in networks if isinstance(judged(a), Trial)}
    assert {o.arch for o in outcomes if isinstance(o, Trial)} == within
    assert len(within) > 5
