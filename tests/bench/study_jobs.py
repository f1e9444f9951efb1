"""A study's sizes, and work that is done once, whenever it is stopped and called again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much everything is trained, judged and measured."""

    resolution_px: int = 24
    limit_images: int = 5_000
    train_batch: int = 32
    warmup_epochs: int = 8
    epochs: int = 6
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Latencies to search for, in the range that both spaces have."""
    max_accuracy_drop_pp: float = 1.0
    """What the reduction may cost: trained this shortly, without a budget no cut is certain."""
    retrain_epochs: int = 8
    alpha_lr: float = 0.05
    networks_per_update: int = 6
    reward_images: int = 64
    max_evals: int = 150
    networks: int | None = None

    @property
    def supernet_epochs(self) -> int:
        """What a ProxylessNAS cell trains in all."""
        return self.warmup_epochs + self.epochs * len(self.shares)


QUICK = Size(
    resolution_px=16,
    limit_images=120,
    train_batch=16,
    warmup_epochs=1,
    epochs=4,
    shares=(0.3, 0.6),
    retrain_epochs=1,
    max_evals=12,
    networks=100,
)
"""Shows that everything runs."""


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """Finished jobs, one file each in ``folder``."""

    folder: Path

    def once(self, name: str, job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what ``job`` came to, with the processor time that it took.

        ``cpu_s`` is None where the job had been interrupted: what was spent before is not known.
        """
        kept, began = (self.folder / f"{name}.{end}" for end in ("json", "began"))
        if kept.exists():
            found: dict[str, Any] = json.loads(kept.read_text())
            return found
        fresh = not began.exists()
        began.touch()
        # Not by the clock: a stopped process, or another one on the same core, takes no time.
        started_s = time.process_time()
        found = job()
        found["cpu_s"] = time.process_time() - started_s if fresh else None
        write_whole(kept, json.dumps(found))
        return found


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is whole or not there; two processes may write the same."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    os.replace(partial, path)


def total(seconds: Sequence[float | None]) -> float | None:
    """Return the sum, None where a part is unknown."""
    known = [s for s in seconds if s is not None]
    return sum(known) if len(known) == len(seconds) else None
