"""ONNX Runtime's CUDA adapter: the real runtime on the CPU plays the provider of a scripted GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwprof.devices.nvidia.cuda_ort import (
    CPU_PROVIDER,
    PROVIDER,
    CudaOrtAdapter,
    CudaOrtExecutable,
    cpu_operators,
)
from hwprof.errors import CompileError, DeviceError, DeviceUnavailableError, ModelError
from hwprof.measure.engine import measure
from hwprof.measure.records import (
    Cache,
    DeviceOptions,
    DeviceRef,
    Failure,
    Measurement,
    plan_for,
)
from hwprof.testing import block
from hwprof.workload import InputSpec, Workload
from tests.devices.fake_cuda import FakeGpu, fake_torch
from tests.devices.fake_cuda_ort import GRAPH_REFUSED, NOT_PERMITTED, RUN_NS, OrtOnFakeGpu
from tests.devices.fake_nvml import FakeNvml
from tests.devices.filling import assert_filled_and_put_back

PLAN = plan_for("quick")


def adapter(
    ort: OrtOnFakeGpu | None = None, gpu: FakeGpu | None = None, **options: Any
) -> CudaOrtAdapter:
    gpu = gpu or FakeGpu()
    stand_in = ort or OrtOnFakeGpu(gpu)
    return CudaOrtAdapter(
        DeviceOptions(**options), fake_torch(stand_in.gpu), FakeNvml(reasons=0), stand_in
    )


def compiled(workload: Workload | None = None, **how: Any) -> CudaOrtExecutable:
    return adapter(**how).compile(workload or block("mbconv"), PLAN)


def shaped(path: Path) -> Workload:
    """A reshape to sizes that are reckoned from the input's own shape."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Shape", ["x"], ["s"], name="shape"),
        helper.make_node("Reshape", ["r", "s"], ["y"], name="reshape"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "shaped", ends[:1], ends[1:])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, str(path))
    return Workload.from_file(path, (InputSpec(name="x", shape=(2, 4)),))


def test_outputs_go_through_the_binding() -> None:
    assert_filled_and_put_back(compiled(), r"the shape \[1, 8, 8, 8\], not \[1, 8, 1, 1\]")


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", "0"), ("tf32", "1")])
def test_what_the_provider_is_told(precision: Any, tf32: str) -> None:
    ort = OrtOnFakeGpu(FakeGpu())
    compiled(ort=ort, precision=precision)
    assert ort.opened[0] == {
        "device_id": "0",
        "user_compute_stream": str(0x5EED),
        "enable_cuda_graph": "1",
        "use_tf32": tf32,
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "arena_extend_strategy": "kSameAsRequested",
    }


def test_a_replay_that_waits_has_the_hosts_part_in_it() -> None:
    """A launch of 5 µs, a wait of 1 µs beside 40 µs on the GPU; cold calls cannot be hidden."""
    gpu = FakeGpu()
    executable = compiled(ort=OrtOnFakeGpu(gpu, waits=True))
    executable.timer._clock_ns = gpu.clock_ns
    burst = executable.timer.burst(0.0, 5, "hot")
    per_call = burst.duration_ns / burst.calls_per_sample
    assert per_call == pytest.approx(RUN_NS + 5_000 + 1_000, rel=0.01)
    assert executable.timer.unhidden_share == 1.0
    assert burst.end_to_end_ns is not None
    executable.timer.burst(0.0, 5, "cold")
    assert executable.timer.unhidden_share == 1.0


def test_a_replay_that_comes_back_at_once_is_hidden() -> None:
    """Also hot: 5 calls of 40 µs fill the interval, one behind the other, and nothing else is in it."""
    gpu = FakeGpu()
    executable = compiled(ort=OrtOnFakeGpu(gpu))
    executable.timer._clock_ns = gpu.clock_ns
    plans: tuple[tuple[Cache, int], ...] = (("hot", 5), ("cold", 1))
    for cache, calls in plans:
        burst = executable.timer.burst(0.0, 5, cache)
        assert burst.calls_per_sample == calls
        assert burst.duration_ns == pytest.approx(calls * RUN_NS, abs=500)
        assert executable.timer.unhidden_share == 0.0


def test_without_a_graph_cold_calls_are_hidden() -> None:
    gpu = FakeGpu()
    executable = compiled(ort=OrtOnFakeGpu(gpu, on_cpu=("GlobalAveragePool",)))
    executable.timer._clock_ns = gpu.clock_ns
    burst = executable.timer.burst(0.0, 5, "cold")
    assert burst.duration_ns == pytest.approx(RUN_NS, abs=500)
    assert executable.timer.unhidden_share == 0.0


