"""``devices``, ``spaces``, ``cost``, ``export`` and ``bench``: questions about one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwprof.api.tables import Table
from hwprof.errors import HwprofError, ModelError, PlanError
from hwprof.measure.records import Cache, DeviceOptions, Measurement, Precision, plan_for
from hwprof.space import Architecture, DesignSpace, get_space, space_names
from hwprof.space import read_architecture as _read_architecture
from hwprof.workload import InputSpec, Workload

EXPORT_FORMATS = ("onnx", "torch")


@dataclass(frozen=True, kw_only=True)
class DeviceRow:
    """A registered device and whether it is usable here."""

    name: str
    available: bool
    reason: str
    runtime: str
    runtime_version: str | None
    hardware: str | None

    def to_row(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof devices --json``."""
        return {
            "name": self.name,
            "available": self.available,
            "reason": self.reason,
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "hardware": self.hardware,
        }


@dataclass(frozen=True, kw_only=True)
class SpaceRow:
    """A registered design space in one line."""

    space: DesignSpace

    def to_row(self) -> dict[str, Any]:
        """Return what ``hwprof spaces --json`` prints for the space."""
        return self.space.to_summary()


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """MACs and parameters of one network."""

    arch: Architecture
    macs: int
    params: int

    def to_row(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof cost --json``."""
        return {"arch": self.arch.to_json(), "macs": self.macs, "params": self.params}


def devices() -> Table[DeviceRow]:
    """List the registered devices, whether each is usable here and, if not, what would help."""
    from hwprof.devices import list_devices

    return Table(
        tuple(
            DeviceRow(
                name=s.name,
                available=s.available,
                reason=s.reason,
                runtime=s.runtime,
                runtime_version=s.runtime_version,
                hardware=s.hardware,
            )
            for s in list_devices()
        )
    )


def spaces(name: str | None = None) -> Table[SpaceRow]:
    """List the design spaces, or the one called ``name`` (a reduced space's file will do).

    Raises:
        SpaceError: no such space.
    """
    names = (name,) if name is not None else space_names()
    return Table(tuple(SpaceRow(space=get_space(n)) for n in names))


def cost(arch: Architecture | str) -> CostRow:
    """Return the MACs and parameters of a network.

    Args:
        arch: an architecture, the path of its JSON, ``-``, or a named one (``proxyless-gpu``).
    """
    from hwprof.graph import architecture_cost
    from hwprof.space import space_of

    network = as_architecture(arch)
    figures = architecture_cost(space_of(network), network)
    return CostRow(arch=network, macs=figures.macs, params=figures.params)


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
    """Write a network as a file: ``onnx`` (folded batch norm) or ``torch`` (a state dict).

    Args:
        arch: as in :func:`cost`.
        out: the file to write.
        format: ``onnx`` or ``torch``.
        checkpoint: take the weights of this supernet or trained network; without it they are
            random (drawn from ``seed``), which is enough for latency.
        data: images that renew the batch norm of a supernet's network; a published
            once-for-all supernet needs them.
        batch: batch size of the ONNX file.
        seed: of the random weights.
    """
    from hwprof import graph as graphs
    from hwprof.space import space_of

    network = as_architecture(arch)
    if format not in EXPORT_FORMATS:
        raise PlanError(f"unknown format {format!r}; expected {' or '.join(EXPORT_FORMATS)}")
    target = Path(out)
    if checkpoint is not None:
        from hwprof.search.accuracy import network_from_checkpoint

        module: Any = network_from_checkpoint(checkpoint, network, data=data)
        # The task may have another number of classes than the space.
        graph = module.graph
    else:
        graph = graphs.network_graph(space_of(network), network)
        module = graphs.to_torch(graph, seed=seed) if format == "torch" else None
    if module is not None and format == "torch":
        content = _torch_file(network, module)
    else:
        weights = graphs.weights_from_torch(graph, module) if module is not None else None
        content = graphs.to_onnx(graph, seed=seed, weights=weights, batch=batch)
    write_file(target, content)
    return target


def _torch_file(arch: Architecture, module: Any) -> bytes:
    """Return a file that ``torch.load(..., weights_only=True)`` reads."""
    import io

    import torch

    buffer = io.BytesIO()
    torch.save({"arch": arch.canonical_json(), "state_dict": module.state_dict()}, buffer)
    return buffer.getvalue()


def bench(
    model: Architecture | str | Path,
    *,
    device: str = "cpu",
    inputs: Sequence[InputSpec | str] = (),
    preset: str = "standard",
    cache: Cache = "hot",
    threads: int = 1,
    batch: int = 1,
    precision: Precision = "fp32",
    timeout_s: float = 120.0,
    seed: int = 0,
    script: str | None = None,
    progress: Any = None,
) -> Measurement:
    """Time a model on a device and say how far the number can be trusted.

    Args:
        model: an ``.onnx`` file, a torch module as ``package.module:callable``, or a network
            of a space (an architecture, its JSON file, a named one).
        device: a name that ``hwprof devices`` lists.
        inputs: shapes and types of a user model's inputs, ``NAME=1x3x224x224:float32``.
        preset: ``quick``, ``standard`` or ``strict``.
        cache: ``hot`` (back to back) or ``cold`` (caches flushed before every call).
        threads: threads of the runtime.
        batch: batch size of networks of a space; a user's model has it in its inputs.
        precision: arithmetic type.
        timeout_s: longest a single step may take before it is ended.
        seed: of random inputs, weights and the order of bursts.
        script: steers the ``null`` device only.
        progress: called with a progress record as measuring goes on.

    Raises:
        DeviceError: the device is not there, refuses the model, or gave no number.
    """
    from hwprof.devices import device_ref
    from hwprof.measure.engine import measure

    options = DeviceOptions(threads=threads, batch=batch, precision=precision, script=script)
    plan = plan_for(preset, cache=cache, timeout_s=timeout_s, seed=seed)
    workload = as_workload(model, inputs, seed=seed)
    (result,) = tuple(measure([workload], device_ref(device, options), plan, progress=progress))
    return raise_failure(result)


def raise_failure(result: Any) -> Measurement:
    """Return a measurement, or raise what a failure stands for."""
    from hwprof.errors import CompileError, DeviceUnavailableError, MeasurementError

    if isinstance(result, Measurement):
        return result
    message = f"{result.workload.label}: {result.stage} failed ({result.kind}): {result.message}"
    errors: dict[str, type[HwprofError]] = {
        "model": ModelError,
        "unavailable": DeviceUnavailableError,
        "refused": CompileError,
        "unsupported": CompileError,
    }
    raise errors.get(result.kind, MeasurementError)(message)


def as_architecture(arch: Architecture | str) -> Architecture:
    """Return ``arch`` itself, or read it from a file, standard input or by name."""
    return arch if isinstance(arch, Architecture) else _read_architecture(arch)


def as_workload(
    model: Architecture | str | Path, inputs: Sequence[InputSpec | str] = (), *, seed: int = 0
) -> Workload:
    """Turn what a user names on the command line into a workload.

    Raises:
        ModelError: it is none of an ONNX file, a callable and an architecture.
    """
    from dataclasses import replace

    specs = tuple(parse_input(i) if isinstance(i, str) else i for i in inputs)
    if isinstance(model, Architecture):
        return replace(Workload.network(model), seed=seed)
    text = str(model)
    if text.endswith((".onnx", ".tflite")):
        return Workload.from_file(text, specs)
    head, colon, attribute = text.partition(":")
    if colon and attribute.isidentifier() and all(p.isidentifier() for p in head.split(".")):
        return Workload.from_callable(text, specs)
    network = _read_architecture(text)
    label = text if not text.endswith(".json") and text != "-" else None
    return replace(Workload.network(network, label), seed=seed)


def parse_input(text: str) -> InputSpec:
    """Read ``NAME=1x3x224x224:float32`` (``:float32`` may be left out).

    Raises:
        ModelError: the text is not of that form.
    """
    import numpy as np

    name, equals, rest = text.partition("=")
    shape, _, dtype = rest.partition(":")
    try:
        sizes = tuple(int(n) for n in shape.split("x")) if shape else ()
        kind = np.dtype(dtype or "float32").name
        if not (name and equals and rest) or any(n <= 0 for n in sizes):
            raise ValueError(text)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"cannot read the input {text!r}; expected NAME=SHAPE:TYPE, "
            "for example ids=1x128:int64 or image=1x3x224x224"
        ) from error
    return InputSpec(name=name, shape=sizes, dtype=kind)


def write_file(target: Path, content: bytes) -> None:
    """Write a whole file or nothing.

    Raises:
        StoreError: the folder is missing, read-only or full.
    """
    import os

    from hwprof.errors import StoreError

    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, target)
    except OSError as error:
        if partial.exists():
            partial.unlink()
        raise StoreError(
            f"cannot write {str(target)!r}: {error.strerror or error}; "
            "name a file in an existing folder that you may write"
        ) from error
