"""Contract tests for device adapters, shipped so that adapters in other packages can run them.

It needs pytest, which hwprof itself does not bring.

    from hwprof.devices import device_ref
    from hwprof.measure.records import DeviceOptions

    @pytest.fixture
    def device():
        return device_ref("my-npu", DeviceOptions())

    class TestContract(DeviceContract):
        pass

The reference for outputs is the ONNX standard's own evaluator, so no two adapters can agree on
the same mistake. A scripted device computes nothing and is not asked to.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from hwprof.errors import ModelError
from hwprof.graph import to_onnx, workload_graph
from hwprof.measure.records import DeviceRef, MeasurePlan, plan_for
from hwprof.measure.worker import open_adapter
from hwprof.protocols import DeviceAdapter
from hwprof.space.pieces import (
    BottleneckPiece,
    CellPiece,
    ConvPiece,
    HeadPiece,
    MBConvPiece,
    Piece,
    SkipPiece,
)
from hwprof.workload import InputSpec, Workload

TOLERANCE = 1e-4
"""Largest output error of an fp32 adapter, relative to the largest output."""

PIECES: dict[str, Piece] = {
    "conv": ConvPiece(
        in_channels=3, size_px=15, out_channels=8, kernel=3, stride=2, act="hswish", bn_eps=1e-5
    ),
    "mbconv": MBConvPiece(
        in_channels=8,
        size_px=8,
        out_channels=8,
        kernel=5,
        expand=3,
        stride=1,
        act="hswish",
        squeeze_excite=True,
        shortcut=True,
        bn_eps=1e-3,
    ),
    "mbconv strided": MBConvPiece(
        in_channels=8,
        size_px=9,
        out_channels=16,
        kernel=7,
        expand=6,
        stride=2,
        act="relu6",
        squeeze_excite=False,
        shortcut=False,
        bn_eps=1e-5,
    ),
    "bottleneck": BottleneckPiece(
        in_channels=16,
        size_px=8,
        mid_channels=8,
        out_channels=32,
        stride=2,
        downsample=True,
        bn_eps=1e-5,
    ),
    "cell": CellPiece(
        in_channels=8,
        size_px=8,
        ops=(
            "nor_conv_3x3",
            "avg_pool_3x3",
            "skip_connect",
            "none",
            "nor_conv_1x1",
            "nor_conv_3x3",
        ),
        bn_eps=1e-5,
    ),
    "head": HeadPiece(
        in_channels=16,
        size_px=4,
        feature_channels=32,
        last_channels=24,
        n_classes=10,
        act="hswish",
        bn_eps=1e-5,
    ),
    "skip": SkipPiece(in_channels=8, size_px=8),
}

_NAN_MODULE = """
import torch


class Nan(torch.nn.Module):
    def forward(self, x):
        return x / 0.0 * 0.0


def broken():
    raise RuntimeError("made to fail")
"""


def block(name: str) -> Workload:
    """Return one of :data:`PIECES` as a workload."""
    return Workload.block(PIECES[name], name)


def reference_outputs(
    workload: Workload, inputs: dict[str, NDArray[np.float32]]
) -> list[NDArray[np.generic]]:
    """Return the outputs by the ONNX standard's own evaluator."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(to_onnx(workload_graph(workload), seed=workload.seed))
    return cast("list[NDArray[np.generic]]", evaluator.run(None, inputs))


def user_model(
    adapter: DeviceAdapter, folder: Path, behaviour: Literal["damaged", "nan"]
) -> Workload:
    """Return a model of a kind that the adapter takes: a file, else a torch callable."""
    file = folder / f"{behaviour}.onnx"
    file.write_bytes(_nan_onnx() if behaviour == "nan" else b"\x08\x09no model at all" * 20)
    workload = Workload.from_file(file)
    if adapter.supports(workload).ok:
        return workload
    (folder / "hwprof_contract_model.py").write_text(_NAN_MODULE)
    name = "Nan" if behaviour == "nan" else "broken"
    return Workload.from_callable(
        f"hwprof_contract_model:{name}", (InputSpec(name="x", shape=(1, 4)),)
    )


def _nan_onnx() -> bytes:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Sub", ["x", "x"], ["zero"]), helper.make_node("Log", ["zero"], ["y"])],
        "nan",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    opset = [helper.make_opsetid("", 20)]
    return bytes(helper.make_model(graph, ir_version=9, opset_imports=opset).SerializeToString())


