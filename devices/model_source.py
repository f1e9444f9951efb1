"""What a runtime is given to read: a user's model file, or the bytes of what hwprof writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprof.errors import ModelError
from hwprof.graph import to_onnx, workload_graph
from hwprof.workload import Workload, model_files

if TYPE_CHECKING:
    from hwprof.graph.onnx_writer import FloatType

Source = str | bytes
"""Path of a model file, or a serialised model."""


def model_path(workload: Workload) -> str:
    """Return the path of a user's model file, which must still be the one that was named.

    Raises:
        ModelError: it has changed or is gone.
    """
    assert workload.path is not None
    current = Workload.from_file(workload.path).content
    if workload.content is not None and current != workload.content:
        raise ModelError(f"{workload.path!r} has changed since it was named: measure it again")
    return workload.path


def onnx_source(workload: Workload, batch: int, float_type: FloatType = "fp32") -> Source:
    """Return a user's file, or a network or block as ONNX.

    Args:
        workload: no torch callable.
        batch: size of the first dimension of what is written.
        float_type: of all tensors that are written.

    Raises:
        ModelError: the file has changed or is gone.
    """
    if workload.path is not None:
        return model_path(workload)
    graph = workload_graph(workload)
    return to_onnx(graph, seed=workload.seed, batch=batch, float_type=float_type)


def source_bytes(source: Source) -> int:
    """Return the size of a model, of weights that it keeps in files of their own as well."""
    if isinstance(source, bytes):
        return len(source)
    return sum(path.stat().st_size for path in model_files(source))


def callable_refusal(workload: Workload, other: str, way: str = "export it to .onnx") -> str:
    """Return why a runtime that reads models does not take a torch callable; else nothing.

    Args:
        workload: what may be one.
        other: the device that runs callables.
        way: how it becomes a model.
    """
    if workload.target is None:
        return ""
    return f"{workload.target!r} is a torch callable: use --device {other}, or {way}"
