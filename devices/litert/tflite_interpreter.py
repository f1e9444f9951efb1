"""LiteRT's interpreter: which package brings it, and what it says about a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from hwprof.devices.binding import ModelInput
from hwprof.errors import DeviceUnavailableError

PROVIDER = "XNNPACK"
INSTALL = "pip install 'hwprof[tflite]'"
DELEGATE = "DELEGATE"
"""The name of the operator that stands for a piece which a delegate took over."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The package that brings the interpreter."""

    name: str
    version: str
    interpreter: Callable[..., Any]


def load_runtime() -> Runtime:
    """Return LiteRT, or the older tflite-runtime where a board has only that.

    Raises:
        DeviceUnavailableError: neither can be imported.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter

        name = "ai-edge-litert"
    except ImportError as error:
        try:
            from tflite_runtime.interpreter import Interpreter

            name = "tflite-runtime"
        except ImportError:
            raise DeviceUnavailableError(
                f"the device 'tflite' needs ai-edge-litert or tflite-runtime ({error}): "
                f"run {INSTALL}"
            ) from error
    return Runtime(name=name, version=metadata.version(name), interpreter=Interpreter)


@dataclass(frozen=True, kw_only=True)
class Delegation:
    """How much of a loaded model the delegate has taken over."""

    n_pieces: int
    outside: tuple[str, ...]
    """Operators outside of it, each named as often as it occurs."""

    @property
    def provider(self) -> str:
        """What runs the model, in words."""
        if self.n_pieces == 0:
            return "built-in kernels"
        return f"{PROVIDER}, {self.n_pieces} piece{'s' if self.n_pieces > 1 else ''}"


def delegation(interpreter: Any) -> Delegation:
    """Return how an interpreter runs its model, walking back from the model's outputs.

    The runtime lists the operators of the file, those that were taken over included, then one
    DELEGATE for every piece. Whatever makes a tensor that no piece makes is outside.
    """
    operators = interpreter._get_ops_details()  # LiteRT tells it nowhere else
    pieces = [op for op in operators if op["op_name"] == DELEGATE]
    makers = {int(t): op for op in (*operators, *pieces) for t in op["outputs"]}
    wanted = [int(output["index"]) for output in interpreter.get_output_details()]
    outside: list[str] = []
    seen: set[int] = set()
    while wanted:
        maker = makers.get(wanted.pop())
        if maker is None or maker["index"] in seen:
            continue
        seen.add(maker["index"])
        wanted += [int(t) for t in maker["inputs"]]
        if maker["op_name"] != DELEGATE:
            outside.append(str(maker["op_name"]))
    return Delegation(n_pieces=len(pieces), outside=tuple(sorted(outside)))


def model_inputs(interpreter: Any) -> list[ModelInput]:
    """Return what an interpreter says about its inputs; -1 is an open dimension."""
    return [
        _model_input(node["name"], node["shape_signature"], np.dtype(node["dtype"]))
        for node in interpreter.get_input_details()
    ]


def _model_input(name: str, signature: Sequence[int], dtype: np.dtype[Any]) -> ModelInput:
    return ModelInput(
        name=name,
        shape=tuple(int(d) if d >= 0 else f"d{i}" for i, d in enumerate(signature)),
        type_name=dtype.name,
        dtype=dtype.name if dtype.kind in "fiub" else None,
    )
