"""ProxylessNAS against NSGA-II and random search at equal cost, on a device and real images.

    study() { python -m tests.bench.study_proxyless --data train.npz,test.npz --out study "$@"; }
    study --profile-only
    study --train-only --part 1/2 & study --train-only --part 2/2; wait
    study --measure-only
    study --table-only > table.md

``--profile-only`` and ``--measure-only`` time on the device and want the machine to themselves;
training does not. Without one of these options everything is done in turn. Whatever is finished is
kept under ``--out``: stop it at any moment (also with SIGSTOP), call it again, and it goes on.
``--device null --script JSON --quick`` shows that it runs; its numbers mean nothing.

A cell is (space, method, seed): the full and the reduced ``mobile-mini``; ProxylessNAS in its three
modes and blind to latency, NSGA-II and random search. Every cell comes to one network for each of
K latencies, the same in both spaces. Each is trained alone by one recipe, chosen among by its
validation accuracy, judged by its test accuracy, and measured in one campaign with all others.

Equal cost: a ProxylessNAS cell takes the warm-up of W epochs (one for all cells of a space and
seed) and searches K times for E epochs; the blind one does exactly that with a latency weight of
0, and only its derivation looks at latency. NSGA-II and random search take accuracies from a
supernet of W + K · E epochs and judge ``max_evals`` networks, which costs about what the
architecture steps of ``recompute`` do; so do the networks and images that reward REINFORCE. What
it came to is in the table, as images and as processor time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from hwprof.api.finalists import FinalistMeasurer
from hwprof.measure.records import DeviceOptions, Failure, Measurement, plan_for
from hwprof.space import Architecture
from tests.bench.common import say
from tests.bench.study_cells import Study
from tests.bench.study_jobs import QUICK, Size, write_whole
from tests.bench.study_report import SPACES, Row, report

STAGES = ("profile", "train", "measure", "table")


def measure(study: Study, preset: str) -> None:
    """Time the networks of all cells in one campaign.

    In random order: they are timed in groups, and a change of the machine between two groups must
    not come down on one method.
    """
    found = [n["arch"] for row in rows_of(study) for n in row["networks"]]
    archs = {a.arch_id: a for a in map(Architecture.from_json, found)}
    order = np.random.default_rng(0).permutation(sorted(archs))
    options = DeviceOptions(script=study.script)
    measurer = FinalistMeasurer(study.root / "times", study.device, options, plan_for(preset), None)
    levels: dict[str, float] = {}
    for result in measurer([archs[key] for key in order]):
        assert result.workload.arch is not None
        if isinstance(result, Measurement):
            levels[result.workload.arch.arch_id] = result.level_s
        elif isinstance(result, Failure):
            say(f"{result.workload.label} has no time: {result.message}")
    write_whole(study.root / "measured.json", json.dumps(levels))
    say(f"{len(levels)} of {len(archs)} networks timed")


def rows_of(study: Study) -> list[Row]:
    """Return the cells that are done, with the latencies that are measured."""
    rows: list[Row] = [
        json.loads(path.read_text()) for path in sorted((study.root / "cells").glob("*.json"))
    ]
    kept = study.root / "measured.json"
    measured = json.loads(kept.read_text()) if kept.exists() else {}
    for network in (n for row in rows for n in row["networks"]):
        network["latency_s"] = measured.get(Architecture.from_json(network["arch"]).arch_id)
    return rows


def groups(seeds: int) -> Iterator[tuple[str, int]]:
    """Yield every space and seed, seed after seed: a study that is stopped is balanced.

    The order of the spaces alternates, so that two parts have as much of each.
    """
    for seed in range(seeds):
        yield from ((space, seed) for space in (SPACES if seed % 2 == 0 else SPACES[::-1]))


def part_of(text: str) -> tuple[int, int]:
    """Read ``1/2``."""
    number, _, of = text.partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part; expected one such as 1/2")
    return int(number), int(of)


def main() -> None:
    """Do what is asked and not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--script", help="steers the null device only")
    parser.add_argument("--quick", action="store_true", help="minutes; the numbers mean nothing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", type=part_of, default=(1, 1), help="of the training, e.g. 1/2")
    parser.add_argument("--threads", type=int, default=1, help="of training")
    parser.add_argument("--preset", default="quick", help="of measuring what was found")
    only = parser.add_mutually_exclusive_group()
    for stage in STAGES:
        only.add_argument(f"--{stage}-only", dest="only", action="store_const", const=stage)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    size = QUICK if asked.quick else Size()
    study = Study(asked.out, asked.data, asked.device, asked.script, size)
    todo = STAGES if asked.only is None else (asked.only,)
    if "profile" in todo:
        study.profile()
    if "train" in todo:
        number, of = asked.part
        study.train(list(groups(asked.seeds))[number - 1 :: of])
    if "measure" in todo:
        measure(study, asked.preset)
    if "table" in todo:
        print(f"The reduction made {study.plan['n_drops']} cuts.", end=" ")
        print(report(rows_of(study), study.targets_s))


if __name__ == "__main__":
    main()
