"""Names, statuses and opening; nothing heavy is imported to list devices."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import hwprof.devices as registry
from hwprof.errors import CompileError, DeviceUnavailableError, PlanError
from hwprof.measure.engine import measure
from hwprof.measure.pool import launcher_for
from hwprof.measure.records import DeviceOptions, DeviceRef, Failure, Precision, plan_for
from hwprof.parts.tracing import trace_workloads
from hwprof.regression.gate import Gate
from hwprof.regression.side_by_side import Pair, PairFailed, side_by_side
from hwprof.workload import Workload


def test_reference_is_inert_data() -> None:
    options = DeviceOptions(threads=2)
    ref = registry.device_ref("cpu", options)
    assert ref == DeviceRef(
        name="cpu",
        factory="hwprof.devices.cpu:CpuAdapter",
        options=options,
        refuses="hwprof.devices.cpu:refuses",
    )


@pytest.mark.parametrize(
    ("device", "file", "precision", "reason"),
    [
        ("cpu", "m.tflite", "fp32", "'m.tflite' is no .onnx file, which cpu reads"),
        ("cpu", "m.onnx", "int8", "cpu runs fp32 only, not 'int8'"),
        ("cpu-torch", "m.onnx", "fp32", "'m.onnx' is a model file, which torch does not run"),
        ("openvino", "m.pt", "fp32", "'m.pt' is neither of the files that openvino reads"),
        ("tflite@ssh://pi@board", "m.onnx", "fp32", "'m.onnx' is no .tflite file"),
        ("tflite", "m.tflite", "int8", "'m.tflite' is run as it is, not as 'int8'"),
    ],
)
def test_what_a_device_never_takes_is_told_before_workers_start(
    device: str, file: str, precision: Precision, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("measure.engine", "parts.tracing", "regression.side_by_side"):
        monkeypatch.setattr(f"hwprof.{module}.Pool", None)
    workload = Workload(role="model", label=file, path=file)
    ref = registry.device_ref(device, DeviceOptions(precision=precision))
    (result,) = measure([workload], ref, plan_for("quick"))
    assert isinstance(result, Failure)
    assert result.why.startswith(f"supports failed (unsupported): {reason}")
    pair = Pair(label=file, base=workload, new=workload)
    found = side_by_side(pair, ref, Gate())
    assert isinstance(found, PairFailed)
    assert found.failure == result
    with pytest.raises(CompileError, match=re.escape(reason)):
        trace_workloads([workload], ref, plan_for("quick"))


def test_unknown_device_names_the_nearest() -> None:
    with pytest.raises(PlanError, match=r"unknown device 'cpu-toch': did you mean 'cpu-torch'\?"):
        registry.device_ref("cpu-toch", DeviceOptions())


def test_a_gpu_is_not_taken_for_a_slip_of_cpu() -> None:
    with pytest.raises(PlanError, match=r"unknown device 'gpu': expected one of cpu, .*cuda"):
        registry.device_ref("gpu", DeviceOptions())


def test_listing_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    statuses = {s.name: s for s in registry.list_devices()}
    assert statuses["null"].available
    torch = statuses["cpu-torch"]
    assert not torch.available
    assert torch.runtime_version is None
    assert torch.reason == "torch is not installed: run pip install 'hwprof[search]'"


@pytest.mark.parametrize(
    ("gpu", "reason"),
    [
        ("no NVIDIA GPU is here", "no NVIDIA GPU is here"),
        ("", "tensorrt is not installed: run pip install 'hwprof[tensorrt]'"),
    ],
)
def test_listing_tells_first_what_no_package_would_mend(
    monkeypatch: pytest.MonkeyPatch, gpu: str, reason: str
) -> None:
    monkeypatch.setattr("hwprof.devices.nvidia.cuda_presence.timing_lacks", lambda: gpu)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    status = {s.name: s for s in registry.list_devices()}["tensorrt"]
    assert not status.available
    assert status.reason == reason


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ("return 'no NPU is plugged in'", "no NPU is plugged in"),
        ("return ''", ""),
        ("raise OSError('driver')", "its check 'npu_check:lacks' failed: OSError: driver"),
    ],
)
def test_another_package_says_what_its_device_lacks(
    check: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "npu_check.py").write_text(f"def lacks():\n    {check}\n")
    (tmp_path / "npu_check-1.dist-info").mkdir()
    (tmp_path / "npu_check-1.dist-info" / "METADATA").write_text("Name: npu-check\nVersion: 1\n")
    (tmp_path / "npu_check-1.dist-info" / "entry_points.txt").write_text(
        "[hwprof.devices]\nmy-npu = npu_check:Adapter\n"
        "[hwprof.device_checks]\nmy-npu = npu_check:lacks\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "npu_check", raising=False)
    status = {s.name: s for s in registry.list_devices()}["my-npu"]
    assert (status.available, status.reason) == (not reason, reason)
    if reason:
        with pytest.raises(DeviceUnavailableError, match=re.escape(reason)):
            launcher_for(registry.device_ref("my-npu", DeviceOptions()))


def test_listing_imports_no_runtime() -> None:
    code = (
        "import sys; from hwprof.devices import list_devices; list_devices();"
        "print([m for m in ('torch', 'onnxruntime', 'onnx', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("factory", ["no.such.module:Adapter", "hwprof.devices.cpu:NoSuchClass"])
def test_adapter_that_cannot_be_loaded(factory: str) -> None:
    with pytest.raises(DeviceUnavailableError, match="cannot load the adapter of 'ghost'"):
        registry.open_device(DeviceRef(name="ghost", factory=factory))


def test_listing_takes_another_runtime_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"tflite_runtime"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in found else None)
    monkeypatch.setattr("importlib.metadata.version", {"tflite-runtime": "2.14.0"}.__getitem__)
    status = {s.name: s for s in registry.list_devices()}["tflite"]
    assert status.available
    assert (status.runtime, status.runtime_version) == ("tflite-runtime", "2.14.0")
    found.clear()
    status = {s.name: s for s in registry.list_devices()}["tflite"]
    assert not status.available
    assert "pip install 'hwprof[tflite]'" in status.reason
