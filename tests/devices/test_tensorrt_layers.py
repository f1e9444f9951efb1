"""Names of TensorRT's layers, read back. The forms are those that public logs and issues show."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hwprof.devices.nvidia.tensorrt_layers import (
    engine_layers,
    layer_times,
    metadata_members,
    middle_half,
)
from hwprof.errors import MeasurementError

WRITTEN = [
    *("/stem/Conv", "/stem/Relu", "/a/conv1/Conv", "/a/conv2/Conv"),
    *("/a/act/Sigmoid", "/a/act/Mul", "/b/pool", "/b/Reshape", "/b/MatMul", "/b/Add", "/out"),
]


def layers(*rows: Any) -> dict[str, tuple[str, ...]]:
    text = json.dumps({"Layers": list(rows), "Bindings": ["x", "y"]})
    return {name: layer.members for name, layer in engine_layers(text, WRITTEN).items()}


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("/stem/Conv + /stem/Relu", ("/stem/Conv", "/stem/Relu")),
        ("/a/conv1/Conv || /a/conv2/Conv", ("/a/conv1/Conv", "/a/conv2/Conv")),
        ("PWN(PWN(/a/act/Sigmoid), PWN(/a/act/Mul))", ("/a/act/Sigmoid", "/a/act/Mul")),
        (
            "/a/conv1/Conv + PWN(/a/act/Sigmoid, /a/act/Mul)",
            ("/a/conv1/Conv", "/a/act/Sigmoid", "/a/act/Mul"),
        ),
        ("{ForeignNode[/b/pool.../b/Add]}", ("/b/pool", "/b/Reshape", "/b/MatMul", "/b/Add")),
        ("{ForeignNode[/b/MatMul + /b/Add.../out]}", ("/b/MatMul", "/b/Add", "/out")),
        ("{ForeignNode[ONNXTRT_ShapeShuffle_3_output[Constant].../b/Add]}", ("/b/Add",)),
        ("Reformatting CopyNode for Output Tensor 0 to /b/MatMul", ("/b/MatMul",)),
        ("/b/Reshape + copied_squeeze_after_/b/Reshape", ("/b/Reshape",)),
        ("(Unnamed Layer* 4) [Shuffle] + /out", ("/out",)),
        ("__myl_MulAddSigm_myl0_5", ()),
        ("[trainStation1]", ()),
    ],
)
def test_names(name: str, members: tuple[str, ...]) -> None:
    assert layers(name) == {name: members}


@pytest.mark.parametrize("separator", ["\x1f", "\x1e", ""])
def test_metadata(separator: str) -> None:
    text = separator.join(["[ONNX Layer: /b/MatMul]", "[ONNX Layer: x[0]/y]", "[SHAPE]"])
    assert metadata_members(text) == ("/b/MatMul", "x[0]/y")
    row = {"Name": "__myl_Mul_myl0_5", "LayerType": "kgen", "Metadata": text}
    assert layers(row) == {"__myl_Mul_myl0_5": ("/b/MatMul",)}


def test_a_region_leaves_out_what_other_layers_name() -> None:
    found = layers("{ForeignNode[/b/pool.../out]}", "/b/MatMul + /b/Add")
    assert found["{ForeignNode[/b/pool.../out]}"] == ("/b/pool", "/b/Reshape", "/out")


def test_types_and_tensors_of_layers() -> None:
    rows = [
        {"Name": "/stem/Conv", "LayerType": "CaskConvolution", "Outputs": [{"Name": "t1"}]},
        {"Name": "Reformatting CopyNode for Output Tensor 0 to /out", "LayerType": "Reformat"},
    ]
    found = engine_layers(json.dumps({"Layers": rows, "I/O Tensors": []}), WRITTEN)
    assert [layer.op_type for layer in found.values()] == ["CaskConvolution", "ReformatOutput"]
    assert found["/stem/Conv"].outputs == ("t1",)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": [{}]}', '{"Layers": 3}'])
def test_what_is_no_list_of_layers(text: str) -> None:
    with pytest.raises(MeasurementError, match="gave no list of layers"):
        engine_layers(text, WRITTEN)


def test_times_are_means_of_the_calls_round_the_median_and_add_up() -> None:
    calls = [{"a": 1.0, "b": 9.0}, {"a": 2.0, "b": 3.0}, {"a": 3.0, "b": 2.2}, {"a": 0.1, "b": 0.1}]
    # Sums are 10, 5, 5.2 and 0.2: the middle half is the second and the third call.
    assert [op.time_s for op in layer_times(calls, {})] == pytest.approx([2.5, 2.6])


@pytest.mark.parametrize("calls", [[], [{}], [{"a": 1.0}, {"b": 1.0}]])
def test_calls_that_do_not_agree(calls: list[dict[str, float]]) -> None:
    with pytest.raises(MeasurementError, match="profiler reported"):
        layer_times(calls, {})


@pytest.mark.parametrize(("size", "kept"), [(1, 1), (2, 2), (4, 2), (30, 16)])
def test_the_middle_half(size: int, kept: int) -> None:
    values = np.random.default_rng(0).permutation(size).astype(np.float64)
    found = values[middle_half(values)]
    assert found.size == kept
    assert np.median(found) == np.median(values)
