"""From an ONNX model to a TensorRT engine: parsing, building, and the engines that are kept.

Only calls are made that TensorRT 10 and 11 both have. Networks are strongly typed: every tensor
has the type that the ONNX model gives it, and TensorRT may choose no other. TF32, which rounds the
inputs of float32 convolutions to ten bits of mantissa and is TensorRT's default, is off unless it
is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hwprof.devices.binding import bind_inputs
from hwprof.devices.model_source import Source
from hwprof.devices.nvidia.tensorrt_cache import (
    DamagedEntryError,
    DiskCache,
    Entry,
    digest_of,
    model_digest,
)
from hwprof.devices.nvidia.tensorrt_types import network_inputs
from hwprof.errors import CompileError, DeviceError, DeviceUnavailableError, ModelError, PlanError
from hwprof.workload import InputSpec

WORKSPACE_VARIABLE = "HWPROF_TENSORRT_WORKSPACE_MIB"
LEVEL_VARIABLE = "HWPROF_TENSORRT_OPTIMIZATION_LEVEL"

_OUT_OF_MEMORY = ("out of memory", "OutOfMemory", "cudaErrorMemoryAllocation")
_FIRST_ERRORS, _LAST_ERRORS = 2, 3
"""Of a failed build's messages: what went wrong first, and what it came to."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What the builder is told, beside the model; part of the fingerprint and of an engine's key.

    ``timing_iterations`` is how often a tactic is timed before the fastest is chosen: TensorRT's
    own default of once lets one disturbed call decide (trtexec uses eight, as here).
    """

    workspace_bytes: int = 4 * 2**30
    optimization_level: int = 3
    timing_iterations: int = 8
    tf32: bool = False


def settings_from(environment: Mapping[str, str], *, is_tf32: bool) -> EngineSettings:
    """Return the settings that the environment asks for.

    Raises:
        PlanError: a variable holds no number, or none that TensorRT takes.
    """
    usual = EngineSettings()
    workspace_mib = _number(environment, WORKSPACE_VARIABLE, usual.workspace_bytes >> 20, 1, 2**20)
    level = _number(environment, LEVEL_VARIABLE, usual.optimization_level, 0, 5)
    return EngineSettings(
        workspace_bytes=workspace_mib << 20, optimization_level=level, tf32=is_tf32
    )


def _number(environment: Mapping[str, str], name: str, usual: int, lowest: int, most: int) -> int:
    text = environment.get(name)
    if text is None:
        return usual
    if not text.isdecimal() or not lowest <= int(text) <= most:
        raise PlanError(f"{name} is {text!r}; expected a whole number from {lowest} to {most}")
    return int(text)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedEngine:
    """An engine, ready for contexts."""

    engine: Any
    n_bytes: int
    build_s: float
    """Parsing and building, whenever that was: an engine out of the cache keeps it."""
    load_s: float
    """Reading the engine from memory onto the device."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ParsedNetwork:
    """A network with all that must live until it is built: the parser owns its weights."""

    builder: Any
    network: Any
    parser: Any


def collecting_logger(trt: Any) -> Any:
    """Return a logger that keeps TensorRT's errors, which its calls do not raise."""

    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self._errors.append(" ".join(str(msg).split()))

        def take_errors(self) -> str:
            """Return the errors since the last call, and forget them."""
            told, self._errors = list(dict.fromkeys(self._errors)), []
            n_left_out = len(told) - _FIRST_ERRORS - _LAST_ERRORS
            if n_left_out > 0:
                told[_FIRST_ERRORS:-_LAST_ERRORS] = [f"... {n_left_out} more ..."]
            return "; ".join(told) or "it gives no reason"

    return Collector()


