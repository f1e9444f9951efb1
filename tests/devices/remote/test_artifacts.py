"""What is built here for a device elsewhere, and in which precision."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("onnx")

from hwprof.devices import device_ref
from hwprof.devices.remote.address import Address
from hwprof.devices.remote.artifacts import Artifacts
from hwprof.devices.remote.board import Board
from hwprof.devices.remote.launcher import RemoteLauncher
from hwprof.devices.remote.ssh import SshTransport
from hwprof.errors import CompileError
from hwprof.measure.records import DeviceOptions, Precision
from hwprof.space import get_space, own
from hwprof.space.pieces import ChainPiece, SkipPiece
from hwprof.testing import block
from hwprof.workload import Workload


def artifacts(name: str, precision: Precision) -> Artifacts:
    return Artifacts(f"{name}@ssh://board", DeviceOptions(precision=precision))


def opened(name: str, precision: Precision) -> dict[str, Any]:
    """Return what a worker on the board is asked when it opens its device."""
    ref = device_ref(f"{name}@ssh://board", DeviceOptions(precision=precision))
    address = Address(link="ssh", host="board")
    launcher = RemoteLauncher(ref, Board(address, SshTransport(address)))
    return launcher._translate("open", {"op": "open", "device": asdict(ref)})


@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
def test_a_precision_that_tflite_lacks_is_not_written_as_another(precision: Precision) -> None:
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(CompileError, match=f"fp32, int8, int8-dynamic, not '{precision}'"):
        artifacts("tflite", precision).there(block("mbconv"))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_onnx_goes_there_in_float32_only(precision: Precision) -> None:
    with pytest.raises(CompileError, match=f"as ONNX in fp32, not '{precision}'"):
        artifacts("cuda-ort", precision).there(block("mbconv"))


def test_a_model_of_several_files_does_not_go_there(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones(1024, dtype=np.float32), "w")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1024]) for n in "xy"]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    path = tmp_path / "net.onnx"
    model = helper.make_model(graph)
    onnx.save_model(model, str(path), save_as_external_data=True, location="net.data")
    with pytest.raises(CompileError, match=r"keeps weights in net\.data, and one file goes to"):
        artifacts("cuda-ort", "fp32").there(Workload.from_file(path))


def test_tf32_is_the_same_file_and_told_to_the_device(tmp_path: Path) -> None:
    plain, tf32 = (artifacts("cuda-ort", p).there(block("mbconv")) for p in ("fp32", "tf32"))
    assert tf32 == plain
    file = tmp_path / "model.onnx"
    file.write_bytes(b"a model")
    for name in ("cuda-ort", "tensorrt"):
        there = artifacts(name, "tf32").there(Workload.from_file(file))
        assert there.path == f"{there.content}.onnx"
        assert opened(name, "tf32")["device"]["options"]["precision"] == "tf32"


@pytest.mark.parametrize(
    ("name", "precision", "there"),
    [
        ("tflite", "int8", "fp32"),  # the file holds it: there it runs as it is
        ("cpu", "fp32", "fp32"),
        ("cuda", "fp16", "fp16"),  # built there
    ],
)
def test_what_the_device_is_asked_for(name: str, precision: Precision, there: str) -> None:
    asked = opened(name, precision)
    assert asked["device"]["options"]["precision"] == there
    assert asked["board"]["facts"]["precision"] == precision


SPACE = """
format: 1
design_space: my-space
resolution_px: 32
n_classes: 10
stem: {channels: 8, act: relu}
first: {channels: 8, act: relu, shortcut: true}
units:
  - {channels: 16, stride: 2, depth: [1, 2], act: relu, blocks: [mbconv_k3_e3, mbconv_k5_e3]}
head: {channels: 32, act: relu}
"""


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    """Return a network of a space that a file of this machine defines."""
    monkeypatch.setenv(own.ENVIRONMENT, "")
    monkeypatch.setattr(own, "_loaded", {})
    monkeypatch.setattr(own, "_files", {})
    (tmp_path / "my_space.yaml").write_text(SPACE)
    space = get_space(str(tmp_path / "my_space.yaml"))
    return Workload.network(space.sample(np.random.default_rng(0)))


@dataclass(frozen=True, kw_only=True)
class MyPiece(SkipPiece):
    """As a file of blocks beside a space's file would define it."""

    kind: ClassVar[str] = "mine"


MyPiece.__module__ = f"{own.BLOCKS_MODULE}my_blocks"


def test_a_space_of_the_user_s_own_goes_where_files_go_and_nowhere_else(network: Workload) -> None:
    there = artifacts("cpu", "fp32").there(network)
    assert (there.arch, there.path) == (None, f"{there.content}.onnx")
    message = (
        r"the design space 'my-space' is in a file of this machine, and cuda@ssh://board builds .*"
        r"measure with a device that is sent files \(cpu, openvino, tflite, cuda-ort"
    )
    with pytest.raises(CompileError, match=message):
        artifacts("cuda", "fp32").there(network)


def test_a_block_of_the_user_s_own_is_not_known_there_either() -> None:
    mine = MyPiece(in_channels=8, size_px=8)
    for piece in (mine, ChainPiece.of([SkipPiece(in_channels=8, size_px=8), mine])):
        with pytest.raises(CompileError, match="the block 'mine' is in a file of this machine"):
            artifacts("tensorrt", "fp32").there(Workload.block(piece, "mine"))
