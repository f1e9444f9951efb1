"""ONNX Runtime on this host's CPU: the device ``cpu``.

Inputs and outputs are bound once, so a call copies nothing. With one thread the runtime has no
pool; with more its threads spin between operators (the runtime's default, part of the key).
"""

from __future__ import annotations

import mmap
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.devices.binding import (
    ModelInput,
    accepted_inputs,
    bind_inputs,
    drawn_switches,
)
from hwprof.devices.host import (
    NARROW_INTEGERS,
    WIDE_INTEGERS,
    Array,
    HostExecutable,
    all_finite,
    host_fingerprint,
    only_fp32,
    random_inputs,
)
from hwprof.devices.model_source import Source, callable_refusal, onnx_source, source_bytes
from hwprof.devices.ort_trace import OrtTracer
from hwprof.errors import (
    CompileError,
    DeviceUnavailableError,
    HwprofError,
    MeasurementError,
    ModelError,
)
from hwprof.measure.records import DeviceOptions, Fingerprint, MeasurePlan
from hwprof.protocols import OpTrace, Support
from hwprof.workload import InputSpec, Workload

if TYPE_CHECKING:
    from hwprof.protocols import Arrays

PROVIDER = "CPUExecutionProvider"
QUIET = 3
"""Severity of the runtime's log: errors only; they are raised as exceptions anyway."""

_DTYPES: Mapping[str, str] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint64)": "uint64",
    "tensor(uint32)": "uint32",
    "tensor(uint16)": "uint16",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_LACKING = re.compile(
    r"No Op registered for (\S+)|(\S+)\(-?\d+\) is not a registered function/op"
    r"|Could not find an implementation for (\S+)"
)
_OUT_OF_MEMORY = (
    *("Failed to allocate memory", "bad_alloc", "bad allocation", "out of memory"),
    *("_STATUS_ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED"),  # cuBLAS and cuDNN, cuDNN from 9 on
)
_DAMAGED = (
    *("INVALID_PROTOBUF", "INVALID_GRAPH", "INVALID_ARGUMENT", "NO_SUCHFILE"),
    "ModelProto does not have a graph",  # before ONNX Runtime 1.30 without a code
    *("External data", "External initializer"),
)


def refuses(workload: Workload, options: DeviceOptions) -> str:
    """Return why a workload is not taken; nothing where it is."""
    if reason := callable_refusal(workload, "cpu-torch"):
        return reason
    if workload.path is not None and not workload.path.endswith(".onnx"):
        name = Path(workload.path).name
        hint = ": use --device tflite" if name.endswith(".tflite") else ""
        return f"{name!r} is no .onnx file, which cpu reads{hint}"
    return only_fp32(options, "cpu")


class CpuAdapter:
    """Opens ONNX Runtime with its CPU provider.

    Raises:
        DeviceUnavailableError: onnxruntime is not installed.
    """

    def __init__(self, options: DeviceOptions) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise DeviceUnavailableError(
                f"the device 'cpu' needs onnxruntime ({error}): run pip install onnxruntime"
            ) from error
        with suppress(ImportError):  # models are written with it: no part of the first one
            import onnx.helper  # noqa: F401
        self._ort = onnxruntime
        self._options = options
        self.tracer = OrtTracer(self.open_session, options.threads)
        """Times operators; it measures its own cost once a process."""

    def fingerprint(self) -> Fingerprint:
        """Return the facts about CPU, runtime and options."""
        return host_fingerprint(
            "cpu",
            self._options,
            runtime="onnxruntime",
            runtime_version=self._ort.__version__,
            settings={"provider": PROVIDER, "spinning": self._options.threads > 1},
        )

    def supports(self, workload: Workload) -> Support:
        """Take networks and blocks of a space and ``.onnx`` files, in fp32."""
        reason = refuses(workload, self._options)
        return Support(ok=not reason, reason=reason)

    def compile(self, workload: Workload, plan: MeasurePlan) -> CpuExecutable:
        """Load the workload into a session and bind its inputs and outputs.

        Raises:
            ModelError: the file is damaged, was edited, or its inputs cannot be bound.
            CompileError: the runtime refuses it.
        """
        source = onnx_source(workload, self._options.batch)
        start_s = time.perf_counter()
        session = self.open_session(source)
        load_s = time.perf_counter() - start_s
        size = source_bytes(source)
        return CpuExecutable(self, session, workload, source, load_s=load_s, artifact_bytes=size)

    def close(self) -> None:
        """Nothing to free: sessions belong to executables."""

    def open_session(self, source: Source, adjust: Callable[[Any], None] | None = None) -> Any:
        """Return a session of a model; ``adjust`` is given its options first.

        Raises:
            ModelError: the model is damaged.
            CompileError: the runtime refuses it.
        """
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._options.threads
        options.inter_op_num_threads = 1
        options.execution_mode = self._ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = QUIET
        if adjust is not None:
            adjust(options)
        try:
            session = self._ort.InferenceSession(source, options, providers=[PROVIDER])
        except Exception as error:  # the runtime's exceptions share no base class of their own
            raise refusal(error, source) from error
        if session.get_providers()[0] != PROVIDER:
            raise CompileError(f"onnxruntime took {session.get_providers()[0]}, not {PROVIDER}")
        return session


