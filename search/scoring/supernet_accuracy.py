"""Accuracies from the checkpoint of a supernet."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from hwprof.errors import DataError, IncompatibleRunError
from hwprof.graph import network_graph, to_torch
from hwprof.search.data.image_files import Split
from hwprof.search.learning.checkpoint import (
    Checkpoint,
    load_checkpoint,
    space_from_json,
    task_from_json,
)
from hwprof.search.learning.evaluation import SupernetJudge
from hwprof.search.supernets.elastic import supernet_of
from hwprof.space import Architecture, DesignSpace, space_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class SupernetAccuracy:
    """Top-1 of a supernet's networks, each with batch norm recalibrated for it.

    :meth:`score` takes all validation images, :meth:`test_score` images that neither training
    nor a search has seen. Encodings of the same network get the same accuracy.
    """

    name: str
    digest: str
    judge: SupernetJudge

    @classmethod
    def open(cls, path: Path, *, data: str | None = None) -> SupernetAccuracy:
        """Read a checkpoint and the images it was trained on.

        Raises:
            DataError: the file is no checkpoint of a supernet, or the images are not there.
        """
        found = load_checkpoint(path)
        return cls(
            name=f"supernet:{path.name}",
            digest=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
            judge=_judge(path, found, data),
        )

    @property
    def space(self) -> DesignSpace:
        """The space that the supernet was trained for."""
        return self.judge.supernet.space

    def score(self, archs: Sequence[Architecture]) -> list[float | None]:
        """Return validation top-1 in percent; None for what a reduced supernet lacks.

        Raises:
            IncompatibleRunError: an architecture is of another space or resolution.
        """
        return [self._top1_pct(arch, self.judge.task.validation) for arch in archs]

    def test_score(self, archs: Sequence[Architecture]) -> list[float | None]:
        """Return top-1 on the held-out test images, as :meth:`score` does."""
        return [self._top1_pct(arch, self.judge.task.test) for arch in archs]

    def _top1_pct(self, arch: Architecture, split: Split) -> float | None:
        require_own_space(self.name, self.space, arch)
        space_of(arch).require_searchable(arch)
        # The canonical encoding may need a block that a reduced supernet lacks.
        for encoding in (self.space.canonical(arch), arch):
            if self.space.holds(encoding):
                return self.judge.top1_pct(encoding, [split])[0]
        return None


def trained_network(
    checkpoint: str | Path, arch: Architecture, *, data: str | None = None
) -> nn.Module:
    """Return ``arch`` with the weights of a checkpoint; see ``network_from_checkpoint``."""
    path = Path(checkpoint)
    found = load_checkpoint(path)
    if found.meta.kind == "supernet":
        judge = _judge(path, found, data)
        require_own_space(path.name, judge.supernet.space, arch)
        judge.supernet.space.require_searchable(arch)
        return judge.network(arch)
    if found.meta.arch != arch.to_json():
        raise IncompatibleRunError(
            f"{str(path)!r} holds the trained network {found.meta.arch}, not {arch.to_json()}; "
            "ask for that one, or train this one"
        )
    space = replace(space_of(arch), n_classes=found.meta.space["n_classes"])
    network = to_torch(network_graph(space, arch))
    network.load_state_dict(found.weights)
    return network.eval()


def require_own_space(source: str, space: DesignSpace, arch: Architecture) -> None:
    """Check that ``arch`` is of the space that ``source`` was trained for.

    Raises:
        IncompatibleRunError: it is of another one; names both.
    """
    if (arch.space, arch.resolution_px) != (space.name, space.resolution_px):
        raise IncompatibleRunError(
            f"{source} was trained for {space.name!r} at {space.resolution_px} px; the network is "
            f"of {arch.space!r} at {arch.resolution_px} px: use a supernet of that space"
        )


def _judge(path: Path, found: Checkpoint, data: str | None) -> SupernetJudge:
    meta = found.meta
    if meta.kind != "supernet":
        raise DataError(
            f"{str(path)!r} holds one trained network; expected a supernet, as "
            "`hwprof train --space` writes it"
        )
    if not meta.finished:
        log.warning(
            "%s is not fully trained (step %d of %d): its accuracies are lower than they could be; "
            "the same `hwprof train` goes on with it",
            path.name,
            meta.step,
            meta.n_steps,
        )
    space = space_from_json(meta.space)
    task = task_from_json(meta.task, resolution_px=space.resolution_px, source=data)
    supernet = supernet_of(space, seed=0)
    supernet.load_state_dict(found.weights)
    return SupernetJudge.of(supernet.eval(), task)
