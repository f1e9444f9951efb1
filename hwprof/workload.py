"""What is timed: a network, a block, or a user's own model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from hwprof.errors import ModelError
from hwprof.space.architecture import Architecture
from hwprof.space.lookup import piece_from_json
from hwprof.space.pieces import Piece

Role = Literal["network", "block", "model"]

_CHUNK_BYTES = 2**20
_LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f])", re.DOTALL)
"""How an ONNX file begins to name a file that holds weights of it (``TensorProto.external_data``, key
and value): behind it stand the name's length in bytes, then the name."""
_LONGEST_ENTRY_BYTES = 2**8
"""More than such an entry takes where the name has 127 bytes."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input of a user's model: ``--input NAME=1x3x224x224:float32``, ``--input NAME=:int64=8``."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    value: float | None = None
    """What every entry of it is; None draws them at random."""

    @property
    def text(self) -> str:
        """The input as ``--input`` takes it."""
        given = "" if self.value is None else f"={self.value}"
        return f"{self.name}={'x'.join(map(str, self.shape))}:{self.dtype}{given}"

    def to_json(self) -> list[Any]:
        """Return the input as plain data; without a value as it was before there were values."""
        given = () if self.value is None else (self.value,)
        return [self.name, list(self.shape), self.dtype, *given]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Self:
        """Read an input from plain data."""
        name, shape, dtype, *given = data
        return cls(name=name, shape=tuple(shape), dtype=dtype, value=given[0] if given else None)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One thing to time, described by inert data that travels to the worker as JSON.

    Exactly one of ``arch`` (a network of a space), ``piece`` (a block alone), ``path`` (a model
    file) and ``target`` (``package.module:callable``, torch) is set. ``seed`` draws the weights
    of networks and blocks. ``content`` is the hash of a model file's bytes, so that an edited
    file never passes for the one that was measured before.
    """

    role: Role
    label: str
    arch: Architecture | None = None
    piece: Piece | None = None
    path: str | None = None
    target: str | None = None
    content: str | None = None
    inputs: tuple[InputSpec, ...] = ()
    seed: int = 0

    @classmethod
    def network(cls, arch: Architecture, label: str | None = None) -> Workload:
        """A whole network."""
        return cls(role="network", label=label or f"network {arch.arch_id}", arch=arch)

    @classmethod
    def block(cls, piece: Piece, label: str) -> Workload:
        """A block alone, at its true input shape."""
        return cls(role="block", label=label, piece=piece)

    @classmethod
    def from_file(cls, path: str | Path, inputs: tuple[InputSpec, ...] = ()) -> Workload:
        """A model file; its bytes are hashed into the key, those of its weights' files too.

        Raises:
            ModelError: the file cannot be read.
        """
        file = Path(path)
        try:
            digest = _content(file)
        except OSError as error:
            raise ModelError(
                f"cannot read the model {str(file)!r}: {error.strerror or error}; "
                "expected a path to an .onnx or .tflite file"
            ) from error
        return cls(
            role="model",
            label=file.name,
            path=str(file.resolve()),
            content=digest,
            inputs=inputs,
        )

    @classmethod
    def from_callable(cls, target: str, inputs: tuple[InputSpec, ...]) -> Workload:
        """A torch module made by ``package.module:callable``."""
        return cls(role="model", label=target, target=target, inputs=inputs)

    def to_json(self) -> dict[str, Any]:
        """Return the workload as plain data."""
        return {
            "role": self.role,
            "label": self.label,
            "arch": self.arch.to_json() if self.arch else None,
            "piece": self.piece.to_json() if self.piece else None,
            "path": self.path,
            "target": self.target,
            "content": self.content,
            "inputs": [spec.to_json() for spec in self.inputs],
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Workload:
        """Read a workload from plain data."""
        return cls(
            role=data["role"],
            label=data["label"],
            arch=Architecture.from_json(data["arch"]) if data["arch"] else None,
            piece=piece_from_json(data["piece"]) if data["piece"] else None,
            path=data["path"],
            target=data["target"],
            content=data["content"],
            inputs=tuple(map(InputSpec.from_json, data["inputs"])),
            seed=data["seed"],
        )

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits that identify what is timed (label and place apart)."""
        data = self.to_json()
        del data["label"]
        if self.content is not None:
            del data["path"]
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def distinct(workloads: Iterable[Workload]) -> list[Workload]:
    """Return the workloads once each, in order; of several with one key the first counts."""
    found: dict[str, Workload] = {}
    for workload in workloads:
        found.setdefault(workload.key, workload)
    return list(found.values())


def model_files(model: str | Path) -> tuple[Path, ...]:
    """Return a model's file and those beside it that hold weights of it, as torch exports ONNX.

    Raises:
        OSError: it cannot be read.
    """
    return _scanned(Path(model))[1]


def _content(model: Path) -> str:
    """Return the hash of a model: of its file, or of all that are its files."""
    digest, (_, *weights) = _scanned(model)
    if not weights:
        return digest
    whole = hashlib.sha256(digest.encode())
    for path in weights:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _scanned(model: Path) -> tuple[str, tuple[Path, ...]]:
    """Return the hash of the file alone, and all files of the model, itself first.

    It is read in parts and not parsed: a worker's memory is metered while it does this.
    """
    digest, kept = hashlib.sha256(), b""
    names: set[str] = set()
    with model.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if model.suffix != ".onnx":
                continue
            seen = kept + chunk
            for found in _LOCATION.finditer(seen):
                name = seen[found.end() : found.end() + found[1][0]]
                if len(name) == found[1][0]:  # else it goes on in the next part
                    names.add(name.decode(errors="replace"))
            kept = seen[-_LONGEST_ENTRY_BYTES:]
    beside = (model.parent / name for name in sorted(names) if name.isprintable())
    return digest.hexdigest(), (model, *(path for path in beside if path.is_file()))
