"""How much of a front do the strategies find, and after how many networks?

    python tests/bench/bench_pareto.py nb201 ../shared/data/nb201_accuracy.csv.gz
    python tests/bench/bench_pareto.py ofa ../shared/data/ofa_acc_predictor_mbv3_w12.npz \
        ../shared/data/note10_ofa_mbv3_w12_blocks.csv.gz

*nb201*: CIFAR-10 test accuracy (200 epochs) against MACs; share of the true hypervolume up to
225 M MACs and down to 80 %. *ofa*: accuracy as once-for-all's predictor gives it against the sum of
a table of block latencies; the true front of 2·10¹⁹ networks is not known, so the share is of the
front that all runs found together, up to 60 ms and down to 72 %.

Every strategy has the same evaluations; with each share goes the half-width of its mean's 95 %
interval over the seeds, and the least of them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t

from hwprof.api.runs import latency_model
from hwprof.importing import import_csv
from hwprof.pareto import hypervolume
from hwprof.results import Trial
from hwprof.search.scoring.predictor import PredictorAccuracy
from hwprof.search.strategy import STRATEGIES, Evaluated, UsesForesight, make_strategy
from hwprof.space import Architecture, DesignSpace, get_space
from tests.bench.arguments import existing

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Two goals over a space, a point worse than is wanted, and the best hypervolume if known."""

    space: DesignSpace
    latency: Callable[[Sequence[Architecture]], list[float]]
    accuracy: Callable[[Sequence[Architecture]], list[float]]
    reference: Point
    whole: float | None

    def volume(self, points: Sequence[Point]) -> float:
        latency, accuracy = zip(*points, strict=True)
        return hypervolume(latency, accuracy, self.reference)


def nb201(path: Path) -> Problem:
    known = pd.read_csv(path).set_index("arch")
    macs_m, accuracy = (known["macs_c10"] / 1e6).to_dict(), known["c10_test_200"].to_dict()
    reference = (225.0, 80.0)
    cells = list(macs_m)
    return Problem(
        space=get_space("nasbench201"),
        latency=lambda archs: [macs_m[a.cell] for a in archs],
        accuracy=lambda archs: [accuracy[a.cell] for a in archs],
        reference=reference,
        whole=hypervolume([macs_m[c] for c in cells], [accuracy[c] for c in cells], reference),
    )


def ofa(predictor: Path, blocks: Path) -> Problem:
    space = get_space("ofa-mbv3-w1.2")
    scores = PredictorAccuracy.open(predictor)
    with tempfile.TemporaryDirectory() as folder:
        import_csv(blocks, space, "table", Path(folder) / "run").close()
        model, _ = latency_model(Path(folder) / "run")
    return Problem(
        space=space,
        latency=lambda archs: (1e3 * model.predict_many(archs)[0]).tolist(),
        accuracy=lambda archs: [float(v or 0.0) for v in scores.score(archs)],
        reference=(60.0, 72.0),
        whole=None,
    )


def search(problem: Problem, strategy: str, seed: int, n: int) -> list[Point]:
    """Search once; return latency and accuracy in the order of judging."""
    made = make_strategy(strategy, problem.space, np.random.default_rng(seed))
    if isinstance(made, UsesForesight):
        made.foresee(problem.latency)
    found: list[Point] = []
    while len(found) < n:
        asked = made.ask(n - len(found)).archs
        pairs = list(zip(problem.latency(asked), problem.accuracy(asked), strict=True))
        trials = tuple(
            Trial(
                arch=arch,
                accuracy_pct=pct,
                accuracy_source="table",
                latency_s=cost,
                latency_source="table",
                macs=0,
                params=0,
            )
            for arch, (cost, pct) in zip(asked, pairs, strict=True)
        )
        made.tell(Evaluated(outcomes=trials))
        found += pairs
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problem", choices=["nb201", "ofa"])
    parser.add_argument("files", type=existing, nargs="+")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--budgets", type=int, nargs="+", default=[200, 500, 1000])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    arguments = parser.parse_args()
    problem = (nb201 if arguments.problem == "nb201" else ofa)(*arguments.files)
    budgets, seeds = sorted(arguments.budgets), range(arguments.seeds)
    runs = {
        name: [search(problem, name, seed, budgets[-1]) for seed in seeds]
        for name in arguments.strategies
    }
    whole = problem.whole or problem.volume(
        [p for found in runs.values() for run in found for p in run]
    )
    spread = float(t.ppf(0.975, len(seeds) - 1)) / len(seeds) ** 0.5
    print(f"{'strategy':<14}" + "".join(f"{n:>34}" for n in budgets))
    for name, found in runs.items():
        cells = []
        for n in budgets:
            shares = np.array([problem.volume(run[:n]) / whole for run in found])
            half = spread * shares.std(ddof=1)
            cells.append(f"{shares.mean():>12.2%} ± {half:.2%} (least {shares.min():.2%})")
        print(f"{name:<14}" + "".join(f"{cell:>34}" for cell in cells))


if __name__ == "__main__":
    main()
