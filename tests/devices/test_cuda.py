"""The torch adapters of a GPU: real modules on the CPU, a scripted GPU round them."""

from __future__ import annotations

import gc
import os
import sys
import warnings
import weakref
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from hwprof.devices import torch_module
from hwprof.devices.nvidia.cuda import CudaAdapter, CudaCompiledAdapter, CudaEagerAdapter
from hwprof.devices.nvidia.nvml import GpuConditions
from hwprof.errors import CompileError, DeviceUnavailableError, ModelError
from hwprof.measure.records import DeviceOptions
from hwprof.measure.room import GROUP_SIZE
from hwprof.protocols import CanBeLost, ReportsDisturbance, ReportsWarnings
from hwprof.testing import block
from hwprof.workload import InputSpec, Workload
from tests.devices.cuda_adapters import PLAN, READINGS, adapter, compiled
from tests.devices.fake_cuda import CALL_NS, FakeGpu
from tests.devices.fake_nvml import FakeNvml
from tests.devices.filling import assert_filled_and_put_back

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("kind", [CudaAdapter, CudaEagerAdapter])
def test_outputs_are_those_of_what_is_timed(kind: type[CudaAdapter]) -> None:
    """A graph reads its inputs where it was captured: they are filled, run, and put back."""
    executable = compiled(FakeGpu(), kind=kind)
    assert_filled_and_put_back(executable, r"compiled for inputs of the shapes \[\(1, 8, 8, 8\)\]")


def test_inputs_are_random_never_zero() -> None:
    executable = compiled(FakeGpu())
    assert all(float((t != 0).float().mean()) > 0.99 for t in executable._inputs)


@pytest.mark.parametrize(
    ("kind", "is_graph", "provider"),
    [
        (CudaAdapter, True, "torch graph CUDA"),
        (CudaEagerAdapter, False, "torch eager CUDA"),
    ],
)
def test_modes(kind: type[CudaAdapter], is_graph: bool, provider: str) -> None:
    opened = adapter(kind=kind)
    executable = opened.compile(block("mbconv"), PLAN)
    assert executable.timer.is_graph is is_graph
    assert executable.check().provider == provider
    assert executable.loaded.warnings == ()
    assert opened.fingerprint().stable["device"] == kind.device
    assert opened.fingerprint().stable["mode"] == kind.mode


def test_a_refused_capture_is_said_beside_the_result() -> None:
    executable = compiled(FakeGpu(refuses_capture="not permitted when stream is capturing"))
    assert "no graph" in executable.provider
    assert "not permitted" in executable.loaded.warnings[0]


def test_a_burst_with_what_the_gpu_says_of_it() -> None:
    opened = adapter(nvml=FakeNvml(**{**READINGS, "reasons": 0x4}))
    executable = opened.compile(block("mbconv"), PLAN)
    # The scripted clock stands still for the host's own: whether it holds is tested elsewhere.
    opened._clock_held = True
    burst = executable.burst(0.0, 5, "hot")
    assert burst.duration_ns / burst.calls_per_sample == pytest.approx(CALL_NS, abs=500)
    assert burst.enqueue_ns is not None
    assert isinstance(opened, ReportsDisturbance)
    seen = opened.disturbance()
    assert not seen.throttled
    assert seen.readings["power_capped"] == 1.0
    assert seen.readings["sm_mhz"] == 1980.0
    assert seen.readings["clock_held"] == 1.0
    assert seen.readings["unhidden_share"] == 0.0


