"""``devices``, ``spaces``, ``cost`` and ``bench``: questions about one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.api.tables import Table
from hwprof.errors import ModelError, PlanError, SpaceError
from hwprof.graph import architecture_cost
from hwprof.measure.records import (
    Cache,
    DeviceOptions,
    Measurement,
    Precision,
    Result,
    plan_for,
)
from hwprof.progress import ProgressCallback
from hwprof.space import (
    Architecture,
    DesignSpace,
    get_space,
    read_architecture,
    space_names,
    space_of,
)
from hwprof.workload import InputSpec, Workload

if TYPE_CHECKING:
    from hwprof.devices import DeviceStatus

SUSTAINED_S = 300.0
"""Load before sustained latency is timed (methods: measurement protocol, mobile)."""


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


def devices() -> Table[DeviceStatus]:
    """List the registered devices, whether each is usable here and, if not, what would help."""
    from hwprof.devices import list_devices

    return Table(tuple(list_devices()))


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
    network = as_architecture(arch)
    figures = architecture_cost(space_of(network), network)
    return CostRow(arch=network, macs=figures.macs, params=figures.params)


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
    sustained: bool = False,
    timeout_s: float = 120.0,
    seed: int = 0,
    script: str | None = None,
    progress: ProgressCallback | None = None,
) -> Measurement:
    """Time a model on a device and say how far the number can be trusted.

    Args:
        model: an ``.onnx`` or ``.tflite`` file, a torch module as ``package.module:callable``, or a network
            of a space (an architecture, its JSON file, a named one).
        device: a name that ``hwprof devices`` lists.
        inputs: shapes and types of a user model's inputs, ``NAME=1x3x224x224:float32``; with
            ``=VALUE`` behind it that is what every entry is, else they are drawn at random.
        preset: ``quick``, ``standard`` or ``strict``.
        cache: ``hot`` (back to back) or ``cold`` (caches flushed before every call).
        threads: threads of the runtime.
        batch: batch size of networks of a space; a user's model has it in its inputs.
        precision: arithmetic type.
        sustained: time what a device on another machine keeps up after five minutes of load,
            instead of what it does from cool.
        timeout_s: longest a single step may take before it is ended.
        seed: of random inputs, weights and the order of bursts.
        script: steers the ``null`` device only.
        progress: called with a progress record as measuring goes on.

    Raises:
        DeviceError: the device is not there, refuses the model, or gave no number.
        PlanError: an option does not go with the model or the device.
    """
    from hwprof.devices import device_ref
    from hwprof.measure.engine import measure
    from hwprof.store.session_file import SessionFile

    options = DeviceOptions(threads=threads, batch=batch, precision=precision, script=script)
    ref = device_ref(device, options)
    plan = plan_for(preset, cache=cache, timeout_s=timeout_s, seed=seed)
    if sustained:
        if ref.address is None:
            raise PlanError(
                f"--sustained heats and watches a device on another machine, not {device!r}: give "
                f"--device {device}@ssh://user@host, or leave it out"
            )
        longest_s = timeout_s + SUSTAINED_S
        plan = replace(plan, sustained_s=SUSTAINED_S, timeout_s=longest_s)
    workload = as_workload(model, inputs, seed=seed)
    require_batch(workload, batch)
    check_inputs(inputs, workload)
    (result,) = measure([workload], ref, plan, history=SessionFile(), progress=progress)
    return raise_failure(result)


def require_batch(workload: Workload, batch: int) -> None:
    """Refuse a batch size that a user's own model does not have.

    hwprof writes networks of a space for it; a model brings its batch in its inputs, and a number
    that it does not run at would only stand in the result.

    Raises:
        PlanError: no input that was named has it as its first dimension.
    """
    given = [spec.shape[0] for spec in workload.inputs if spec.shape]
    if workload.role == "model" and batch != 1 and batch not in given:
        raise PlanError(
            f"--batch {batch} is for networks of a space; {workload.label!r} has its batch in its "
            f"inputs: name their shapes (--input NAME={batch}x...), or leave --batch out"
        )


def check_inputs(inputs: Sequence[InputSpec | str], *workloads: Workload) -> None:
    """Refuse shapes of inputs where they say nothing, and a callable without any.

    Networks of a space bring their inputs, and so do model files.

    Raises:
        ModelError: a callable does not tell what it takes.
        PlanError: none of the workloads takes inputs.
    """
    if inputs and all(w.role == "network" for w in workloads):
        raise PlanError(
            f"shapes of inputs (--input) are for a model of your own; {workloads[0].label!r} is a "
            "network of a space, whose JSON has its input size (resolution_px): leave them out"
        )
    for workload in workloads:
        if workload.target is not None and not inputs:
            raise ModelError(
                f"{workload.label!r} does not tell what it takes: give the shape of each input, in "
                "order (--input x=1x3x224x224 or ids=1x128:int64)"
            )


def raise_failure(result: Result) -> Measurement:
    """Return a measurement, or raise what a failure stands for."""
    from hwprof.measure.kinds import error_class

    if isinstance(result, Measurement):
        return result
    raise error_class(result.kind)(f"{result.workload.label}: {result.why}")


def as_space(space: str | DesignSpace, resolution_px: int | None = None) -> DesignSpace:
    """Return the space itself, or the one of that name, at the resolution asked for."""
    if isinstance(space, str):
        return get_space(space, resolution_px)
    return space if resolution_px is None else space.at_resolution(resolution_px)


def as_architecture(arch: Architecture | str) -> Architecture:
    """Return ``arch`` itself, or read it from a file, standard input or by name."""
    return arch if isinstance(arch, Architecture) else read_architecture(arch)


def as_workload(
    model: Architecture | str | Path, inputs: Sequence[InputSpec | str] = (), *, seed: int = 0
) -> Workload:
    """Turn what a user names on the command line into a workload.

    Raises:
        ModelError: the model's file cannot be read, or an input is given twice.
        SpaceError: it is none of a model file, a callable and an architecture.
    """
    specs = tuple(parse_input(i) if isinstance(i, str) else i for i in inputs)
    names = [spec.name for spec in specs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ModelError(f"the input {twice[0]!r} is given more than once; expected one shape")
    if isinstance(model, Architecture):
        return replace(Workload.network(model), seed=seed)
    text = str(model)
    if text.endswith((".onnx", ".tflite")):
        return replace(Workload.from_file(text, specs), seed=seed)
    head, colon, attribute = text.partition(":")
    if colon and attribute.isidentifier() and all(p.isidentifier() for p in head.split(".")):
        return replace(Workload.from_callable(text, specs), seed=seed)
    try:
        network = read_architecture(text)
    except SpaceError as error:
        if text == "-" or text.endswith(".json") or text.lstrip().startswith("{"):
            raise
        raise SpaceError(
            f"{error}; or a model as .onnx, .tflite or package.module:callable (torch)"
        ) from error
    label = text if not text.endswith(".json") and text != "-" else None
    return replace(Workload.network(network, label), seed=seed)


def parse_input(text: str) -> InputSpec:
    """Read ``NAME=1x3x224x224:float32`` (``:float32`` may be left out), or ``NAME=1x128:int64=1``.

    A size may be 0: what a model keeps of earlier calls is empty in its first.

    Raises:
        ModelError: the text is not of that form.
    """
    import numpy as np

    name, equals, rest = text.partition("=")
    layout, has_value, given = rest.partition("=")
    shape, _, dtype = layout.partition(":")
    try:
        sizes = tuple(int(n) for n in shape.split("x")) if shape else ()
        kind = np.dtype(dtype or "float32")
        if not (name and equals and rest) or any(n < 0 for n in sizes) or kind.kind not in "fiub":
            raise ValueError(text)
        value = None
        if has_value:
            value = float(given) if kind.kind == "f" else int(given)
            held = np.array(value, kind)
            if not np.isfinite(held) or (kind.kind != "f" and held.item() != value):
                raise ValueError(text)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelError(
            f"cannot read the input {text!r}; expected NAME=SHAPE:TYPE or NAME=SHAPE:TYPE=VALUE, "
            "for example ids=1x128:int64, image=1x3x224x224 or rate=:int64=16000"
        ) from error
    return InputSpec(name=name, shape=sizes, dtype=kind.name, value=value)
