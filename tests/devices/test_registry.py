"""Names, statuses and opening; nothing heavy is imported to list devices."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hwprof.devices as registry
from hwprof.errors import DeviceUnavailableError, PlanError
from hwprof.measure.records import DeviceOptions, DeviceRef


def test_reference_is_inert_data() -> None:
    options = DeviceOptions(threads=2)
    ref = registry.device_ref("cpu", options)
    assert ref == DeviceRef(name="cpu", factory="hwprof.devices.cpu:CpuAdapter", options=options)


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
