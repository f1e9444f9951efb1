"""What hwprof does in its own inner loops, as functions of plain data that a worker can import."""

from __future__ import annotations

import numpy as np

from hwprof.graph import to_onnx, workload_graph
from hwprof.measure.level import estimate
from hwprof.measure.paired import judge_pairs
from hwprof.measure.records import Burst, LabelledBurst
from hwprof.store.blobs import decode, encode
from hwprof.workload import Workload


def judge(workers: int, rounds: int) -> str:
    """Judge as many pairs as a comparison has at its last look."""
    rng = np.random.default_rng(0)
    return judge_pairs(
        {f"seat {i}": 0.01 * rng.standard_normal(rounds) for i in range(workers)}
    ).verdict


def level(workers: int, rounds: int, samples: int) -> float:
    """Estimate a level from as many bursts as the standard preset has."""
    rng = np.random.default_rng(0)
    bursts = [
        LabelledBurst(burst=_burst(rng, samples), worker=f"w{w}", round_index=r)
        for w in range(workers)
        for r in range(rounds)
    ]
    return estimate(bursts, threads=1).level_s


def _burst(rng: np.random.Generator, samples: int) -> Burst:
    duration = rng.integers(100_000, 101_000, samples)
    return Burst(start_ns=np.cumsum(duration), duration_ns=duration, wait_ns=None)


def store(samples: int) -> int:
    """Write and read the samples of a burst."""
    values = np.random.default_rng(0).integers(100_000, 101_000, samples)
    data = encode(values)
    return int(decode(data, "i8-delta-zlib-1", samples).size)


def write_block() -> int:
    """Write a block as ONNX: campaigns do it thousands of times."""
    from hwprof.checks.workloads import BLOCK

    workload: Workload = BLOCK
    return len(to_onnx(workload_graph(workload), seed=0))
