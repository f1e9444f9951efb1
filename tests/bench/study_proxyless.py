"""ProxylessNAS against NSGA-II and random search at equal training, on a device and real images.

    python tests/bench/study_proxyless.py --data train.npz,test.npz --out study [--device cpu]
        [--quick] [--seeds 3] [--limit-images 10000] [--budget 4h]

A cell is (space, method, seed): the full and the reduced ``mobile-mini`` space; ProxylessNAS in
its three modes and blind to latency (weight 0), NSGA-II and random search. Every cell ends in
finalists that are trained alone by one recipe and measured on the device.

Equal cost: a ProxylessNAS cell warms a supernet up for W epochs and searches with K latency
weights for E epochs each, so that it trains W + K·E epochs; NSGA-II and random search take their
accuracies from a supernet trained for as many epochs. What architecture steps and judging cost on
top is in the column ``search_s``.

Every part is kept under ``--out`` and found again: interrupt it, call it again, and it goes on.
``--budget`` ends it after the first cell beyond that time. Which reduction and which latencies: a
profile of the full space on the device, and ``hwprof reduce`` with the first seed's supernet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import hwprof.api as hwprof
from hwprof.api.models import as_space
from hwprof.cli.options import parse_duration
from hwprof.results import SearchResult
from hwprof.search.proxyless import ProxylessConfig
from hwprof.search.proxyless_search import retrain_settings, warmup_settings
from hwprof.search.tasks import ImageTask, load_task
from hwprof.search.training import train_network, train_supernet

SPACE = "mobile-mini"
MODES = ("recompute", "two-path", "reinforce")
METHODS = (*MODES, "recompute-blind", "nsga2", "random")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much everything is trained, judged and measured."""

    warmup_epochs: int = 20
    epochs: int = 30
    weights: tuple[float, ...] = (0.05, 0.2, 0.8)
    retrain_epochs: int = 40
    train_batch: int = 128
    alpha_lr: float = 0.01
    limit_images: int = 10_000
    max_evals: int = 300
    finalists: int = 3
    networks: int | None = None

    @property
    def supernet_epochs(self) -> int:
        """What a ProxylessNAS cell trains in all."""
        return self.warmup_epochs + self.epochs * len(self.weights)


QUICK = Size(
    warmup_epochs=1,
    epochs=2,
    weights=(0.1, 1.0),
    retrain_epochs=1,
    train_batch=16,
    alpha_lr=0.05,
    limit_images=120,
    max_evals=12,
    finalists=2,
    networks=100,
)
"""Shows that everything runs; its numbers mean nothing."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One search with its seed."""

    space: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"{self.space}-{self.method}-s{self.seed}"


class Study:
    """Everything that cells share."""

    def __init__(self, root: Path, data: str, device: str, script: str | None, size: Size) -> None:
        self.root, self.data, self.device, self.script, self.size = root, data, device, script, size
        root.mkdir(parents=True, exist_ok=True)
        asked = {"data": data, "device": device, "size": asdict(size)}
        kept = root / "study.json"
        if kept.exists() and json.loads(kept.read_text()) != json.loads(json.dumps(asked)):
            sys.exit(f"{kept} is of a study with other settings; name another --out")
        kept.write_text(json.dumps(asked))
        self.profile = root / "profile"
        self.task: ImageTask = load_task(
            data, resolution_px=as_space(SPACE).resolution_px, limit_images=size.limit_images
        )

    def prepare(self) -> None:
        """Profile the device and reduce the space."""
        hwprof.profile(
            space=SPACE,
            out=self.profile,
            device=self.device,
            networks=self.size.networks,
            isolated=False,
            script=self.script,
        )
        if not (self.root / "reduced.yaml").exists():
            hwprof.reduce(
                self.profile,
                accuracy=f"supernet:{self.supernet('full', 0)}",
                out=self.root / "reduced.yaml",
            )

    def space_of(self, which: str) -> str:
        """Return the name or file of a space."""
        return SPACE if which == "full" else str(self.root / "reduced.yaml")

    def supernet(self, which: str, seed: int) -> Path:
        """Return the supernet that NSGA-II and random search take accuracies from."""
        out = self.root / f"supernet-{which}-s{seed}.pt"
        config = self._config(seed)
        settings = replace(warmup_settings(config, self.task), epochs=self.size.supernet_epochs)
        train_supernet(as_space(self.space_of(which)), self.task, settings, out)
        return out

    def run(self, cell: Cell) -> dict[str, Any]:
        """Carry out a cell; return its row."""
        out = self.root / "cells" / cell.name
        row = out / "row.json"
        if row.exists():
            known: dict[str, Any] = json.loads(row.read_text())
            return known
        result, training_s = self._search(cell, out)
        trained = [self._trained(trial.arch, cell.seed) for trial in result.finalists]
        found = {
            **asdict(cell),
            "training_s": training_s,
            "search_s": result.ledger["wall_s"] + result.ledger["training_s"],
            "networks": [
                {
                    "arch": trial.arch.to_json(),
                    "latency_s": trial.latency_s,
                    "latency_source": trial.latency_source,
                    "predicted_s": trial.predicted_s,
                    "search_pct": trial.accuracy_pct,
                    "test_pct": test_pct,
                }
                for trial, test_pct in zip(result.finalists, trained, strict=True)
            ],
        }
        row.write_text(json.dumps(found, indent=1))
        return found

    def _search(self, cell: Cell, out: Path) -> tuple[SearchResult, float]:
        size = self.size
        common: dict[str, Any] = {
            "space": self.space_of(cell.space),
            "latency": self.profile,
            "out": out,
            "measure_on": self.device,
            "script": self.script,
            "n_finalists": size.finalists,
            "seed": cell.seed,
            "data": self.data,
        }
        if cell.method in ("nsga2", "random"):
            supernet = self.supernet(cell.space, cell.seed)
            result = hwprof.search(
                **common,
                strategy=cell.method,
                accuracy=f"supernet:{supernet}",
                max_evals=size.max_evals,
            )
            return result, _seconds(supernet)
        blind = cell.method == "recompute-blind"
        options = hwprof.ProxylessOptions(
            mode="recompute" if blind else cell.method,
            latency_weights=(0.0,) if blind else size.weights,
            warmup_epochs=size.warmup_epochs,
            epochs=size.epochs,
            train_batch=size.train_batch,
            alpha_lr=size.alpha_lr,
            limit_images=size.limit_images,
        )
        result = hwprof.search(**common, strategy="proxyless", proxyless=options)
        return result, result.ledger["training_s"]

    def _trained(self, arch: Any, seed: int) -> float:
        """Train a finalist alone; the same network of two cells is trained once a seed."""
        folder = self.root / "networks"
        folder.mkdir(exist_ok=True)
        settings = retrain_settings(self._config(seed), self.task, epochs=self.size.retrain_epochs)
        out = folder / f"{arch.arch_id}-s{seed}.pt"
        summary = train_network(arch, self.task, settings, out)
        assert summary.meta.figures is not None
        return float(summary.meta.figures["test_pct"])

    def _config(self, seed: int) -> ProxylessConfig:
        return ProxylessConfig(batch=self.size.train_batch, seed=seed)