def refusal(error: Exception, source: Source) -> ModelError | CompileError | MemoryError:
    """Tell a damaged file from one that is too large or not for this runtime."""
    text = " ".join(str(error).split())
    if any(words in text for words in _OUT_OF_MEMORY):
        return MemoryError(f"onnxruntime cannot load the model: {text}")
    if lacking := _LACKING.search(text):
        name = next(filter(None, lacking.groups()))
        return CompileError(
            f"onnxruntime lacks the operator {name} ({text}): export the model without it"
        )
    if isinstance(source, str) and any(code in text for code in _DAMAGED):
        return ModelError(
            f"{source!r} is no model that onnxruntime can read ({text}); expected an ONNX file, "
            "export it again"
        )
    return CompileError(f"onnxruntime refuses the model: {text}")


def run_failure(error: Exception) -> MeasurementError | MemoryError:
    """Tell a model that memory does not hold from one that cannot be run on these inputs."""
    text = " ".join(str(error).split())
    out_of_memory = any(words in text for words in _OUT_OF_MEMORY)
    return (MemoryError if out_of_memory else MeasurementError)(
        f"onnxruntime cannot run the model: {text}"
    )


def safe_inputs(
    specs: Sequence[InputSpec], workload: Workload, plan: MeasurePlan
) -> dict[str, Array]:
    """Return random inputs that the model takes.

    How far ids may go is known only to the model, and a GPU does not check them: beyond a table it
    reads foreign memory or, in ONNX Runtime, zeros. That runtime checks on the host: it is asked.
    """
    wide = random_inputs(specs, workload.seed, WIDE_INTEGERS)
    if not any(array.dtype.kind in "iu" for array in wide.values()):
        return wide
    try:
        host = CpuAdapter(DeviceOptions()).compile(workload, plan)
        is_taken = all_finite(host.outputs(wide))
        host.close()
    except (HwprofError, MemoryError):  # not there, not this model, or not these ids
        is_taken = False
    return wide if is_taken else random_inputs(specs, workload.seed, NARROW_INTEGERS)


def model_inputs(session: Any, given: Sequence[InputSpec], source: Source) -> list[ModelInput]:
    """Return what a session says about its inputs, symbolic dimensions included.

    It tells the same of a scalar as of an input with an open number of dimensions, and takes any
    for both: so are those that are given. Of the others the file says which they are.
    """
    nodes = session.get_inputs()
    open_ranks = {spec.name for spec in given}
    if not all(node.shape or node.name in open_ranks for node in nodes):
        open_ranks |= _without_shape(source)
    return [
        ModelInput(
            name=node.name,
            shape=tuple(node.shape) if node.shape or node.name not in open_ranks else None,
            type_name=node.type,
            dtype=_DTYPES.get(node.type),
        )
        for node in nodes
    ]