def test_what_cannot_be_captured_runs_without_a_graph() -> None:
    """An operator that waits for the GPU shows in the first run, not when the session opens."""
    ort = OrtOnFakeGpu(FakeGpu(), captures=False)
    executable = compiled(ort=ort)
    assert ort.opened[-1]["enable_cuda_graph"] == "0"
    assert NOT_PERMITTED in executable.loaded.warnings[0]
    np.testing.assert_array_equal(executable.outputs()[0], compiled().outputs()[0])


def look_up(path: Path, n_ids: int) -> Workload:
    """Rows of a table of ten, all ones."""
    gather = helper.make_node("Gather", ["table", "ids"], ["y"], name="look up")
    table = helper.make_tensor("table", TensorProto.FLOAT, [10, 2], [1.0] * 20)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [n_ids])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [n_ids, 2])
    graph = helper.make_graph([gather], "ids", [ids], [output], [table])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, str(path))
    return Workload.from_file(path)


def test_ids_stay_inside_the_models_table(tmp_path: Path) -> None:
    """Beyond it the provider reads zeros without a word: the host is asked, which checks."""
    executable = compiled(look_up(tmp_path / "m.onnx", n_ids=64))
    assert executable._seeded["ids"].max() == 1
    assert np.all(executable.outputs()[0] == 1.0)
    assert executable.loaded.warnings == ()


def test_a_single_number_that_is_drawn_is_told(tmp_path: Path) -> None:
    (told,) = compiled(look_up(tmp_path / "m.onnx", n_ids=1)).loaded.warnings
    assert "'ids' was drawn at random as" in told


def test_all_on_the_gpu_is_no_fallback() -> None:
    executable = compiled()
    check = executable.check()
    assert check.fallback_ops == check.outside_ops == ()
    assert check.provider == PROVIDER
    assert executable.loaded.warnings == ()


def test_operators_on_the_cpu_are_named() -> None:
    """Silently placed there by the runtime, which then also refuses a graph."""
    executable = compiled(ort=OrtOnFakeGpu(FakeGpu(), on_cpu=("GlobalAveragePool",)))
    found = executable.check().fallback_ops
    assert [name.partition(" ")[2] for name in found] == ["(GlobalAveragePool)"]
    assert all(name.startswith("mbconv/") for name in found)
    assert GRAPH_REFUSED in executable.loaded.warnings[0]


def test_shape_sums_stay_on_the_host_on_purpose(tmp_path: Path) -> None:
    ort = OrtOnFakeGpu(FakeGpu(), on_cpu=("Shape",))
    check = compiled(shaped(tmp_path / "m.onnx"), ort=ort).check()
    assert check.fallback_ops == ()
    assert check.outside_ops == ("shape (Shape)",)


def test_an_operator_that_makes_integers_and_floats_is_a_fallback() -> None:
    event = {
        "cat": "Node",
        "name": "top_kernel_time",
        "args": {
            "provider": CPU_PROVIDER,
            "op_name": "TopK",
            "output_type_shape": [{"float": [1, 3]}, {"int64": [1, 3]}],
        },
    }
    assert cpu_operators([event]) == (("top (TopK)",), ())
    assert cpu_operators([{"cat": "Session", "name": "model_run"}]) == ((), ())


def test_facts_in_the_key() -> None:
    stable = adapter(precision="tf32").fingerprint().stable
    expected = {"device": "cuda-ort", "runtime_version": "1.32.0", "cuda": "13.0", "cudnn": 91000}
    assert {name: stable[name] for name in expected} == expected


def test_a_provider_that_does_not_load_is_no_device() -> None:
    with pytest.raises(DeviceUnavailableError, match=r"cannot load its CUDA provider.*CUDA 13\.0"):
        compiled(ort=OrtOnFakeGpu(FakeGpu(), loads=False))


def test_a_cpu_build_is_named() -> None:
    class CpuBuild(OrtOnFakeGpu):
        def get_available_providers(self) -> list[str]:
            return [CPU_PROVIDER]

    with pytest.raises(DeviceUnavailableError, match="pip install onnxruntime-gpu"):
        adapter(CpuBuild(FakeGpu()))


