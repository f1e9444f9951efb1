"""How well do the indicators of TE-NAS rank networks that were trained? And does a search help?

    python tests/bench/bench_te_nas.py ../shared/data/nb201_accuracy.csv.gz \
        ../shared/data/cifar10_train_jpeg.npz [--searches 4]

Random cells of NAS-Bench-201: Kendall's τ of the condition number κ, of the linear regions R and
of both ranks summed, as ``search --strategy te-nas`` takes them, with CIFAR-10 and CIFAR-100 test
accuracies after 200 epochs; beside them the control, how much convolution a cell has. Intervals:
percentiles of 2,000 resamples of the cells. Bars on CIFAR-100: τ(κ) ≤ −0.35, τ(R) ≥ 0.40, summed
≤ −0.48; exit code 1 where one is missed. ``--searches N`` prunes N times too and prints the
accuracies of what is found, each with the share of all cells that are worse, and what the best of 42
random cells has on average.

The images are CIFAR-10's training images: ``data`` (JPEG bytes), ``offset``, ``label``. Labels go
unused. ``noise`` in place of the file takes random pixels.
"""

from __future__ import annotations

import argparse
import io
import sys
import time

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import kendalltau

from hwprof.search.data.image_files import Split
from hwprof.search.data.tasks import ImageTask
from hwprof.search.strategies.indicators import TeNasConfig, Untrained
from hwprof.search.strategies.te_nas import dense_ranks, search_te_nas
from hwprof.space import Slot, get_space
from hwprof.space.nasbench201 import parse_cell
from tests.bench.arguments import existing

N_IMAGES = 1000
RESAMPLES = 2000
DATASETS = ("c10_test_200", "c100_test_200")
BARS = {"condition": -0.35, "regions": 0.40, "summed ranks": -0.48}
SPACE = get_space("nasbench201")
N_RANDOM = 42
"""Cells that the stages of DDPNAS judge there, for a control at equal cost."""
PER_3X3, PER_1X1 = 9, 1
"""Multiply-accumulates of a convolution, as multiples of those of a 1×1."""


def task_of(images: str) -> ImageTask:
    if images == "noise":
        pixels = np.random.default_rng(0).integers(256, size=(N_IMAGES, 32, 32, 3), dtype=np.uint8)
    else:
        file = np.load(images)
        data, offset = file["data"], file["offset"]
        pixels = np.stack(
            [
                np.asarray(Image.open(io.BytesIO(data[offset[i] : offset[i + 1]].tobytes())))
                for i in range(N_IMAGES)
            ]
        )
    split = Split(images=pixels, labels=np.zeros(N_IMAGES, dtype=np.int64))
    return ImageTask(
        name=images,
        source=images,
        limit_images=None,
        split_seed=0,
        classes=("any",),
        train=split,
        validation=split,
        test=split,
    )


def indicators(cells: list[str], task: ImageTask, config: TeNasConfig) -> NDArray[np.float64]:
    """Return κ and R of each cell, ``float64[n, 2]``: means over the repeats."""
    indicate, found = Untrained(task=task, config=config), []
    for cell in cells:
        one = SPACE.restrict({Slot(0, e): (op,) for e, op in enumerate(parse_cell(cell))})
        draws = [indicate(one, [one], (config.seed, r))[0] for r in range(config.repeats)]
        found.append(np.mean(draws, axis=0))
    return np.array(found)


def tau(score: NDArray[np.float64], accuracy: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return Kendall's τ with the ends of its 95 % interval."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(score), size=(RESAMPLES, len(score)))
    resampled = [kendalltau(score[i], accuracy[i]).statistic for i in drawn]
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return float(kendalltau(score, accuracy).statistic), float(low), float(high)


def expected_best(accuracy: NDArray[np.float64], n: int = N_RANDOM) -> float:
    """Return the mean of the best of ``n`` random draws, exactly."""
    below = (np.arange(accuracy.size + 1) / accuracy.size) ** n
    return float(np.sort(accuracy) @ np.diff(below))


def main() -> None:
    """Print the table; exit 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=existing)
    parser.add_argument("images", help="CIFAR-10 as an .npz of JPEG, or noise")
    parser.add_argument("--cells", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=TeNasConfig.repeats)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--searches", type=int, default=0)
    arguments = parser.parse_args()
    known = pd.read_csv(arguments.table).set_index("arch")
    task = task_of(arguments.images)
    config = TeNasConfig(repeats=arguments.repeats, seed=arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    cells = [str(c) for c in rng.choice(known.index.to_numpy(), arguments.cells, replace=False)]
    started_s = time.monotonic()
    condition, regions = indicators(cells, task, config).T
    took_s = time.monotonic() - started_s
    # Not finite: behind all others.
    ranks = np.array(dense_ranks(condition.tolist()))
    scores = {
        "condition": ranks.astype(np.float64),
        "regions": regions,
        "summed ranks": ranks + np.array(dense_ranks((-regions).tolist()), dtype=np.float64),
        "convolution": np.array(
            [PER_3X3 * c.count("conv_3x3") + PER_1X1 * c.count("conv_1x1") for c in cells], float
        ),
    }
    print(
        f"{len(cells)} cells on {arguments.images}, {config.repeats} repeats, {took_s:.0f} s; "
        f"condition not finite: {np.sum(~np.isfinite(condition))}"
    )
    met = True
    for name, score in scores.items():
        found = [tau(score, known.loc[cells, data].to_numpy()) for data in DATASETS]
        shown = "  ".join(f"{t:+.2f} [{low:+.2f}, {high:+.2f}]" for t, low, high in found)
        bar = BARS.get(name)
        is_met = bar is None or found[-1][0] / bar >= 1.0
        met = met and is_met
        print(f"{name:<13} {shown}" + ("" if bar is None else f"  bar {bar:+.2f}: {is_met}"))
    if arguments.searches:
        best = ", ".join(f"{expected_best(known[d].to_numpy()):.2f} %" for d in DATASETS)
        print(f"best of {N_RANDOM} random cells, on average: {best}")
    for seed in range(arguments.searches):
        started_s = time.monotonic()
        again = TeNasConfig(repeats=arguments.repeats, seed=seed)
        pruned = search_te_nas(SPACE, Untrained(task=task, config=again), again, latency=_none)
        cell = str(pruned.arch.cell)
        columns = [known[d] for d in DATASETS]
        values = [(column[cell], (column < column[cell]).mean()) for column in columns]
        shown = ", ".join(f"{pct:.2f} % (above {share:.1%})" for pct, share in values)
        print(f"search {seed}: {shown} in {time.monotonic() - started_s:.0f} s: {cell}")
    sys.exit(0 if met else 1)


def _none(_: object) -> list[tuple[float, float]]:
    raise AssertionError("without a target no latency is asked for")


if __name__ == "__main__":
    main()