@pytest.mark.parametrize(
    ("precision", "dtype", "is_tf32"),
    [
        ("fp32", "float32", False),
        ("tf32", "float32", True),
        ("fp16", "float16", False),
        ("bf16", "bfloat16", False),
    ],
)
def test_precisions(precision: Any, dtype: str, is_tf32: bool) -> None:
    opened = adapter(precision=precision)
    executable = opened.compile(block("bottleneck"), PLAN)
    assert {p.dtype for p in executable._eager.parameters()} == {getattr(torch, dtype)}
    assert executable._inputs[0].dtype == getattr(torch, dtype)
    backends = opened.torch.backends
    assert backends.cuda.matmul.allow_tf32 is backends.cudnn.allow_tf32 is is_tf32
    assert executable.outputs()[0].dtype.kind == "f"
    assert executable.check().finite


def test_graphs_of_a_process_share_memory_and_stream() -> None:
    """A group of networks at a large batch fits: only one of them runs at a time."""
    opened = adapter()
    places = set()
    for name in ("mbconv", "bottleneck"):
        timer = opened.compile(block(name), PLAN).timer
        timer.burst(0.0, 2, "hot")
        places.add(timer._graph.place)
    assert places == {(opened.pool, opened.stream)}


def test_what_is_on_the_gpu_goes_when_it_is_closed() -> None:
    executable = compiled(FakeGpu())
    held: list[Any] = [weakref.ref(executable._eager), weakref.ref(executable._inputs[0])]
    gc.collect()
    gc.disable()
    try:
        executable.close()
        assert [ref() for ref in held] == [None, None]
    finally:
        gc.enable()


def test_batch() -> None:
    executable = compiled(FakeGpu(), batch=32)
    assert executable.outputs()[0].shape[0] == 32


def test_memory_is_what_the_workload_adds() -> None:
    gpu = FakeGpu(allocated_bytes=1_000, peak_bytes=9_000)
    assert compiled(gpu).loaded.peak_memory_bytes == 8_000


