"""What does it cost that torch's threads sleep early where hwprof trains, and what does it save?

    python -m tests.bench.bench_spins [--repeats 8] [--seconds 1.5]

Training steps of one network on all cores, in fresh processes that take turns: libgomp spinning as it
does by default (``GOMP_SPINCOUNT=300000``), and as :mod:`hwprof.torch_import` has it. On a quiet
machine, and beside a process that keeps a core busy. Ratios are medians over turns with 95 % BCa
bootstrap intervals; below 1 hwprof's setting is faster.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hwprof.torch_import import FEW_SPINS, SPINS
from tests.bench.common import bootstrap, markdown

DEFAULT_SPINS = "300000"
CASES = (("mobile-mini", 32, 64), ("proxylessnas", 128, 16))
"""Space, resolution in pixels, images a batch."""
BUSY = {"quiet": False, "a core busy": True}
TIMED = """
import sys, time
import torch
from tests.bench.bench_training_step import Images, network_of, step_of
from hwprof.search.supernets.supernet import channels_last
name, px, batch, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
network = network_of(name, px, "cpu")
channels_last(network)
pixels = torch.randn(batch, 3, px, px).to(memory_format=torch.channels_last)
step = step_of(network, network, Images(pixels=pixels, labels=torch.arange(batch) % 10))
for _ in range(3):
    step()
taken, end = [], time.perf_counter() + seconds
while time.perf_counter() < end:
    taken.append(step())
print(sum(taken) / len(taken))
"""


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """Keep a core busy meanwhile, if so asked."""
    if not busy:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def step_s(case: tuple[str, int, int], spins: str, seconds: float) -> float:
    """Return the mean seconds of a step, in a process of its own."""
    words = [sys.executable, "-c", TIMED, *map(str, case), str(seconds)]
    done = subprocess.run(words, env={**os.environ, SPINS: spins}, capture_output=True, check=True)
    return float(done.stdout)


def row(case: tuple[str, int, int], load: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Time one network under one load."""
    rng = np.random.default_rng(0)
    taken_s: dict[str, list[float]] = {DEFAULT_SPINS: [], FEW_SPINS: []}
    with neighbour(BUSY[load]):
        for _ in range(asked.repeats):
            for spins in rng.permutation(list(taken_s)):
                taken_s[spins].append(step_s(case, str(spins), asked.seconds))
    usual_s, early_s = (np.array(taken_s[spins]) for spins in (DEFAULT_SPINS, FEW_SPINS))
    return {
        "network of": f"{case[0]}, {case[1]} px",
        "batch": case[2],
        "machine": load,
        "step by default, ms": 1e3 * float(np.median(usual_s)),
        "sleeping early / default": bootstrap(np.median, early_s / usual_s),
    }


def main() -> None:
    """Time every case; print each row of the table as it is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.5)
    asked = parser.parse_args()
    combinations = [(case, load) for case in CASES for load in BUSY]
    for index, (case, load) in enumerate(combinations):
        lines = markdown([row(case, load, asked)]).splitlines()
        print("\n".join(lines if index == 0 else lines[-1:]), flush=True)


if __name__ == "__main__":
    main()
