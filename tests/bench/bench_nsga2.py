"""How much of NAS-Bench-201's true front do the strategies find, and after how many networks?

    python tests/bench/bench_nsga2.py ../shared/data/nb201_accuracy.csv.gz

CIFAR-10 test accuracy (200 epochs) against MACs; share of the true hypervolume up to 225 M MACs
and down to 80 %. The table holds the columns ``arch``, ``macs_c10`` and ``c10_test_200``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from hwprof.pareto import hypervolume
from hwprof.results import Trial
from hwprof.search.strategy import STRATEGIES, Evaluated, make_strategy
from hwprof.space import get_space

REFERENCE = (225.0, 80.0)
BUDGETS = (200, 500, 1000)


def shares(table: pd.DataFrame, strategy: str, seed: int) -> list[float]:
    """Search once; return the share of the true hypervolume after each of ``BUDGETS``."""
    known = table.set_index("arch")
    macs, accuracy = known["macs_c10"] / 1e6, known["c10_test_200"]
    made = make_strategy(strategy, get_space("nasbench201"), np.random.default_rng(seed))
    found: list[tuple[float, float]] = []
    while len(found) < BUDGETS[-1]:
        asked = made.ask(BUDGETS[-1] - len(found)).archs
        pairs = [(float(macs[str(a.cell)]), float(accuracy[str(a.cell)])) for a in asked]
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
    whole = hypervolume(macs.to_numpy(), accuracy.to_numpy(), REFERENCE)
    cut = [list(zip(*found[:n], strict=True)) for n in BUDGETS]
    return [hypervolume(c, a, REFERENCE) / whole for c, a in cut]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--seeds", type=int, default=30)
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.table)
    print("strategy  " + "".join(f"{n:>26}" for n in BUDGETS))
    for strategy in STRATEGIES:
        runs = np.array([shares(table, strategy, seed) for seed in range(arguments.seeds)])
        cells = zip(runs.mean(axis=0), runs.min(axis=0), strict=True)
        print(f"{strategy:<10}" + "".join(f"{m:>12.2%} (least {w:.2%})" for m, w in cells))


if __name__ == "__main__":
    main()
