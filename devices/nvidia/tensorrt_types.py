"""TensorRT's types and shapes in the words of torch and numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwprof.devices.binding import ModelInput


def network_inputs(trt: Any, network: Any) -> list[ModelInput]:
    """Return what a parsed network says about its inputs, open dimensions by their names."""
    found = []
    for index in range(network.num_inputs):
        network_input = network.get_input(index)
        shape = [
            (network_input.get_dimension_name(axis) or f"d{axis}") if size < 0 else int(size)
            for axis, size in enumerate(tuple(network_input.shape))
        ]
        found.append(_model_input(trt, network_input.name, network_input.dtype, shape))
    return found


def engine_inputs(trt: Any, engine: Any) -> list[ModelInput]:
    """Return what an engine says about its inputs."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    return [
        _model_input(
            trt,
            name,
            engine.get_tensor_dtype(name),
            [f"d{a}" if d < 0 else int(d) for a, d in enumerate(engine.get_tensor_shape(name))],
        )
        for name in names
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
    ]


def _model_input(trt: Any, name: str, trt_dtype: Any, shape: Sequence[int | str]) -> ModelInput:
    torch_dtype = torch_name(trt, trt_dtype)
    # numpy lacks bfloat16: it is drawn as float32 and rounded on its way to the device.
    drawn = "float32" if torch_dtype == "bfloat16" else torch_dtype
    return ModelInput(name=name, shape=tuple(shape), type_name=trt_dtype.name, dtype=drawn)


def torch_name(trt: Any, trt_dtype: Any) -> str | None:
    """Return what torch calls a type of TensorRT's; None for those that it lacks."""
    names = {
        trt.DataType.FLOAT: "float32",
        trt.DataType.HALF: "float16",
        trt.DataType.BF16: "bfloat16",
        trt.DataType.INT64: "int64",
        trt.DataType.INT32: "int32",
        trt.DataType.INT8: "int8",
        trt.DataType.UINT8: "uint8",
        trt.DataType.BOOL: "bool",
    }
    return names.get(trt_dtype)
