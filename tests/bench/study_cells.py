"""The cells of the study of ProxylessNAS: every search, and the training of what it came to."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

import hwprof.api as hwprof
from hwprof.api.runs import latency_model
from hwprof.results import Trial
from hwprof.search.data.tasks import ImageTask, load_task
from hwprof.search.learning.checkpoint import load_checkpoint
from hwprof.search.learning.evaluation import RECALIBRATION_IMAGES, SupernetJudge
from hwprof.search.learning.training import train_network, train_supernet
from hwprof.search.proxyless.choices import Choices
from hwprof.search.proxyless.expected_latency import ExpectedLatency
from hwprof.search.proxyless.penalties import Penalty
from hwprof.search.proxyless.search import (
    batches_of,
    retrain_settings,
    search_network,
    warmup_settings,
)
from hwprof.search.proxyless.steps import ProxylessConfig
from hwprof.search.proxyless.target import WITHIN, Multiplier, derive, latency_range_s
from hwprof.search.runner import run_search
from hwprof.search.scoring.supernet_accuracy import SupernetAccuracy
from hwprof.search.strategy import make_strategy
from hwprof.search.supernets.supernet import Supernet
from hwprof.space import Architecture, DesignSpace, get_space
from tests.bench.common import say
from tests.bench.study_jobs import Jobs, Size, total, write_whole
from tests.bench.study_report import BLIND, METHODS, SPACES

SPACE = "mobile-mini"
CONTROLS = ("nsga2", "random")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One search with its seed."""

    space: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """A file's name."""
        return f"{self.space}-{self.method}-s{self.seed}"


@dataclass(frozen=True, kw_only=True)
class ValidationOnly:
    """A supernet's accuracies without those on test images, which cost a pass over all of them."""

    source: SupernetAccuracy

    @property
    def name(self) -> str:
        """How the source is shown."""
        return self.source.name

    @property
    def digest(self) -> str:
        """What identifies it."""
        return self.source.digest

    def score(self, archs: Sequence[Architecture]) -> list[float | None]:
        """Return validation top-1 in percent."""
        return self.source.score(archs)


