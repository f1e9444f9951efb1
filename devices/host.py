"""What adapters share whose device is this host's CPU."""

from __future__ import annotations

import importlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwprof.errors import ModelError
from hwprof.measure import machine
from hwprof.measure.records import Burst, Cache, DeviceOptions, Fingerprint, Loaded
from hwprof.measure.timing import (
    CacheFlusher,
    calls_per_sample,
    estimate_call_s,
    timed_burst,
)
from hwprof.protocols import Check, OpTrace
from hwprof.workload import InputSpec

if TYPE_CHECKING:
    from hwprof.protocols import Arrays

Array = NDArray[np.generic]
WIDE_INTEGERS = 1000
"""Integer inputs are drawn below this first: ids of a vocabulary, say."""
NARROW_INTEGERS = 2
"""Fits where 1000 does not: masks, segment ids."""
ONEDNN_MODES = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")


def host_fingerprint(
    device: str,
    options: DeviceOptions,
    *,
    runtime: str,
    runtime_version: str,
    settings: Mapping[str, machine.Fact],
) -> Fingerprint:
    """Return the fingerprint of a runtime on this host's CPU.

    ``settings`` are the runtime's own stable facts: provider, spinning, layout.
    """
    return Fingerprint(
        stable={
            "device": device,
            **machine.stable_facts(),
            "runtime": runtime,
            "runtime_version": runtime_version,
            "threads": options.threads,
            "batch": options.batch,
            "precision": options.precision,
            "allocator": allocator(),
            **settings,
        },
        volatile={**machine.volatile_facts(), "python": sys.version.split()[0]},
    )


def allocator() -> str:
    """Return how malloc treats large buffers in this process."""
    if sys.platform != "linux":
        return "system"
    kept = os.environ.get("MALLOC_MMAP_MAX_") == "0" and "MALLOC_TRIM_THRESHOLD_" in os.environ
    return machine.MEMORY_KEPT if kept else machine.MEMORY_GIVEN_BACK


def only_fp32(options: DeviceOptions, device: str) -> str:
    """Return why another precision is not taken; nothing for fp32."""
    if options.precision == "fp32":
        return ""
    return (
        f"{device} runs fp32 only, not {options.precision!r}: leave --precision out, or give a "
        "model file that holds the precision itself"
    )


def strict_float32() -> tuple[str, ...]:
    """Drop the variables by which oneDNN rounds what it multiplies to fewer bits than float32.

    It reads them at its first operator, and tells nobody.

    Returns:
        What must be said beside every result; nothing where none is set.
    """
    found = {name: os.environ.pop(name) for name in ONEDNN_MODES if name in os.environ}
    return tuple(
        f"{name}={value} was taken out of the environment: with it oneDNN computes in fewer bits "
        "than fp32"
        for name, value in found.items()
        if value.upper() != "STRICT"
    )


def random_array(
    shape: Sequence[int], dtype: np.dtype[np.generic], rng: np.random.Generator, integers: int
) -> Array:
    """Return random input values, never all zero: zeros are cheaper on some devices.

    Floating point is standard normal; integers lie in [0, ``integers``); booleans are even odds.
    """
    if dtype.kind == "f":
        return rng.standard_normal(tuple(shape), dtype=np.float32).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, tuple(shape)).astype(dtype)
    return rng.integers(0, integers, tuple(shape)).astype(dtype)


def random_inputs(
    specs: Sequence[InputSpec], seed: int, integers: int = WIDE_INTEGERS
) -> dict[str, Array]:
    """Return one array for every input, in order: of the value given, else drawn from ``seed``."""
    rng = np.random.default_rng([seed, 1])
    return {
        s.name: random_array(s.shape, np.dtype(s.dtype), rng, integers)
        if s.value is None
        else np.full(s.shape, s.value, np.dtype(s.dtype))
        for s in specs
    }


def load_callable(target: str) -> object:
    """Import what ``package.module:name`` names, from the working directory too.

    Raises:
        ModelError: it does not exist or its import fails.
    """
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise ModelError(f"{target!r} names no callable; expected package.module:callable")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # a user's module may raise anything while it is imported
        raise ModelError(
            f"cannot import {target!r}: {type(error).__name__}: {error}; expected "
            "package.module:callable, importable from the working directory"
        ) from error
    return found


class HostExecutable(ABC):
    """A workload that is called from this process and timed by its clock.

    Subclasses give :meth:`call` (one synchronous inference on the seeded inputs) and
    :meth:`outputs`.
    """

    provider: str
    warnings: tuple[str, ...] = ()
    """What must be said beside every result of it."""

    def __init__(
        self, *, load_s: float, artifact_bytes: int, peak_memory_bytes: int | None = None
    ) -> None:
        self._load_s = load_s
        self._artifact_bytes = artifact_bytes
        self._peak_memory_bytes = peak_memory_bytes
        self._per_sample: int | None = None
        self._flush: CacheFlusher | None = None

    @abstractmethod
    def call(self) -> object:
        """Run once on the seeded inputs."""

    @abstractmethod
    def outputs(self, inputs: Arrays | None = None) -> list[Array]:
        """Run once (on the seeded inputs unless told otherwise) and return the outputs."""

    @abstractmethod
    def trace(self) -> OpTrace:
        """Time the operators in a separate run."""

    def close(self) -> None:
        """Free what the workload holds."""
        self._flush = None

    @property
    def loaded(self) -> Loaded:
        """Load time, size and peak memory; None: the process that it runs in meters it."""
        return Loaded(
            load_s=self._load_s,
            artifact_bytes=self._artifact_bytes,
            peak_memory_bytes=self._peak_memory_bytes,
            warnings=self.warnings,
        )

    def check(self, reference: Sequence[Array] | None = None) -> Check:
        """Run once; say whether the outputs are finite and how far from ``reference``."""
        outputs = self.outputs()
        return Check(
            finite=all_finite(outputs),
            provider=self.provider,
            max_rel_error=None if reference is None else max_rel_error(outputs, reference),
        )

    def burst(self, duration_s: float, min_calls: int, cache: Cache) -> Burst:
        """Run calls back to back; short ones several a sample, unless caches are flushed."""
        if cache == "cold":
            if self._flush is None:
                self._flush = CacheFlusher()
            return timed_burst(self.call, duration_s, min_calls, flush=self._flush)
        if self._per_sample is None:
            self._per_sample = calls_per_sample(estimate_call_s(self.call))
        return timed_burst(self.call, duration_s, min_calls, per_sample=self._per_sample)


def all_finite(outputs: Sequence[Array]) -> bool:
    """Say whether no output holds NaN or infinity."""
    return all(bool(np.isfinite(o).all()) for o in outputs if o.dtype.kind == "f")


def max_rel_error(outputs: Sequence[Array], reference: Sequence[Array]) -> float:
    """Return the largest error over all outputs, relative to the reference's largest value.

    Infinite where the number or the shapes of the outputs differ, or where one is not finite.
    """
    if len(outputs) != len(reference):
        return float("inf")
    worst = 0.0
    for output, expected in zip(outputs, reference, strict=True):
        if output.shape != expected.shape:
            return float("inf")
        wide = np.asarray(expected, dtype=np.float64)
        error = np.abs(np.asarray(output, dtype=np.float64) - wide).max(initial=0.0)
        relative = float(error / max(np.abs(wide).max(initial=0.0), 1e-12))
        worst = max(worst, relative if np.isfinite(relative) else float("inf"))
    return worst