def _seconds(checkpoint: Path) -> float:
    from hwprof.search.checkpoint import load_checkpoint

    return load_checkpoint(checkpoint).meta.seconds


def cells(seeds: int) -> Iterator[Cell]:
    """Yield every cell, one seed after the other, so that a stopped study is balanced."""
    for seed in range(seeds):
        for space in ("full", "reduced"):
            for method in METHODS:
                yield Cell(space=space, method=method, seed=seed)


def table(rows: list[dict[str, Any]]) -> str:
    """Return one line per space and method: means over the seeds of each cell's extremes."""
    head = f"{'space':<9}{'method':<17}{'seeds':>5}{'fastest ms':>12}{'its test %':>12}"
    lines = [f"{head}{'best test %':>13}{'its ms':>9}{'training s':>12}{'search s':>10}"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["space"], row["method"]), []).append(row)
    for (space, method), found in groups.items():
        fastest = [min(r["networks"], key=lambda n: n["latency_s"]) for r in found]
        best = [max(r["networks"], key=lambda n: n["test_pct"]) for r in found]
        means = [
            statistics.fmean(values)
            for values in (
                [n["latency_s"] * 1e3 for n in fastest],
                [n["test_pct"] for n in fastest],
                [n["test_pct"] for n in best],
                [n["latency_s"] * 1e3 for n in best],
                [r["training_s"] for r in found],
                [r["search_s"] for r in found],
            )
        ]
        lines.append(
            f"{space:<9}{method:<17}{len(found):>5}{means[0]:>12.3f}{means[1]:>12.2f}"
            f"{means[2]:>13.2f}{means[3]:>9.3f}{means[4]:>12.1f}{means[5]:>10.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is not there yet and print the table of what is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--script", help="steers the null device only")
    parser.add_argument("--quick", action="store_true", help="minutes; the numbers mean nothing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit-images", type=int)
    parser.add_argument("--budget", help="stop after the first cell beyond this time, e.g. 4h")
    asked = parser.parse_args()
    size = QUICK if asked.quick else Size()
    if asked.limit_images is not None:
        size = replace(size, limit_images=asked.limit_images)
    budget_s = parse_duration(asked.budget)
    started_s = time.monotonic()
    study = Study(asked.out, asked.data, asked.device, asked.script, size)
    study.prepare()
    rows: list[dict[str, Any]] = []
    for cell in cells(asked.seeds):
        rows.append(study.run(cell))
        print(f"{cell.name} done", file=sys.stderr)
        if budget_s is not None and time.monotonic() - started_s > budget_s:
            print("the budget is spent; the same command goes on", file=sys.stderr)
            break
    print(table(rows))


if __name__ == "__main__":
    main()