class Study:
    """Everything that cells share."""

    def __init__(self, root: Path, data: str, device: str, script: str | None, size: Size) -> None:
        self.root, self.data, self.device, self.script, self.size = root, data, device, script, size
        for folder in ("jobs", "cells", "work"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        asked = json.dumps({"data": data, "device": device, "size": asdict(size)})
        kept = root / "study.json"
        if kept.exists() and json.loads(kept.read_text()) != json.loads(asked):
            sys.exit(f"{kept} is of a study with other settings; name another --out")
        write_whole(kept, asked)
        self.jobs = Jobs(folder=root / "jobs")
        self.profile_run = root / "profile"
        self.plan_file = root / "plan.json"

    @cached_property
    def task(self) -> ImageTask:
        """The images."""
        size = self.size
        return load_task(
            self.data, resolution_px=size.resolution_px, limit_images=size.limit_images
        )

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What was fixed before the first search: the latencies to search for, the reduction."""
        found: dict[str, Any] = json.loads(self.plan_file.read_text())
        return found

    @property
    def targets_s(self) -> list[float]:
        """The latencies to search for."""
        found: list[float] = self.plan["targets_s"]
        return found

    def space(self, which: str) -> DesignSpace:
        """Return the full or the reduced space."""
        if which == "full":
            return get_space(SPACE, self.size.resolution_px)
        return get_space(str(self.root / "reduced.yaml"))

    def latency(self, which: str) -> ExpectedLatency:
        """Return the profile's latency model on a space."""
        return ExpectedLatency(latency_model(self.profile_run)[0], self.space(which))

    # Before the cells

    def profile(self) -> None:
        """Measure networks of the full space."""
        hwprof.profile(
            space=SPACE,
            resolution_px=self.size.resolution_px,
            out=self.profile_run,
            device=self.device,
            networks=self.size.networks,
            isolated=False,
            script=self.script,
        )

    def prepare(self) -> None:
        """Reduce the space by the first seed's supernet, and fix the latencies to search for."""
        if self.plan_file.exists():
            return
        reduction = hwprof.reduce(
            self.profile_run,
            accuracy=f"supernet:{self.supernet('full', 0)}",
            max_accuracy_drop_pp=self.size.max_accuracy_drop_pp,
            out=self.root / "reduced.yaml",
        )
        ranges = {w: latency_range_s(self.latency(w), self.space(w)) for w in SPACES}
        low_s, high_s = max(r[0] for r in ranges.values()), min(r[1] for r in ranges.values())
        if low_s >= high_s:
            sys.exit(f"the two spaces have no latencies in common: {ranges}")
        targets_s = [low_s + share * (high_s - low_s) for share in self.size.shares]
        plan = {"n_drops": len(reduction.drops), "ranges_s": ranges, "targets_s": targets_s}
        write_whole(self.plan_file, json.dumps(plan))

    def train(self, mine: Sequence[tuple[str, int]]) -> None:
        """Run the cells of these spaces and seeds, all but the measuring."""
        lock = FileLock(self.root / ".prepare.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            # The other part prepares: meanwhile what needs no reduction.
            for space, seed in mine:
                if space == "full" and seed != 0:
                    self.supernet(space, seed)
            lock.acquire()
        try:
            self.prepare()
        finally:
            lock.release()
        for space, seed in mine:
            for method in METHODS:
                self.run(Cell(space=space, method=method, seed=seed))

    # Cells

    def run(self, cell: Cell) -> None:
        """Carry out a cell and keep it in a file of its own."""
        out = self.root / "cells" / f"{cell.name}.json"
        if out.exists():
            return
        found = self._sampled(cell) if cell.method in CONTROLS else self._by_gradient(cell)
        for network in found["networks"]:
            network |= self._trained(cell, Architecture.from_json(network["arch"]))
        write_whole(out, json.dumps({**asdict(cell), **found}, indent=1))
        say(f"{cell.name} done")

    def _by_gradient(self, cell: Cell) -> dict[str, Any]:
        """Search once for each target."""
        seconds = [self._uniform("warmup", cell, self.size.warmup_epochs)]
        networks = []
        for k in range(len(self.targets_s)):
            found = self.jobs.once(f"{cell.name}-{k}", partial(self._searched, cell, k))
            seconds.append(found.pop("cpu_s"))
            networks.append(found)
        return {
            "networks": networks,
            "trained_images": self._images(self.size.supernet_epochs),
            "judged_images": len(networks) * self._alpha_images(cell.method),
            "cpu_s": total(seconds),
        }

    def _searched(self, cell: Cell, k: int) -> dict[str, Any]:
        """Search by gradient for a target; return the network that was derived near it."""
        target_s, blind = self.targets_s[k], cell.method == BLIND
        fitted = replace(self.space(cell.space), n_classes=self.task.n_classes)
        latency = self.latency(cell.space)
        config = replace(
            self._config(cell.seed),
            mode="recompute" if blind else cell.method,  # type: ignore[arg-type]  # checked there
            # One of its own for each search: else all blind searches of a cell were the same.
            seed=len(self.targets_s) * cell.seed + k,
        )
        out = self._work(f"{cell.name}-{k}")
        found = search_network(
            fitted,
            self.task,
            latency,
            Penalty(kind="linear" if blind else "target", weight=0.0, target_s=target_s),
            config,
            warmup=self._work(f"warmup-{cell.space}-s{cell.seed}"),
            out=out,
        )
        # Not ``found.arch``: that of a blind search is the most probable network, at any latency.
        choices = Choices(fitted, seed=config.seed)
        companion = load_checkpoint(out).companion
        assert companion is not None
        choices.load_state_dict(companion["alpha"])
        arch = derive(choices, latency, Multiplier(target_s=target_s)).arch
        last = found.course[-1]
        return {
            "arch": arch.to_json(),
            "target_s": target_s,
            "predicted_s": latency.of([arch])[0],
            "expected_s": last.expected_s,
            "argmax_s": last.argmax_s,
            "is_limiting": found.is_limiting,
        }

    def _sampled(self, cell: Cell) -> dict[str, Any]:
        """Judge networks by the supernet; take the best one of every range of latency."""
        trained_s = self._uniform("supernet", cell, self.size.supernet_epochs)
        found = self.jobs.once(cell.name, lambda: self._drawn(cell))
        judged_images = RECALIBRATION_IMAGES + len(self.task.validation)
        return {
            "networks": found["networks"],
            "trained_images": self._images(self.size.supernet_epochs),
            "judged_images": found["n_judged"] * judged_images,
            "cpu_s": total([trained_s, found["cpu_s"]]),
        }

    def _drawn(self, cell: Cell) -> dict[str, Any]:
        design, model = self.space(cell.space), latency_model(self.profile_run)[0]

        def predicted(archs: Sequence[Architecture]) -> list[tuple[float, float]]:
            latency_s, half_s = model.predict_many(archs)
            return list(zip(latency_s.tolist(), half_s.tolist(), strict=True))

        folder = self.root / "work" / cell.name
        folder.mkdir(exist_ok=True)
        result = run_search(
            design,
            make_strategy(cell.method, design, np.random.default_rng(cell.seed)),
            accuracy=ValidationOnly(source=self._source(cell)),
            latency=predicted,
            max_evals=self.size.max_evals,
            seed=cell.seed,
            folder=folder,
        )
        return {
            "networks": [
                {"arch": t.arch.to_json(), "target_s": target_s, "predicted_s": t.latency_s}
                for target_s, t in best_by_band(result.trials, self.targets_s).items()
            ],
            "n_judged": len(result.trials),
        }

    def _trained(self, cell: Cell, arch: Architecture) -> dict[str, float]:
        """Train a network alone; the same one of two cells is trained once a space and seed."""
        name = f"network-{cell.space}-{arch.arch_id}-s{cell.seed}"
        epochs = self.size.retrain_epochs
        settings = retrain_settings(self._config(cell.seed), self.task, epochs=epochs)

        def job() -> dict[str, Any]:
            figures = train_network(arch, self.task, settings, self._work(name)).meta.figures
            assert figures is not None
            return dict(figures)

        found = self.jobs.once(name, job)
        return {key: float(found[key]) for key in ("validation_pct", "test_pct")}

    # Supernets

    def supernet(self, which: str, seed: int) -> Path:
        """Return the supernet that NSGA-II and random search take accuracies from."""
        cell = Cell(space=which, method="supernet", seed=seed)
        self._uniform("supernet", cell, self.size.supernet_epochs)
        return self._work(f"supernet-{which}-s{seed}")

    def _uniform(self, kind: str, cell: Cell, epochs: int) -> float | None:
        """Train a supernet on networks drawn uniformly; return the processor time."""
        name = f"{kind}-{cell.space}-s{cell.seed}"
        settings = replace(warmup_settings(self._config(cell.seed), self.task), epochs=epochs)

        def job() -> dict[str, Any]:
            space = self.space(cell.space)
            meta = train_supernet(space, self.task, settings, self._work(name)).meta
            return {"figures": dict(meta.figures or {})}

        seconds: float | None = self.jobs.once(name, job)["cpu_s"]
        return seconds

    def _source(self, cell: Cell) -> SupernetAccuracy:
        path = self.supernet(cell.space, cell.seed)
        fitted = replace(self.space(cell.space), n_classes=self.task.n_classes)
        supernet = Supernet(fitted, seed=0)
        supernet.load_state_dict(load_checkpoint(path).weights)
        return SupernetAccuracy(
            name=f"supernet:{path.name}",
            digest=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
            judge=SupernetJudge.of(supernet.eval(), self.task),
        )

    # Small things

    def _config(self, seed: int) -> ProxylessConfig:
        size = self.size
        return ProxylessConfig(
            warmup_epochs=size.warmup_epochs,
            epochs=size.epochs,
            batch=size.train_batch,
            alpha_lr=size.alpha_lr,
            networks_per_update=size.networks_per_update,
            reward_images=size.reward_images,
            seed=seed,
        )

    def _images(self, epochs: int) -> int:
        batches = batches_of(self._config(0), self.task)
        return epochs * batches.per_epoch * batches.size

    def _alpha_images(self, method: str) -> int:
        """Return the images of the architecture steps of one search, for every drawn network."""
        config, batches = self._config(0), batches_of(self._config(0), self.task)
        every = range(config.epochs * batches.per_epoch)
        steps = sum(config.is_alpha_step(step, batches.per_epoch) for step in every)
        rewarded = config.networks_per_update * config.reward_images
        return steps * (rewarded if method == "reinforce" else batches.size)

    def _work(self, name: str) -> Path:
        return self.root / "work" / f"{name}.pt"


def best_by_band(trials: Sequence[Trial], targets_s: Sequence[float]) -> Mapping[float, Trial]:
    """Return for each target the most accurate trial that is slower than the target before.

    Within :data:`WITHIN` of a target counts as fast enough, as it does for a derived network. One
    trial a target: as many networks are trained and measured as a search by gradient derives.
    Targets for which there is none are left out.
    """
    chosen, low_s = {}, 0.0
    for target_s in sorted(targets_s):
        high_s = target_s * (1.0 + WITHIN)
        band = [t for t in trials if low_s < t.latency_s <= high_s]
        if band:
            chosen[target_s] = max(band, key=lambda t: (t.accuracy_pct, -t.latency_s))
        low_s = high_s
    return chosen
