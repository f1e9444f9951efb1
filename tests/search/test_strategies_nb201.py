"""Strategies against the exhaustively trained NAS-Bench-201: do they find the true front?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwprof.pareto import front_indices, hypervolume
from hwprof.results import Trial
from hwprof.search.strategy import Evaluate, Evaluated, UsesForesight, make_strategy
from hwprof.space import get_space

TABLE = Path(__file__).resolve().parents[2] / ".." / "shared/data/nb201_accuracy.csv.gz"
REFERENCE = (225.0, 80.0)
"""MACs in millions and CIFAR-10 test accuracy in percent."""

pytestmark = pytest.mark.skipif(not TABLE.exists(), reason="the NAS-Bench-201 table is not here")

# Ten seeds keep the test short; tests/bench/bench_pareto.py takes 30.
SEEDS = range(10)
N_NETWORKS = 500


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """Accuracy and MACs of every cell, as trained for 200 epochs."""

    macs_m: dict[str, float]
    accuracy_pct: dict[str, float]
    volume: float

    def evaluate(self, request: Evaluate) -> Evaluated:
        return Evaluated(
            outcomes=tuple(
                Trial(
                    arch=arch,
                    accuracy_pct=self.accuracy_pct[arch.cell or ""],
                    accuracy_source="table",
                    latency_s=self.macs_m[arch.cell or ""],
                    latency_source="table",
                    macs=0,
                    params=0,
                )
                for arch in request.archs
            )
        )

    def share(self, strategy: str, seed: int, n: int = N_NETWORKS, foresight: bool = True) -> float:
        """Search; return the share of the true hypervolume that is found."""
        made = make_strategy(strategy, get_space("nasbench201"), np.random.default_rng(seed))
        if foresight and isinstance(made, UsesForesight):
            made.foresee(lambda archs: [self.macs_m[a.cell or ""] for a in archs])
        trials: list[Trial] = []
        while len(trials) < n:
            outcome = self.evaluate(made.ask(n - len(trials)))
            made.tell(outcome)
            trials += [t for t in outcome.outcomes if isinstance(t, Trial)]
        found = hypervolume(
            [t.latency_s for t in trials], [t.accuracy_pct for t in trials], REFERENCE
        )
        return found / self.volume


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    table = pd.read_csv(TABLE)
    macs_m, accuracy = table["macs_c10"] / 1e6, table["c10_test_200"]
    return Oracle(
        macs_m=dict(zip(table["arch"], macs_m, strict=True)),
        accuracy_pct=dict(zip(table["arch"], accuracy, strict=True)),
        volume=hypervolume(macs_m.to_numpy(), accuracy.to_numpy(), REFERENCE),
    )


def test_true_front_is_as_counted(oracle: Oracle) -> None:
    cells = list(oracle.macs_m)
    front = front_indices(
        [oracle.macs_m[c] for c in cells], [oracle.accuracy_pct[c] for c in cells]
    )
    # Counted once over all 15,625 cells with another implementation.
    assert len(front) == 14
    assert oracle.volume == pytest.approx(2952.97, abs=0.005)


def test_nsga2_finds_the_front_and_beats_random(oracle: Oracle) -> None:
    shares = {
        name: float(np.mean([oracle.share(name, seed) for seed in SEEDS]))
        for name in ("nsga2", "evolution", "random")
    }
    # An NSGA-II that tells encodings apart, not networks, reaches 99.2 %, random search 97.8 %.
    assert shares["nsga2"] >= 0.99
    assert shares["random"] < 0.985 < shares["nsga2"]
    assert shares["random"] < 0.985 < shares["evolution"]


FEW_SEEDS = range(2)
"""A model costs seconds of arithmetic a seed; the benchmark takes 30."""


def test_model_guided_search_needs_200_networks(oracle: Oracle) -> None:
    shares = [oracle.share("model-guided", seed, 200) for seed in FEW_SEEDS]
    assert float(np.mean(shares)) >= 0.995


def test_model_guided_search_learns_latency_where_it_is_not_foreseen(oracle: Oracle) -> None:
    # Random search is at 96.7 % after 200 networks, NSGA-II as published at 97.7 %.
    shares = [oracle.share("model-guided", seed, 200, foresight=False) for seed in FEW_SEEDS]
    assert float(np.mean(shares)) >= 0.985