class EngineMaker:
    """Makes engines of models for one GPU.

    Args:
        trt: the module ``tensorrt``.
        gpu: what tells this GPU and its driver from others, e.g. name and compute capability.
        settings: of the builder.
        cache: where engines and timings are kept.

    Raises:
        DeviceUnavailableError: TensorRT does not find a GPU that it can use.
    """

    def __init__(
        self, trt: Any, gpu: Mapping[str, str], settings: EngineSettings, cache: DiskCache
    ) -> None:
        self._trt, self._gpu, self._settings, self._cache = trt, dict(gpu), settings, cache
        self._logger = collecting_logger(trt)
        self._runtime = self._started(trt.Runtime)

    def take_errors(self) -> str:
        """Return TensorRT's errors since the last call."""
        text: str = self._logger.take_errors()
        return text

    def _started(self, factory: Any) -> Any:
        """Return one of TensorRT's two entry points, which need the GPU and its driver."""
        try:
            return factory(self._logger)
        except (TypeError, RuntimeError) as error:  # what pybind11 makes of a null pointer
            raise DeviceUnavailableError(
                f"tensorrt {self._trt.__version__} does not start: {self.take_errors()}: check "
                "that nvidia-smi lists the GPU and that its driver is as new as TensorRT asks for"
            ) from error

    def parse(self, source: Source, label: str) -> ParsedNetwork:
        """Read a model into a strongly typed network.

        Raises:
            ModelError: it is damaged.
            CompileError: it has operators that TensorRT lacks; all are named.
            MemoryError: it does not fit.
        """
        trt = self._trt
        self._logger.take_errors()
        builder = self._started(trt.Builder)
        strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(strongly_typed)
        parser = trt.OnnxParser(network, self._logger)
        is_file = isinstance(source, str)
        if not (parser.parse_from_file(source) if is_file else parser.parse(source)):
            raise self._parse_error(parser, label)
        return ParsedNetwork(builder=builder, network=network, parser=parser)

    def make(self, source: Source, given: Sequence[InputSpec], label: str) -> LoadedEngine:
        """Return the engine of a model: the one that is kept, else a new one.

        Args:
            source: the model.
            given: inputs that the user bound.
            label: how messages call the model.

        Raises:
            ModelError: the model is damaged, or its inputs cannot be bound.
            CompileError: TensorRT refuses it, in its own words.
            MemoryError: it does not fit.
        """
        name = f"engine-{self._engine_key(source, given)}"
        warnings: list[str] = []
        entry = self._kept(name, "engine", warnings)
        engine = None
        start_s = time.perf_counter()
        if entry is not None and (engine := self._deserialized(entry.content)) is None:
            warnings.append(
                f"the kept engine could not be loaded ({self.take_errors()}): it was built again"
            )
        if entry is None or engine is None:
            entry = self._built(source, given, label, warnings)
            self._keep(name, entry, warnings)
            start_s = time.perf_counter()
            engine = self._deserialized(entry.content)
        load_s = time.perf_counter() - start_s
        if engine is None:
            raise self.refusal(f"built an engine of {label!r} but cannot load it")
        return LoadedEngine(
            engine=engine,
            n_bytes=len(entry.content),
            build_s=entry.build_s,
            load_s=load_s,
            warnings=tuple(warnings),
        )

    def _engine_key(self, source: Source, given: Sequence[InputSpec]) -> str:
        return digest_of(
            {
                "model": model_digest(source),
                "inputs": [[i.name, list(i.shape), i.dtype] for i in given],
                "settings": asdict(self._settings),
                **self._surroundings(),
            }
        )

    def _surroundings(self) -> dict[str, str]:
        return {"tensorrt": str(self._trt.__version__), **self._gpu}

    def _kept(self, name: str, what: str, warnings: list[str]) -> Entry | None:
        try:
            return self._cache.load(name)
        except DamagedEntryError as error:
            warnings.append(f"{error}: the {what} was made again")
            return None

    def _keep(self, name: str, entry: Entry, warnings: list[str]) -> None:
        try:
            self._cache.store(name, entry)
        except OSError as error:
            warnings.append(f"not kept: {str(self._cache.path(name))!r}: {error.strerror or error}")

    def _deserialized(self, content: bytes) -> Any:
        self._logger.take_errors()
        return self._runtime.deserialize_cuda_engine(content)

    def _built(
        self, source: Source, given: Sequence[InputSpec], label: str, warnings: list[str]
    ) -> Entry:
        start_s = time.perf_counter()
        parsed = self.parse(source, label)
        builder, network = parsed.builder, parsed.network
        specs = bind_inputs(network_inputs(self._trt, network), given)
        config = builder.create_builder_config()
        self._configure(config)
        if any(-1 in tuple(network.get_input(i).shape) for i in range(network.num_inputs)):
            profile = builder.create_optimization_profile()
            for spec in specs:
                profile.set_shape(spec.name, spec.shape, spec.shape, spec.shape)
            config.add_optimization_profile(profile)
        timings = f"timings-{digest_of(self._surroundings())}"
        self._attach_timings(config, timings, warnings)
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise self.refusal(f"cannot build {label!r}")
        build_s = time.perf_counter() - start_s
        timing_cache = config.get_timing_cache()
        blob = timing_cache.serialize()
        if blob is not None:
            self._keep(timings, Entry(content=bytes(blob), build_s=build_s), warnings)
        return Entry(content=bytes(serialized), build_s=build_s)

    def _configure(self, config: Any) -> None:
        trt, settings = self._trt, self._settings
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
        config.builder_optimization_level = settings.optimization_level
        config.avg_timing_iterations = settings.timing_iterations
        # Without it a layer of the engine does not tell which operators went into it.
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if not settings.tf32:
            config.clear_flag(trt.BuilderFlag.TF32)

    def _attach_timings(self, config: Any, name: str, warnings: list[str]) -> None:
        """Give the builder what tactics took in earlier builds: it times only new ones."""
        entry = self._kept(name, "timing cache", warnings)
        if entry is not None:
            timing_cache = config.create_timing_cache(entry.content)
            if timing_cache is not None and config.set_timing_cache(timing_cache, False):
                return
            warnings.append(
                f"the kept timing cache is refused ({self.take_errors()}): it was begun again"
            )
        config.set_timing_cache(config.create_timing_cache(b""), False)

    def _parse_error(self, parser: Any, label: str) -> Exception:
        trt = self._trt
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        codes = {parser_error.code() for parser_error in errors}
        text = "; ".join(map(_described, errors)) or self.take_errors()
        if trt.ErrorCode.MODEL_DESERIALIZE_FAILED in codes:
            return ModelError(
                f"{label!r} is no model that tensorrt can read ({text}); expected an ONNX file, "
                "export it again"
            )
        if trt.ErrorCode.MEM_ALLOC_FAILED in codes:
            return MemoryError(f"tensorrt cannot read {label!r}: {text}")
        return CompileError(f"tensorrt {trt.__version__} does not take {label!r}: {text}")

    def refusal(self, what: str, kind: type[DeviceError] = CompileError) -> Exception:
        """Return the failure that TensorRT's own messages describe: ``kind``, or full memory."""
        text = f"tensorrt {self._trt.__version__} {what}: {self.take_errors()}"
        if any(words in text for words in _OUT_OF_MEMORY):
            return MemoryError(text)
        return kind(text)


def _described(parser_error: Any) -> str:
    """Return a parser's error: the operator, the node, and TensorRT's own words."""
    description = " ".join(str(parser_error.desc()).split())
    if not (operator := parser_error.node_operator()):
        return description
    return f"operator {operator} (node {parser_error.node_name()!r}): {description}"
