"""What is timed: a network, a block, or a user's own model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hwprof.errors import ModelError
from hwprof.space.architecture import Architecture, Slot
from hwprof.space.pieces import Piece, piece_from_json

Role = Literal["network", "block", "model"]


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input of a user's model: ``--input NAME=1x3x224x224:float32``."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


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
        """A model file; its bytes are hashed into the key.

        Raises:
            ModelError: the file cannot be read.
        """
        file = Path(path)
        try:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
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
            "inputs": [[i.name, list(i.shape), i.dtype] for i in self.inputs],
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
            inputs=tuple(InputSpec(name=n, shape=tuple(s), dtype=d) for n, s, d in data["inputs"]),
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


@dataclass(frozen=True, kw_only=True)
class BlockPlace:
    """Where a distinct block stands in its space: one workload may have many places."""

    slot: Slot
    block: str
    count: int = 1
