"""Torch on the CPU: users' callables and what they may do wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hwprof.devices.cpu_torch import CpuTorchAdapter, CpuTorchExecutable
from hwprof.errors import ModelError
from hwprof.measure.records import DeviceOptions, plan_for
from hwprof.workload import InputSpec, Workload

SOURCE = """
import torch

class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(1000, 4)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, ids, x):
        rows = self.table(ids)
        return {"sum": rows + x, "more": [self.dropout(x)]}

class Vocabulary(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(10, 4)

    def forward(self, ids, scale):
        assert scale.shape == ()
        return self.table(ids) * scale

class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(1000, 4)
        self.out = torch.nn.Linear(4, 1000, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x):
        return self.out(x)

    def get_extra_state(self):
        return {"version": 1, "packed": (torch.zeros(4, 4, dtype=torch.int8), torch.zeros(4))}

def settings():
    torch.set_num_threads(2)
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("medium")
    if hasattr(torch.backends.mkldnn, "conv"):
        torch.backends.mkldnn.conv.fp32_precision = "bf16"
    return torch.nn.Identity()

class Narrow(torch.nn.Module):
    def forward(self, x):
        return 3 * x.to(torch.bfloat16)

made = Two()
number = 7

def none():
    return None

def fails():
    raise OSError("no weights here")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user's module in the working directory, which is not on the import path."""
    (tmp_path / "users_models.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield "users_models"
    sys.path[:] = path
    sys.modules.pop("users_models", None)


INPUTS = (
    InputSpec(name="ids", shape=(2, 3), dtype="int64"),
    InputSpec(name="x", shape=(2, 3, 4)),
)


def compiled(target: str, inputs: tuple[InputSpec, ...] = INPUTS) -> CpuTorchExecutable:
    workload = Workload.from_callable(target, inputs)
    return CpuTorchAdapter(DeviceOptions()).compile(workload, plan_for("quick"))


@pytest.mark.parametrize("name", ["Two", "made"])
def test_classes_and_instances_with_several_inputs_and_nested_outputs(
    module: str, name: str
) -> None:
    executable = compiled(f"{module}:{name}")
    total, dropped = executable.outputs()
    assert total.shape == dropped.shape == (2, 3, 4)
    # Evaluation mode: dropout passes its input on.
    x = np.ones((2, 3, 4), np.float32)
    ids = np.zeros((2, 3), np.int64)
    np.testing.assert_array_equal(executable.outputs({"ids": ids, "x": x})[1], x)
    assert executable.loaded.artifact_bytes == 1000 * 4 * 4
    assert executable.burst(0.0, 5, "hot").n_samples >= 5


def test_ids_stay_within_the_vocabulary_and_scalars_are_scalars(module: str) -> None:
    inputs = (InputSpec(name="ids", shape=(2, 30), dtype="int64"), InputSpec(name="s", shape=()))
    executable = compiled(f"{module}:Vocabulary", inputs)
    assert int(executable._inputs[0].max()) == 1
    assert executable.burst(0.0, 5, "hot").n_samples >= 5


def test_weights_that_are_shared_count_once_and_packed_ones_too(module: str) -> None:
    executable = compiled(f"{module}:Tied", (InputSpec(name="x", shape=(2, 4)),))
    packed_bytes = 4 * 4 + 4 * 4  # as torch keeps eight-bit weights with their bias
    assert executable.loaded.artifact_bytes == 1000 * 4 * 4 + packed_bytes


def test_what_a_users_module_sets_does_not_outdo_the_options(module: str) -> None:
    compiled(f"{module}:settings", (InputSpec(name="x", shape=(2, 3)),))
    assert torch.get_num_threads() == 1
    assert torch.get_float32_matmul_precision() == "highest"
    if hasattr(torch.backends.mkldnn, "conv"):  # not before torch 2.9
        assert torch.backends.mkldnn.conv.fp32_precision == "ieee"
    assert float(torch.tensor([1e-42]) * 1) > 0  # no denormal is flushed


def test_a_variable_that_makes_fp32_coarser_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    (said,) = CpuTorchAdapter(DeviceOptions()).warnings
    assert "ONEDNN_DEFAULT_FPMATH_MODE=BF16" in said
    assert "ONEDNN_DEFAULT_FPMATH_MODE" not in os.environ
    assert CpuTorchAdapter(DeviceOptions()).warnings == ()


def test_outputs_of_a_type_that_numpy_lacks_are_widened(module: str) -> None:
    executable = compiled(f"{module}:Narrow", (InputSpec(name="x", shape=(2, 3)),))
    (found,) = executable.outputs({"x": np.full((2, 3), 0.5, np.float32)})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.full((2, 3), 1.5, np.float32))
    assert executable.check().finite


@pytest.mark.parametrize(
    ("name", "inputs", "words"),
    [
        ("missing", INPUTS, "cannot import"),
        ("number", INPUTS, "is a int; expected a callable"),
        ("none", INPUTS, "gave a NoneType; expected a torch.nn.Module"),
        ("fails", INPUTS, "OSError: no weights here"),
        ("Two", (), "needs its inputs' shapes"),
        ("Two", INPUTS[:1], "does not take inputs of the shapes"),
    ],
)
def test_what_a_callable_may_do_wrong(
    module: str, name: str, inputs: tuple[InputSpec, ...], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        compiled(f"{module}:{name}", inputs)


@pytest.mark.parametrize("target", ["nothing", "a:", ":b"])
def test_target_without_a_module_or_a_name(target: str) -> None:
    with pytest.raises(ModelError, match=r"expected package\.module:callable"):
        compiled(target)


def test_trace_names_operators(module: str) -> None:
    trace = compiled(f"{module}:Two").trace()
    assert "aten::embedding" in {op.name for op in trace.ops}
    assert trace.slowdown > 0


def test_a_trace_says_how_often_an_operator_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "three_relus.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    trace = compiled("three_relus:net", (InputSpec(name="x", shape=(1, 4)),)).trace()
    assert {op.name: op.count for op in trace.ops}["aten::relu"] == 3


@pytest.mark.parametrize("options", [{"precision": "fp16"}, {}])
def test_refusals(options: dict[str, Any]) -> None:
    workload = Workload(role="model", label="m.onnx", path="/m.onnx")
    if options:
        workload = Workload.from_callable("a:b", INPUTS)
    assert not CpuTorchAdapter(DeviceOptions(**options)).supports(workload).ok
