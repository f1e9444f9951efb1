"""What identifies a model of the user's own: its file, and the files of its weights."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwprof.errors import ModelError
from hwprof.space.pieces import SkipPiece
from hwprof.workload import _CHUNK_BYTES, Workload, distinct, model_files


def external(path: Path, *weights: str, doc: str = "") -> Path:
    """Write a model that names files of weights, ``doc`` before them."""
    tensors = []
    for name in weights:
        tensor = helper.make_tensor(name, TensorProto.FLOAT, [1], [0.0])
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=name)
        tensor.external_data.add(key="offset", value="0")
        tensors.append(tensor)
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    node = helper.make_node("Relu", ["x"], ["y"], doc_string=doc)
    graph = helper.make_graph([node], "g", [info], [out], tensors)
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def test_weights_in_files_of_their_own_belong_to_the_model(tmp_path: Path) -> None:
    model = external(tmp_path / "m.onnx", "m.onnx.data", "other.bin")
    alone = Workload.from_file(model)
    assert alone.content == hashlib.sha256(model.read_bytes()).hexdigest()
    keys = {alone.key}
    for content in (b"0000", b"1111"):
        (tmp_path / "m.onnx.data").write_bytes(content)
        keys.add(Workload.from_file(model).key)
    assert len(keys) == 3, "an edited file is another model"
    assert model_files(model) == (model, tmp_path / "m.onnx.data")


def test_a_file_of_weights_is_found_wherever_its_name_stands(tmp_path: Path) -> None:
    """Also across the parts in which a file is read."""
    (tmp_path / "weights.bin").write_bytes(b"1234")
    plain = external(tmp_path / "m.onnx", "weights.bin").read_bytes()
    place = plain.index(b"location")
    for split in range(-4, 32):
        doc = "d" * (_CHUNK_BYTES - place - split)
        model = external(tmp_path / "m.onnx", "weights.bin", doc=doc)
        assert len(model_files(model)) == 2, split


def test_what_is_all_in_one_file_is_hashed_as_it_is(tmp_path: Path) -> None:
    model = external(tmp_path / "m.tflite", "weights.bin")
    (tmp_path / "weights.bin").write_bytes(b"1234")
    assert model_files(model) == (model,)
    assert Workload.from_file(model).content == hashlib.sha256(model.read_bytes()).hexdigest()


def test_a_missing_file_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected a path to an \.onnx or \.tflite file"):
        Workload.from_file(tmp_path / "none.onnx")


def test_onnx_itself_writes_what_is_read(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones(1024, dtype=np.float32), "w")
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1024])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1024])
    node = helper.make_node("Add", ["x", "w"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", [info], [out], [weight]))
    path = tmp_path / "net.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="net.onnx.data")
    assert model_files(path) == (path, tmp_path / "net.onnx.data")
    onnx.save(onnx.load(str(path)), str(tmp_path / "one.onnx"))
    assert model_files(tmp_path / "one.onnx") == (tmp_path / "one.onnx",)


def test_workloads_once_each_keep_their_order_and_the_first_of_a_key() -> None:
    a, b = (Workload.block(SkipPiece(in_channels=n, size_px=8), f"skip {n}") for n in (8, 16))
    assert distinct([a, b, replace(a, label="again")]) == [a, b]
