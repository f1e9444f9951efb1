"""Checkpoints of training: weights, and in plain JSON what they are weights of.

A file is what ``torch.save`` makes of ``{"format", "meta", "weights", "optimizer", "companion",
"scaler"}`` and is read with ``weights_only=True``, so a checkpoint from elsewhere cannot run code.
``optimizer`` is None once training has finished; ``companion`` holds what went along with it (the
architecture parameters of a search) and is None where nothing did; ``scaler`` is the scale of the
loss, None unless training is in fp16.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from hwprof.campaign import built
from hwprof.errors import (
    DataError,
    FormatVersionError,
    IncompatibleRunError,
    StoreError,
    next_step,
)
from hwprof.files import write_whole
from hwprof.search.data.tasks import ImageTask, load_task
from hwprof.search.learning import parallel
from hwprof.search.supernets.ofa_weights import is_published
from hwprof.space import DesignSpace, get_space
from hwprof.torch_import import refuse_too_large

FORMAT = 1
BUILT = "built"
"""What the parts of a user's own space build, in the plain data of a space."""

WRITABLE = "name a file in an existing folder that you may write"

Kind = Literal["supernet", "network"]


@dataclass(frozen=True, kw_only=True)
class CheckpointMeta:
    """What the weights are of, how they were trained and how good they are.

    ``space`` and ``task`` are plain data (:func:`space_to_json`, :func:`task_to_json`);
    ``arch`` is set for a single network. ``settings`` are those that shape the weights: a run
    with others is another run. ``figures`` hold accuracies once training has finished.
    """

    kind: Kind
    space: Mapping[str, Any]
    task: Mapping[str, Any]
    settings: Mapping[str, Any]
    arch: Mapping[str, Any] | None = None
    step: int = 0
    n_steps: int
    seconds: float = 0.0
    loss: float | None = None
    figures: Mapping[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """Whether all steps were trained and the result judged."""
        return self.figures is not None

    def identity(self) -> dict[str, Any]:
        """Return by name all that makes two trainings the same one."""
        return {
            "kind": self.kind,
            # Settings name a precision only where it is another.
            "precision": "fp32",
            **{name: value for name, value in self.space.items() if name != BUILT},
            "arch": self.arch,
            "images": self.task["digest"],
            **self.settings,
        }


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint in memory."""

    meta: CheckpointMeta
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any] | None
    companion: Mapping[str, Any] | None = None
    scaler: Mapping[str, Any] | None = None


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Hold the lock of a checkpoint, ``.NAME.lock`` beside it, while it is trained.

    Of several processes that train together the first holds it. The file stays: to remove it
    would let two others hold it at once.

    Raises:
        StoreError: another training holds it, or the folder is missing or read-only.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    refused = _acquire(lock, path) if parallel.rank() == 0 else None
    if not parallel.decided_by_first(refused is None):
        raise refused or StoreError(
            f"the first process may not write {str(path)!r}; see its message for what to do"
        )
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, path: Path) -> StoreError | None:
    """Acquire the lock; return why it could not be."""
    # The lock would make the folder: a mistyped one is to be told, not made.
    if not path.parent.is_dir():
        return _unwritable(path, "its folder does not exist", WRITABLE)
    try:
        lock.acquire()
    except Timeout:
        return StoreError(
            f"another training is writing {str(path)!r}; wait for it, or name another --out"
        )
    except OSError as error:
        return _refused(path, error)
    return None


def _refused(path: Path, error: OSError) -> StoreError:
    return _unwritable(path, error.strerror or str(error), next_step(error, WRITABLE))


def _unwritable(path: Path, why: str, step: str) -> StoreError:
    return StoreError(f"cannot write the checkpoint {str(path)!r}: {why}; {step}")


def save_checkpoint(
    path: Path,
    meta: CheckpointMeta,
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    companion: Mapping[str, Any] | None = None,
    *,
    scaler: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint: the whole file or, where that fails, the earlier one stays.

    Raises:
        StoreError: the folder is missing, read-only or full.
    """
    content = {
        "format": FORMAT,
        "meta": json.dumps(asdict(meta)),
        "weights": module.state_dict(),
        "optimizer": optimizer.state_dict() if optimizer is not None else None,
        "companion": companion,
        "scaler": scaler,
    }
    # Into memory first: torch makes a RuntimeError of its own of a disk that is full.
    whole = io.BytesIO()
    torch.save(content, whole)
    try:
        # Given back: what still refers to it after an error would keep the memory from being freed.
        with whole.getbuffer() as data:
            write_whole(path, data, alone=True)  # :func:`only_writer`
    except OSError as error:
        raise _refused(path, error) from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        DataError: no such file, or not a checkpoint.
        FormatVersionError: written by another version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(type(content).__name__)
        version = content["format"]
    except OSError as error:
        raise DataError(
            f"cannot read the checkpoint {str(path)!r}: {error.strerror or error}; "
            "expected a file that `hwprof train --out` wrote"
        ) from error
    # On a file that is none, or none any more, the unpickler raises whatever its bytes lead it to.
    except Exception as error:
        refuse_too_large(path, error)
        if is_published(path):
            raise DataError(
                f"{str(path)!r} is a published once-for-all supernet, which needs no training; take "
                f"accuracies from it with --accuracy supernet:{path} --data FOLDER"
            ) from error
        raise DataError(
            f"{str(path)!r} is no checkpoint or is damaged; expected a file that "
            "`hwprof train --out` wrote"
        ) from error
    if version != FORMAT:
        raise FormatVersionError(
            f"{str(path)!r} has the format {version!r}; this hwprof reads format {FORMAT}: train "
            "again with `hwprof train`"
        )
    try:
        meta = CheckpointMeta(**json.loads(content["meta"]))
        weights, optimizer = content["weights"], content["optimizer"]
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{str(path)!r} is no checkpoint or is damaged ({error}); expected a file that "
            "`hwprof train --out` wrote"
        ) from error
    return Checkpoint(
        meta=meta,
        weights=weights,
        optimizer=optimizer,
        # Checkpoints from before there were companions, or scales, have none.
        companion=content.get("companion"),
        scaler=content.get("scaler"),
    )