@pytest.mark.parametrize(
    ("options", "workload", "words"),
    [
        ({"precision": "int8"}, "block", "fp32, tf32, fp16, bf16, not 'int8'"),
        ({}, "file", "use --device cuda-ort"),
    ],
)
def test_refusals_say_what_would_help(
    options: Any, workload: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(b"?")
    asked = block("mbconv") if workload == "block" else Workload.from_file(file)
    support = adapter(**options).supports(asked)
    assert not support.ok
    assert words in support.reason


def test_a_compiler_that_refuses() -> None:
    def refuse(module: object, **_: object) -> Any:
        def call(*_: object) -> None:
            raise RuntimeError("no triton here\nwith a long trace")

        return call

    opened = adapter(kind=CudaCompiledAdapter, replaced={"compile": refuse})
    with pytest.raises(CompileError, match=r"refuses 'mbconv': RuntimeError: no triton here$"):
        opened.compile(block("mbconv"), PLAN)


def test_the_compilers_advice_is_no_failure() -> None:
    """It warns that TF32 is off, as asked for; these tests take any warning for an error."""
    advice = [
        "TensorFloat32 tensor cores for float32 matrix multiplication available but not",
        "what triton thinks of the code that is written for it",
    ]

    def advising(module: Any, **_: object) -> Any:
        def call(*inputs: Any) -> Any:
            while advice:  # once a process
                warnings.warn(advice.pop(), stacklevel=1)
            return module(*inputs)

        return call

    opened = adapter(kind=CudaCompiledAdapter, replaced={"compile": advising})
    assert opened.compile(block("mbconv"), PLAN).check().finite
    assert not advice


def test_advice_on_how_to_set_tf32_is_no_failure() -> None:
    """torch 2.9 tells, once, that the setting has another name; it was asked for under this one."""

    class Advising(SimpleNamespace):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "allow_tf32":
                warnings.warn("Please use the new API settings to control TF32", stacklevel=1)
            super().__setattr__(name, value)

    matmul, cudnn = Advising(), Advising(version=lambda: 91000)
    backends = SimpleNamespace(cuda=SimpleNamespace(matmul=matmul), cudnn=cudnn)
    adapter(precision="tf32", replaced={"backends": backends})
    assert matmul.allow_tf32 is cudnn.allow_tf32 is True


def test_the_compiler_is_not_left_at_eight_networks() -> None:
    """They share one forward(): torch.compile would leave the ninth of a process as it is."""
    opened = adapter(kind=CudaCompiledAdapter, replaced={"compile": lambda module, **_: module})
    opened.compile(block("mbconv"), PLAN)
    config = opened.torch._dynamo.config
    assert min(config.recompile_limit, config.accumulated_recompile_limit) > 2 * GROUP_SIZE
    assert config.fail_on_recompile_limit_hit


def test_what_fails_on_the_gpu_is_told_as_the_models() -> None:
    """An id beyond a table shows in the next call that waits, not in the launch."""

    def trip() -> None:
        raise RuntimeError(
            "CUDA error: device-side assert triggered\nSearch for cudaErrorAssert in"
        )

    opened = adapter()
    assert isinstance(opened, CanBeLost)
    assert not opened.is_lost()
    opened.torch.cuda.synchronize = trip
    with pytest.raises(ModelError, match=r"assert triggered\. .* id beyond a table: .* below 1000"):
        opened.compile(block("mbconv"), PLAN)
    assert opened.is_lost()


def test_a_users_mistake_is_a_model_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpu_user_model.py").write_text("import torch\nlinear = torch.nn.Linear(4, 2)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    wrong = Workload.from_callable("gpu_user_model:linear", (InputSpec(name="x", shape=(1, 5)),))
    with pytest.raises(ModelError, match="does not take inputs"):
        adapter().compile(wrong, PLAN)


class KeepsItsPlaces(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Keeps a tensor of its first call, as language models do; it would not move to a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(10, 4)
        self.places: Any = None

    def forward(self, ids: Any) -> Any:
        if self.places is None:
            self.places = torch.arange(ids.shape[1])
        return self.table(ids) + self.places[:, None]


def test_ids_are_drawn_so_that_the_host_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    users = ModuleType("gpu_user_ids")
    users.small = made = KeepsItsPlaces()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, users.__name__, users)
    places_at_move: list[Any] = []
    move = made.to

    def moved(*args: Any, **kwargs: Any) -> Any:
        places_at_move.append(made.places)
        return move(*args, **kwargs)

    monkeypatch.setattr(made, "to", moved)
    inputs = (InputSpec(name="ids", shape=(1, 6), dtype="int64"),)
    executable = adapter().compile(Workload.from_callable("gpu_user_ids:small", inputs), PLAN)
    assert executable.check().finite
    assert places_at_move == [None]


class SaysItsThreads(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Notes on how many threads it runs, in its copies too."""

    def __init__(self, noted: list[int]) -> None:
        super().__init__()
        self.note = noted.append

    def forward(self, ids: Any) -> Any:
        self.note(torch.get_num_threads())
        return ids * 1.0


def test_the_host_tries_ids_on_all_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that fits a GPU may keep one core busy for minutes, longer than --timeout."""
    monkeypatch.setattr(torch_module, "usable_cpus", lambda: frozenset(range(3)))
    before = torch.get_num_threads()
    noted: list[int] = []
    inputs = (InputSpec(name="ids", shape=(1, 6), dtype="int64"),)
    torch_module.inputs_for(SaysItsThreads(noted), inputs, seed=0)
    assert noted == [3]
    assert torch.get_num_threads() == before


def test_a_single_number_that_is_drawn_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    users = ModuleType("gpu_user_rounds")
    users.rounds = SaysItsThreads([])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, users.__name__, users)
    inputs = (InputSpec(name="rounds", shape=(1,), dtype="int64"),)
    executable = adapter().compile(Workload.from_callable("gpu_user_rounds:rounds", inputs), PLAN)
    assert "'rounds' was drawn at random as" in executable.loaded.warnings[0]


def test_what_a_users_module_sets_does_not_outdo_the_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Training code often does: its import must not turn fp32 into TF32."""
    opened = adapter()
    backends = opened.torch.backends

    def made() -> Any:
        backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = True
        backends.cudnn.benchmark = True
        return torch.nn.Identity()

    users = ModuleType("gpu_user_settings")
    users.made = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, users.__name__, users)
    inputs = (InputSpec(name="x", shape=(1, 5)),)
    opened.compile(Workload.from_callable("gpu_user_settings:made", inputs), PLAN)
    assert backends.cuda.matmul.allow_tf32 is backends.cudnn.allow_tf32 is False
    assert backends.cudnn.benchmark is False


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9")
@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_torchs_newer_settings_do_not_outdo_the_options(precision: Any) -> None:
    """They are set for all of torch or for cuDNN, and old names do not take them back."""
    opened = adapter(precision=precision)
    opened.torch.backends = backends = torch.backends
    before = backends.fp32_precision, backends.cudnn.fp32_precision, backends.cudnn.allow_tf32
    try:
        for owner in (backends, backends.cudnn):
            owner.fp32_precision = "tf32"
            opened.settle()
            wanted = "tf32" if precision == "tf32" else "ieee"
            parts = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
            assert {part.fp32_precision for part in parts} == {wanted}
            assert backends.cudnn.allow_tf32 is (precision == "tf32")
    finally:
        backends.fp32_precision, backends.cudnn.fp32_precision = before[:2]
        backends.cudnn.allow_tf32 = before[2]
        backends.cuda.matmul.allow_tf32 = False


def test_without_nvml_it_runs_and_says_what_is_not_known() -> None:
    opened = adapter(nvml=FakeNvml(init="Driver Not Loaded"))
    assert isinstance(opened, ReportsWarnings)
    assert "are not known: NVML says: Driver Not Loaded" in opened.warnings[0]
    executable = opened.compile(block("mbconv"), PLAN)
    executable.burst(0.0, 2, "hot")
    # The probe tells the clock that NVML does not.
    assert opened.disturbance().readings["clock_held"] == 1.0
    assert "driver" not in opened.fingerprint().stable


def test_others_on_the_gpu_are_told_from_ourselves() -> None:
    """NVML lists a process once it has a context, which its first stream makes."""
    gpu, other = FakeGpu(), 2**22 + 1
    nvml = FakeNvml(**READINGS, pids=lambda: [other, *([os.getpid()] if gpu.has_context else [])])
    (warning,) = adapter(gpu, nvml=nvml).warnings
    assert str(other) in warning


def test_under_sustained_load_it_does_not_wait_to_cool() -> None:
    opened = adapter(nvml=FakeNvml(**{**READINGS, "reasons": 0x40}))
    slept: list[float] = []
    opened.conditions = GpuConditions(opened.sensors, slept.append)
    opened._clock_held = True
    opened.compile(block("mbconv"), replace(PLAN, sustained_s=300.0)).burst(0.0, 2, "hot")
    assert slept == []
    opened.compile(block("mbconv"), PLAN).burst(0.0, 2, "hot")
    assert slept != []


def test_facts_in_the_key() -> None:
    stable = adapter(batch=8, precision="bf16").fingerprint().stable
    expected = {
        "device": "cuda",
        "hardware": "NVIDIA Scripted GPU",
        "compute_capability": "9.0",
        "gpu_memory_gib": 80,
        "driver": "580.65.06",
        "cuda": "13.0",
        "batch": 8,
        "precision": "bf16",
        "mig": False,
        "cudnn": 91000,
    }
    assert {name: stable[name] for name in expected} == expected


def test_closing_twice() -> None:
    executable = compiled(FakeGpu())
    for _ in range(2):
        executable.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_says_what_is_missing() -> None:
    with pytest.raises(DeviceUnavailableError, match=r"no NVIDIA GPU|without CUDA|finds no GPU"):
        CudaAdapter(DeviceOptions())