class DeviceContract:
    """What every adapter must do. Give a fixture ``device`` that returns a ``DeviceRef``."""

    def user_model(
        self, adapter: DeviceAdapter, folder: Path, behaviour: Literal["damaged", "nan"]
    ) -> Workload:
        """Return a model of a kind that the adapter takes; override it for other formats."""
        return user_model(adapter, folder, behaviour)

    @pytest.fixture
    def adapter(self, device: DeviceRef) -> Iterator[DeviceAdapter]:
        """The adapter, opened in this process."""
        adapter = open_adapter(device)
        yield adapter
        adapter.close()

    @pytest.fixture
    def plan(self) -> MeasurePlan:
        """The shortest preset."""
        return plan_for("quick")

    @pytest.fixture
    def computing(self, adapter: DeviceAdapter) -> DeviceAdapter:
        """The adapter, if it computes anything."""
        if adapter.fingerprint().stable["hardware"] == "scripted":
            pytest.skip("a scripted device computes nothing")
        return adapter

    def test_fingerprint_identifies(self, adapter: DeviceAdapter, device: DeviceRef) -> None:
        """Stable facts are complete, carry the options, and do not move."""
        stable = adapter.fingerprint().stable
        named = {"device", "hardware", "runtime", "runtime_version"}
        assert all(isinstance(stable[name], str) and stable[name] for name in named)
        assert stable["device"] == device.name
        assert stable["threads"] == device.options.threads
        assert stable["batch"] == device.options.batch
        assert stable["precision"] == device.options.precision
        assert adapter.fingerprint().digest == adapter.fingerprint().digest

    @pytest.mark.parametrize("name", PIECES)
    def test_supports_every_kind_of_block(self, adapter: DeviceAdapter, name: str) -> None:
        """Blocks of the shipped spaces are taken."""
        support = adapter.supports(block(name))
        assert support.ok, support.reason

    def test_refusal_has_a_reason(self, adapter: DeviceAdapter, tmp_path: Path) -> None:
        """What is not taken is refused with words, before anything is compiled."""
        file = tmp_path / "model.unknown"
        file.write_bytes(b"?")
        support = adapter.supports(Workload.from_file(file))
        assert support.ok or len(support.reason) > 10

    @pytest.mark.parametrize("name", PIECES)
    def test_outputs_are_right(
        self, computing: DeviceAdapter, plan: MeasurePlan, name: str
    ) -> None:
        """Outputs agree with the standard's evaluator, on inputs that were not compiled in."""
        workload = block(name)
        piece = PIECES[name]
        shape = (1, piece.in_channels, piece.size_px, piece.size_px)
        rng = np.random.default_rng(7)
        inputs = {"input": rng.standard_normal(shape, dtype=np.float32)}
        executable = computing.compile(workload, plan)
        try:
            outputs = executable.outputs(inputs)
        finally:
            executable.close()
        (expected,) = reference_outputs(workload, inputs)
        assert outputs[0].shape == expected.shape
        scale = float(np.abs(expected).max())
        assert scale > 0
        error = np.abs(np.asarray(outputs[0], np.float64) - np.asarray(expected, np.float64))
        assert float(error.max()) <= TOLERANCE * scale

    def test_check_sees_wrong_outputs(self, computing: DeviceAdapter, plan: MeasurePlan) -> None:
        """A reference that differs shows as an error, the own outputs do not."""
        executable = computing.compile(block("mbconv"), plan)
        own = executable.outputs()
        assert executable.check(own).max_rel_error == pytest.approx(0, abs=TOLERANCE)
        wrong = [np.asarray(o, dtype=np.float32) * np.float32(1.5) for o in own]
        assert (executable.check(wrong).max_rel_error or 0.0) > 0.1
        assert executable.check().finite
        assert executable.check().provider
        executable.close()

    @pytest.mark.parametrize("cache", ["hot", "cold"])
    def test_bursts_hold_together(
        self, adapter: DeviceAdapter, plan: MeasurePlan, cache: Literal["hot", "cold"]
    ) -> None:
        """Arrays are int64, positive, of one length, in order, and as many as asked."""
        executable = adapter.compile(block("mbconv"), plan)
        burst = executable.burst(0.0, 7, cache)
        assert burst.start_ns.dtype == burst.duration_ns.dtype == np.int64
        assert burst.start_ns.shape == burst.duration_ns.shape
        assert burst.n_samples >= 7
        assert burst.calls_per_sample >= 1
        assert np.all(burst.duration_ns > 0)
        assert np.all(burst.start_ns[1:] >= burst.start_ns[:-1] + burst.duration_ns[:-1])
        if burst.wait_ns is not None:
            assert burst.wait_ns.dtype == np.int64
            assert burst.wait_ns.shape == burst.duration_ns.shape
            assert np.all((burst.wait_ns >= 0) & (burst.wait_ns <= burst.duration_ns))
        executable.close()

    def test_loaded_figures(self, adapter: DeviceAdapter, plan: MeasurePlan) -> None:
        """Load time, size and memory are there and positive."""
        executable = adapter.compile(block("mbconv"), plan)
        loaded = executable.loaded
        assert loaded.load_s > 0
        assert loaded.artifact_bytes > 0
        assert loaded.peak_memory_bytes is None or loaded.peak_memory_bytes > 0
        executable.close()

    def test_damaged_model_is_the_users_error(
        self,
        computing: DeviceAdapter,
        plan: MeasurePlan,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What cannot be read is a ModelError, not a crash and not the device's fault."""
        monkeypatch.syspath_prepend(str(tmp_path))
        sys.modules.pop("hwprof_contract_model", None)
        workload = self.user_model(computing, tmp_path, "damaged")
        with pytest.raises(ModelError):
            computing.compile(workload, plan)

    def test_nan_is_seen(
        self,
        computing: DeviceAdapter,
        plan: MeasurePlan,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Outputs that are not finite are said to be so."""
        monkeypatch.syspath_prepend(str(tmp_path))
        sys.modules.pop("hwprof_contract_model", None)
        executable = computing.compile(self.user_model(computing, tmp_path, "nan"), plan)
        assert not executable.check().finite
        executable.close()

    def test_close_is_idempotent(self, device: DeviceRef, plan: MeasurePlan) -> None:
        """Closing twice is closing once."""
        adapter = open_adapter(device)
        executable = adapter.compile(block("skip"), plan)
        for _ in range(2):
            executable.close()
        for _ in range(2):
            adapter.close()
