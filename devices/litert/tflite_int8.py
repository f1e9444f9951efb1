"""``.tflite`` files in eight bits, by Google's ai-edge-quantizer.

*Static* (``int8``): weights and activations in eight bits, inputs and outputs too; ranges of
activations come from a few random inputs, which is enough for latency and says nothing about
accuracy. *Dynamic* (``int8-dynamic``): weights in eight bits; activations stay float between
operators and are quantised inside of them, by each call.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr

import numpy as np

from hwprof.devices import installed_version
from hwprof.devices.host import Array
from hwprof.devices.litert.tflite_file import SIGNATURE
from hwprof.errors import CompileError, MissingExtraError
from hwprof.measure.records import Precision

QUANTIZER = "ai-edge-quantizer"
N_CALIBRATION_INPUTS = 4
INPUT = "input"
LEVELS = (-128, 127)


def quantized(model: bytes, precision: Precision, shape: Sequence[int], seed: int) -> bytes:
    """Return a float32 model in eight bits.

    Args:
        model: as :func:`hwprof.devices.litert.tflite_writer.to_tflite` writes it.
        precision: ``int8`` (static) or ``int8-dynamic``.
        shape: of its input, (N, H, W, C).
        seed: of the inputs that static ranges come from.

    Raises:
        MissingExtraError: ai-edge-quantizer is not installed.
        CompileError: it refuses the model.
    """
    try:
        from ai_edge_quantizer import quantizer, recipe
    except ImportError as error:
        purpose = f"--precision {precision}"
        raise MissingExtraError(QUANTIZER, "int8", purpose) from error
    static = precision == "int8"
    rng = np.random.default_rng([seed, 2])
    samples = [
        {INPUT: rng.standard_normal(shape, dtype=np.float32)} for _ in range(N_CALIBRATION_INPUTS)
    ]
    try:
        # Its progress bars cannot all be switched off. Where the file goes to another machine they
        # would stand on the user's terminal, in the middle of our own.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            # It keeps every tensor of its calibrating runs, and is warned that this takes memory.
            warnings.simplefilter("ignore", UserWarning)
            tool = quantizer.Quantizer(
                model, recipe.static_wi8_ai8() if static else recipe.dynamic_wi8_afp32()
            )
            ranges = tool.calibrate({SIGNATURE: samples}, num_threads=1) if static else None
            result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise CompileError(f"ai-edge-quantizer refuses the model: {text}") from error
    return bytes(result.quantized_model)


def to_levels(values: Array, scale: float, zero_point: int) -> Array:
    """Return float values as the int8 levels that stand for them."""
    levels = np.round(np.asarray(values, dtype=np.float64) / scale) + zero_point
    return np.clip(levels, *LEVELS).astype(np.int8)


def from_levels(levels: Array, scale: float, zero_point: int) -> Array:
    """Return the float32 values that int8 levels stand for."""
    return ((levels.astype(np.float32) - zero_point) * np.float32(scale)).astype(np.float32)


def quantizer_facts(precision: Precision) -> dict[str, str]:
    """Return what a result's key holds of the tool: it chooses operators and where scales apply.

    Empty in a precision that it does not write, or where it is not installed.
    """
    version = installed_version(QUANTIZER) if precision in ("int8", "int8-dynamic") else None
    return {} if version is None else {"quantizer": f"{QUANTIZER} {version}"}