def _without_shape(source: Source) -> set[str]:
    """Return the inputs of which a model says not even how many dimensions they have.

    The package onnx would hold all weights meanwhile, which would count as the workload's memory,
    and a board that runs files need not have it: only what is asked for is read, by the numbers
    that onnx.proto gives the fields.
    """
    with ExitStack() as stack:
        data: Any = source
        if isinstance(source, str):
            file = stack.enter_context(open(source, "rb"))
            data = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        whole = stack.enter_context(memoryview(data))
        return {
            str(whole[name], "utf-8")
            for graph in _parts(whole, slice(0, len(whole)), 7)
            for value in _parts(whole, graph, 11)
            for name in _parts(whole, value, 1)
            if not any(
                True
                for kind in _parts(whole, value, 2)
                for tensor in _parts(whole, kind, 1)
                for _ in _parts(whole, tensor, 2)
            )
        }


def _parts(data: memoryview, where: slice, wanted: int) -> Iterator[slice]:
    """Yield where the fields of a number stand in a sound protobuf message, unread."""
    place = where.start
    while place < where.stop:
        key, place = _number(data, place)
        if key & 7 in (1, 5):  # of fixed size
            place += 8 if key & 7 == 1 else 4
            continue
        size, place = _number(data, place)
        if key & 7 == 2:  # else it was a number itself
            if key >> 3 == wanted:
                yield slice(place, place + size)
            place += size


def _number(data: memoryview, place: int) -> tuple[int, int]:
    """Return the number of seven bits a byte that begins at ``place``, and where it ends."""
    value = shift = 0
    while True:
        byte, place = data[place], place + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7


def output_names(session: Any) -> list[str]:
    """Return the names of a session's outputs.

    Raises:
        ModelError: one is no tensor of numbers, which alone can be bound.
    """
    for node in session.get_outputs():
        if not node.type.startswith("tensor(") or node.type == "tensor(string)":
            raise ModelError(
                f"the output {node.name!r} is of type {node.type}; expected tensors of numbers: "
                "export the model without what makes it"
            )
    return [node.name for node in session.get_outputs()]


class CpuExecutable(HostExecutable):
    """A session with bound inputs and outputs."""

    provider = PROVIDER

    def __init__(
        self,
        adapter: CpuAdapter,
        session: Any,
        workload: Workload,
        source: Source,
        *,
        load_s: float,
        artifact_bytes: int,
    ) -> None:
        super().__init__(load_s=load_s, artifact_bytes=artifact_bytes)
        self._adapter, self._session, self._source = adapter, session, source
        specs = bind_inputs(model_inputs(session, workload.inputs, source), workload.inputs)
        self._names = output_names(session)
        self._inputs = accepted_inputs(specs, workload.seed, self._run)
        self.warnings = drawn_switches(specs, self._inputs)
        self._call = self._bound(session)

    def call(self) -> object:
        """Run once on the bound inputs."""
        return self._call()

    def outputs(self, inputs: Arrays | None = None) -> list[Array]:
        """Run once and return the outputs."""
        return self._run(self._inputs if inputs is None else inputs)

    def trace(self) -> OpTrace:
        """Time the operators with the runtime's profiler, in a session of its own."""
        return self._adapter.tracer.trace(self._source, self.call, self._bound)

    def close(self) -> None:
        """Free the session and its buffers."""
        super().close()
        self._call = self._session = None

    def _run(self, inputs: Arrays) -> list[Array]:
        try:
            found: list[Array] = self._session.run(self._names, dict(inputs))
        except Exception as error:  # the runtime's exceptions share no base class of their own
            raise run_failure(error) from error
        return found

    def _bound(self, session: Any) -> Any:
        """Return what runs a session once on the seeded inputs, into outputs that are kept.

        A binding holds a model to the ranks that it declares for its outputs, which a plain run only
        warns of: where they are wrong every call makes its outputs anew.
        """
        make = self._adapter._ort.OrtValue
        inputs = {name: make.ortvalue_from_numpy(array) for name, array in self._inputs.items()}
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, output in zip(self._names, self._run(self._inputs), strict=True):
            value = make.ortvalue_from_shape_and_type(output.shape, output.dtype.type)
            binding.bind_ortvalue_output(name, value)
        try:
            session.run_with_iobinding(binding)
        except RuntimeError:
            return partial(session.run_with_ort_values, self._names, inputs)
        return partial(session.run_with_iobinding, binding)