def test_damaged_files(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(b"no model at all" * 20)
    with pytest.raises(ModelError, match="export it again"):
        compiled(Workload.from_file(file))


@pytest.mark.parametrize(
    "text",
    ["CUDA failure 2: out of memory", "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"],
)
def test_a_full_gpu_is_a_failure_of_its_own(text: str) -> None:
    class Full(OrtOnFakeGpu):
        def InferenceSession(self, *_: Any, **__: Any) -> Any:  # noqa: N802
            raise RuntimeError(f"{text} ; GPU=0")

    with pytest.raises(MemoryError, match=r"GPU=0; use a smaller --batch"):
        compiled(ort=Full(FakeGpu()))


def test_missing_libraries_are_no_fault_of_the_model() -> None:
    """Where CUDA_PATH is set the runtime raises what it else only logs."""

    class Missing(OrtOnFakeGpu):
        def InferenceSession(self, *_: Any, **__: Any) -> Any:  # noqa: N802
            raise RuntimeError("CUDA_PATH is set but CUDA wasn't able to be loaded. Please install")

    with pytest.raises(DeviceUnavailableError, match=r"cannot load its CUDA provider.*CUDA 13\.0"):
        compiled(ort=Missing(FakeGpu()))


def test_another_refusal_is_not_taken_for_the_graphs() -> None:
    class Refusing(OrtOnFakeGpu):
        def InferenceSession(self, *_: Any, **__: Any) -> Any:  # noqa: N802
            raise RuntimeError("no kernel for FancyOp")

    with pytest.raises(CompileError, match="FancyOp"):
        compiled(ort=Refusing(FakeGpu()))


@pytest.mark.parametrize(
    ("options", "workload", "words"),
    [
        ({"precision": "fp16"}, block("mbconv"), "fp32 and tf32, not 'fp16'"),
        ({}, Workload.from_callable("a:b", ()), "use --device cuda"),
    ],
)
def test_refusals_say_what_would_help(options: Any, workload: Workload, words: str) -> None:
    support = adapter(**options).supports(workload)
    assert not support.ok
    assert words in support.reason


def test_trace_is_refused_with_the_reason() -> None:
    with pytest.raises(DeviceError, match="times launches on the host"):
        compiled().trace()


def open_fake(options: DeviceOptions) -> CudaOrtAdapter:
    """Open the scripted GPU in a worker process; NVML is there and says the power cap is on."""
    nvml = FakeNvml(sm=1500, reasons=0x4, MigMode=[1, 1])
    ort = OrtOnFakeGpu(FakeGpu())
    return CudaOrtAdapter(options, fake_torch(ort.gpu), nvml, ort)


def test_through_the_engine() -> None:
    """From real workers over the wire: three times, sensors, warnings, memory, all in the JSON."""
    device = DeviceRef(name="cuda-ort", factory="tests.devices.test_cuda_ort:open_fake")
    plan = plan_for("quick", workers=2, looks=(3,), round_s=0.0)
    (found,) = measure([block("skip")], device, plan)
    assert isinstance(found, Measurement), found
    row = found.to_json()
    replay_s = RUN_NS * 1e-9
    assert row["level_s"] == pytest.approx(replay_s, rel=0.01)
    telemetry = row["telemetry"]
    assert telemetry["gpu_median_s"] == pytest.approx(replay_s, rel=0.01)
    assert telemetry["enqueue_median_s"] > 0
    assert telemetry["end_to_end_median_s"] >= telemetry["enqueue_median_s"]
    assert telemetry["sensors"]["power_capped"] == [1.0, 1.0]
    assert telemetry["sensors"]["sm_mhz"] == [1500.0, 1500.0]
    assert any("MIG" in line for line in telemetry["warnings"])
    assert any("MIG" in line for line in row["evidence"])
    assert row["fingerprint"]["stable"]["hardware"] == "NVIDIA Scripted GPU"
    assert not any("throttled" in b.causes for b in found.bursts)


def test_a_silent_fallback_is_a_failure_without_a_number() -> None:
    device = DeviceRef(name="cuda-ort", factory="tests.devices.test_cuda_ort:open_falling_back")
    plan = plan_for("quick", workers=1, looks=(2,), round_s=0.0)
    (found,) = measure([block("mbconv")], device, plan)
    assert isinstance(found, Failure)
    assert found.kind == "fallback"
    assert "GlobalAveragePool" in found.message


def open_falling_back(options: DeviceOptions) -> CudaOrtAdapter:
    ort = OrtOnFakeGpu(FakeGpu(), on_cpu=("GlobalAveragePool",))
    return CudaOrtAdapter(options, fake_torch(ort.gpu), FakeNvml(reasons=0), ort)