def require_same(path: Path, found: CheckpointMeta, wanted: CheckpointMeta) -> None:
    """Check that a checkpoint is of the training that is asked for.

    Raises:
        IncompatibleRunError: it is not; names what differs.
    """
    have, want = found.identity(), json.loads(json.dumps(wanted.identity()))
    for name in want:
        if have.get(name) != want[name]:
            told = f"{name} {have.get(name)!r}, not {want[name]!r}"
            if isinstance(want[name], dict | list):
                told = f"other {name}"
            raise IncompatibleRunError(
                f"{str(path)!r} was trained with {told}; name another --out, or ask for the same"
            )
    require_same_parts(found.space, wanted.space)


def space_to_json(space: DesignSpace) -> dict[str, Any]:
    """Return what :func:`space_from_json` needs to build the space again."""
    return {
        "name": space.name,
        "resolution_px": space.resolution_px,
        "n_classes": space.n_classes,
        "candidates": {str(slot): list(space.choices(slot)) for slot in space.slots},
        "max_depth": list(space.max_depth),
        **built(space),
    }


def require_same_parts(have: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    """Check that a space of the user's own still builds what it built for a checkpoint.

    Checkpoints from before this was kept do not say.

    Args:
        have: the plain data of the checkpoint's space.
        want: that of the space as it is now, in everything else the same.

    Raises:
        IncompatibleRunError: it builds something else.
    """
    if have.get(BUILT, want.get(BUILT)) != want.get(BUILT):
        raise IncompatibleRunError(
            f"the checkpoint was trained with another {want['name']!r}: what its blocks build has "
            "changed since; give the changed space another name, or train again into another --out"
        )


def space_from_json(data: Mapping[str, Any]) -> DesignSpace:
    """Return the space of a checkpoint: reductions included, its head for the task's classes.

    Raises:
        SpaceError: the space is not known here.
        IncompatibleRunError: it is one of the user's own, and builds something else now.
    """
    space = get_space(data["name"], data["resolution_px"])
    known = data["candidates"]
    alive = {slot: tuple(known[str(slot)]) for slot in space.slots if str(slot) in known}
    reduced = space.restrict(alive, tuple(data["max_depth"]))
    space = replace(reduced, n_classes=data["n_classes"])
    require_same_parts(data, space_to_json(space))
    return space


def task_to_json(task: ImageTask) -> dict[str, Any]:
    """Return what identifies the images, and where they came from."""
    return {
        "name": task.name,
        "classes": list(task.classes),
        "source": task.source,
        "limit_images": task.limit_images,
        "split_seed": task.split_seed,
        "digest": task.digest,
    }


def task_from_json(
    data: Mapping[str, Any], *, resolution_px: int, source: str | None = None
) -> ImageTask:
    """Load the images of a checkpoint again, from ``source`` where they have moved there.

    Raises:
        DataError: they are not there, or no longer the images that were trained on.
    """
    task = load_task(
        source or data["source"],
        resolution_px=resolution_px,
        limit_images=data["limit_images"],
        split_seed=data["split_seed"],
    )
    if task.digest != data["digest"]:
        raise DataError(
            f"{source or data['source']!r} holds other images than the checkpoint was trained on "
            f"({data['name']!r}, digest {data['digest']}, not {task.digest}); give those with "
            "--data, or train again"
        )
    return task
