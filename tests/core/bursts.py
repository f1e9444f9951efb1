"""Bursts made up by hand, and those of a machine that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hwprof.measure.records import Burst, LabelledBurst


def burst(
    durations_us: Sequence[float], waits_us: Sequence[float] | None = None, k: int = 1
) -> Burst:
    duration = (np.asarray(durations_us, dtype=np.float64) * 1000).round().astype(np.int64)
    start = np.concatenate([[0], np.cumsum(duration[:-1] + 1000)]).astype(np.int64)
    wait = None if waits_us is None else (np.asarray(waits_us) * 1000).astype(np.int64)
    return Burst(start_ns=start, duration_ns=duration, wait_ns=wait, calls_per_sample=k)


def labelled(value: Burst, worker: str = "w0", index: int = 0, *causes: str) -> LabelledBurst:
    return LabelledBurst(burst=value, worker=worker, round_index=index, causes=causes)


def simulate(
    rng: np.random.Generator, workers: int, rounds: int, *, worker_sd: float, slow_share: float
) -> list[LabelledBurst]:
    """Draw bursts of a machine whose floor is 1 ms: fast and slow modes that last, spikes.

    Workers differ by ``worker_sd``; one in twenty is stuck in the slow mode for life.
    """
    bursts = []
    for worker in range(workers):
        own = math.exp(worker_sd * rng.standard_normal())
        stuck, slow_left = rng.random() < 0.05, 0
        for index in range(rounds):
            if slow_left == 0 and rng.random() < slow_share / 4:
                slow_left = int(rng.geometric(1 / 4))
            mode = 1.3 if stuck or slow_left else 1.0
            slow_left = max(0, slow_left - 1)
            calls = own * mode * np.exp(0.01 * np.abs(rng.standard_normal(25)))
            calls += rng.random(25) < 0.02
            calls *= 1000
            bursts.append(labelled(burst(calls.tolist()), f"w{worker}", index))
    return bursts
