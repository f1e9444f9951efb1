"""Networks as ONNX in half precision: the types the standard allows, and the same numbers."""

from __future__ import annotations

from typing import Any, Literal, cast

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from hwprof.graph import piece_graph, to_onnx
from hwprof.graph.ir import GraphBuilder
from hwprof.testing import PIECES

HALVES = {
    # Tensor type, numpy's type, bits of the significand (IEEE 754 binary16; bfloat16).
    "fp16": (TensorProto.FLOAT16, np.dtype(np.float16), 11),
    "bf16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16), 8),
}


def evaluated(model: bytes, image: NDArray[Any]) -> NDArray[Any]:
    (output,) = cast("list[NDArray[Any]]", ReferenceEvaluator(model).run(None, {"input": image}))
    return output


@pytest.mark.parametrize("float_type", ["fp16", "bf16"])
@pytest.mark.parametrize("name", PIECES)
def test_every_tensor_has_the_type_and_the_standard_allows_it(
    name: str, float_type: Literal["fp16", "bf16"]
) -> None:
    model = onnx.load_from_string(to_onnx(piece_graph(PIECES[name]), float_type=float_type))
    onnx.checker.check_model(model, full_check=True)  # operators, opset and types together
    element = HALVES[float_type][0]
    ends = [*model.graph.input, *model.graph.output]
    assert {v.type.tensor_type.elem_type for v in ends} == {element}
    assert {t.data_type for t in model.graph.initializer} <= {element}


@pytest.mark.parametrize("float_type", ["fp16", "bf16"])
@pytest.mark.parametrize("name", ["mbconv", "bottleneck", "cell", "head"])
def test_outputs_are_those_of_fp32_as_far_as_the_type_goes(
    name: str, float_type: Literal["fp16", "bf16"]
) -> None:
    piece = PIECES[name]
    graph = piece_graph(piece)
    _, dtype, bits = HALVES[float_type]
    shape = (1, piece.in_channels, piece.size_px, piece.size_px)
    image = np.random.default_rng(3).standard_normal(shape, dtype=np.float32)
    exact = evaluated(to_onnx(graph), image)
    found = evaluated(to_onnx(graph, float_type=float_type), image.astype(dtype))
    assert found.dtype == dtype
    error = np.abs(found.astype(np.float32) - exact).max() / np.abs(exact).max()
    # Half a unit in the last place, for every one of the some ten roundings on the longest path.
    assert error < 10 * 2.0**-bits


def test_bfloat16_is_rounded_as_ml_dtypes_rounds_it() -> None:
    builder = GraphBuilder("one", (4, 1, 1))
    graph = builder.finish(builder.conv(builder.input, "conv", 5))
    weight = np.array([1.0, 1.00390625, 1.01171875, -3.4e38, np.nan], dtype=np.float32)
    weights = {"conv.weight": np.repeat(weight[:, None], 4, axis=1).reshape(5, 4, 1, 1)}
    model = onnx.load_from_string(to_onnx(graph, weights=weights, float_type="bf16"))
    (kept,) = (numpy_helper.to_array(t) for t in model.graph.initializer)
    np.testing.assert_array_equal(
        kept[:, 0, 0, 0].astype(np.float32), weight.astype(ml_dtypes.bfloat16).astype(np.float32)
    )
