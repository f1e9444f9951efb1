"""``export``: a network of a space as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwprof.api.files import write_file
from hwprof.api.models import as_architecture
from hwprof.errors import PlanError
from hwprof.graph import network_graph, to_onnx, to_torch, weights_from_torch
from hwprof.space import Architecture, space_of

EXPORT_FORMATS = ("onnx", "tflite", "torch")


def export(
    arch: Architecture | str,
    out: str | Path,
    *,
    format: str = "onnx",
    checkpoint: str | Path | None = None,
    data: str | None = None,
    batch: int = 1,
    seed: int = 0,
) -> Path:
    """Write a network as a file.

    ``onnx`` and ``tflite`` have batch norm folded in, and take NCHW and NHWC images; ``torch``
    is a state dict.

    Args:
        arch: as in :func:`cost`.
        out: the file to write.
        format: ``onnx``, ``tflite`` or ``torch``.
        checkpoint: take the weights of this supernet or trained network; without it they are
            random (drawn from ``seed``), which is enough for latency.
        data: images that renew the batch norm of a supernet's network; a published
            once-for-all supernet needs them.
        batch: batch size of the ONNX or TFLite file.
        seed: of the random weights.

    Raises:
        PlanError: an unknown format, images without a checkpoint, or a batch size of weights alone.
        StoreError: the file cannot be written.
    """
    network = as_architecture(arch)
    if format not in EXPORT_FORMATS:
        raise PlanError(f"unknown format {format!r}; expected one of {', '.join(EXPORT_FORMATS)}")
    if data is not None and checkpoint is None:
        raise PlanError(
            "--data is for the weights of --checkpoint; name it, or leave out the images"
        )
    if format == "torch" and batch != 1:
        raise PlanError(
            f"--batch {batch} means nothing to --format torch, which holds weights alone: leave "
            "it out"
        )
    if checkpoint is not None:
        from hwprof.search.scoring.accuracy import network_from_checkpoint

        module: Any = network_from_checkpoint(checkpoint, network, data=data)
        # The task may have another number of classes than the space.
        graph = module.graph
    else:
        graph = network_graph(space_of(network), network)
        module = to_torch(graph, seed=seed) if format == "torch" else None
    if format == "torch":
        content = _torch_file(network, module)
    else:
        weights = weights_from_torch(graph, module) if module is not None else None
        content = _writer(format)(graph, seed=seed, weights=weights, batch=batch)
    write_file(Path(out), content)
    return Path(out)


def _writer(format: str) -> Callable[..., bytes]:
    if format == "onnx":
        return to_onnx
    from hwprof.devices.litert.tflite_writer import to_tflite

    return to_tflite


def _torch_file(arch: Architecture, module: Any) -> bytes:
    """Return a file that ``torch.load(..., weights_only=True)`` reads."""
    import io

    import torch

    buffer = io.BytesIO()
    torch.save({"arch": arch.canonical_json(), "state_dict": module.state_dict()}, buffer)
    return buffer.getvalue()
