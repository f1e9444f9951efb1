"""A GPU whose memory is full: a failure of its own, and no harm to what comes next."""

from __future__ import annotations

import pytest

from hwprof.devices.nvidia.cuda import CudaAdapter, CudaCompiledAdapter
from hwprof.measure.records import DeviceOptions
from hwprof.testing import block
from tests.devices.cuda_adapters import PLAN, READINGS, adapter
from tests.devices.fake_cuda import FakeGpu, OutOfMemoryError, TorchOnFakeGpu
from tests.devices.fake_nvml import FakeNvml

torch = pytest.importorskip("torch")


def test_a_full_gpu_is_a_failure_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(MemoryError, match=r"Tried to allocate 2 GiB.*; use a smaller --batch"):
        adapter().compile(block("mbconv"), PLAN)


@pytest.mark.parametrize("kind", [CudaAdapter, CudaCompiledAdapter])
@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    ],
)
def test_a_full_gpu_is_no_mistake_of_the_model(kind: type[CudaAdapter], text: str) -> None:
    """CUDA's libraries say so in words: torch's own error is only for its allocator."""
    opened = adapter(kind=kind, replaced={"compile": lambda module, **_: module})

    def full() -> None:
        raise RuntimeError(text)

    opened.torch.cuda.synchronize = full
    with pytest.raises(MemoryError, match=r"ALLOC.*FAILED.*; use a smaller --batch"):
        opened.compile(block("mbconv"), PLAN)


def test_after_a_full_gpu_the_next_workload_finds_its_memory() -> None:
    emptied: list[bool] = []
    opened = adapter()
    opened.torch.cuda.empty_cache = lambda: emptied.append(True)
    opened.compile(block("mbconv"), PLAN)
    with pytest.raises(MemoryError), opened.room_for(block("mbconv")):
        raise OutOfMemoryError("CUDA out of memory.")
    assert emptied == []  # what failed hangs on its error still
    for _ in range(2):
        opened.compile(block("mbconv"), PLAN)
    assert emptied == [True]


def test_a_gpu_without_room_for_a_process_says_what_helps() -> None:
    stand_in = TorchOnFakeGpu(FakeGpu())

    def full() -> None:
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be")

    stand_in.cuda.Stream = full
    with pytest.raises(MemoryError, match=r"another process .*\(CUDA error: out of memory\); use"):
        CudaAdapter(DeviceOptions(), stand_in, FakeNvml(**READINGS), place="cpu")
