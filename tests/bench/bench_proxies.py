"""How well do proxies rank networks that were trained, and what would you pick by them?

    python -m tests.bench.bench_proxies ../shared/data/nb201_accuracy.csv.gz [--cells 500]

Random cells of NAS-Bench-201, scored as ``--accuracy proxy:NAME`` does. *Rank correlation*:
Spearman's with test accuracies after 200 epochs on CIFAR-10 and CIFAR-100; intervals are 95 %,
percentiles of 2,000 resamples of the cells. *Picked*: at five budgets of MACs (fifths of what the
cells have) the cell within it with the highest score; mean CIFAR-10 accuracy of the five, beside
the most accurate within each budget and what a random one has on average. ``macs`` and ``params``
are what every other proxy has to beat. Seconds are of one thread;
those of a random network of spaces at 224 px follow.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from hwprof.search.scoring.proxies import OF_WEIGHTS, PROXIES, ProxyAccuracy
from hwprof.space import Architecture, get_space
from tests.bench.arguments import existing

RESAMPLES = 2000
DATASETS = ("c10_test_200", "c100_test_200")
RESOLUTION_PX = get_space("nasbench201").resolution_px
LARGE = ("ofa-mbv3-w1.0", "proxylessnas", "ofa-resnet50")
"""Spaces of 224 px, of which a random network is scored for the time that it takes."""

Floats = NDArray[np.float64]


def correlation(score: Floats, accuracy: Floats) -> str:
    """Return Spearman's rank correlation with its interval."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(score), size=(RESAMPLES, len(score)))
    low, high = np.percentile(
        [spearmanr(score[i], accuracy[i]).statistic for i in drawn], [2.5, 97.5]
    )
    return f"{spearmanr(score, accuracy).statistic:.2f} [{low:.2f}, {high:.2f}]"


def picked(score: Floats, accuracy: Floats, macs: Floats) -> float:
    """Return the mean accuracy of the best-scored cell within each of five budgets."""
    budgets = np.quantile(macs, [0.2, 0.4, 0.6, 0.8, 1.0])
    within = [np.flatnonzero(macs <= budget) for budget in budgets]
    return float(np.mean([accuracy[cells[np.argmax(score[cells])]] for cells in within]))


def of_random(accuracy: Floats, macs: Floats) -> float:
    """Return the mean accuracy of all cells within a budget, over the five budgets."""
    budgets = np.quantile(macs, [0.2, 0.4, 0.6, 0.8, 1.0])
    return float(np.mean([accuracy[macs <= budget].mean() for budget in budgets]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=existing)
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = pd.read_csv(arguments.table)
    rng = np.random.default_rng(arguments.seed)
    rows = known.iloc[rng.choice(len(known), arguments.cells, replace=False)]
    archs = [
        Architecture(space="nasbench201", resolution_px=RESOLUTION_PX, cell=cell)
        for cell in rows["arch"]
    ]
    accuracies = [rows[name].to_numpy(np.float64) for name in DATASETS]
    macs = rows["macs_c10"].to_numpy(np.float64)
    print(f"{len(archs)} cells; rank correlation on CIFAR-10, CIFAR-100; picked; seconds a network")
    for proxy in PROXIES:
        source = ProxyAccuracy(proxy)
        source.score(archs[:1])  # the scale, which is taken once
        started_s = time.monotonic()
        score = np.array(source.score(archs), dtype=np.float64)
        each_s = (time.monotonic() - started_s) / len(archs)
        shown = "  ".join(correlation(score, accuracy) for accuracy in accuracies)
        print(f"{proxy:<8} {shown}  {picked(score, accuracies[0], macs):.2f} %  {each_s:.4f} s")
    best = picked(accuracies[0], accuracies[0], macs)
    print(f"most accurate {best:.2f} %, random {of_random(accuracies[0], macs):.2f} %")
    for name in LARGE:
        space = get_space(name)
        arch = space.sample(rng)
        for proxy in OF_WEIGHTS:
            started_s = time.monotonic()
            PROXIES[proxy](space, arch)
            print(f"{name} {proxy}: {time.monotonic() - started_s:.2f} s")


if __name__ == "__main__":
    main()
