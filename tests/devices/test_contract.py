"""Every adapter against the contract. A new adapter joins by its name in ``DEVICES``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from hwprof.devices import device_ref, list_devices
from hwprof.graph import piece_graph, random_weights
from hwprof.measure.records import DeviceOptions, DeviceRef
from hwprof.protocols import DeviceAdapter
from hwprof.testing import PIECES, DeviceContract
from hwprof.workload import Workload

GPU_DEVICES = ["cuda", "cuda-eager", "cuda-compiled", "cuda-ort", "tensorrt"]
DEVICES = [
    *("null", "cpu", "cpu-torch", "openvino", "tflite"),
    *(pytest.param(name, marks=pytest.mark.gpu) for name in GPU_DEVICES),
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> DeviceRef:
    status = {s.name: s for s in list_devices()}[request.param]
    if not status.available:
        pytest.skip(f"{request.param}: {status.reason}")
    return device_ref(request.param, DeviceOptions())


class TestContract(DeviceContract):
    def user_model(
        self, adapter: DeviceAdapter, folder: Path, behaviour: Literal["damaged", "nan"]
    ) -> Workload:
        if adapter.fingerprint().stable["device"] != "tflite":
            return super().user_model(adapter, folder, behaviour)
        file = folder / f"{behaviour}.tflite"
        file.write_bytes(_nan_tflite() if behaviour == "nan" else b"no model at all" * 20)
        return Workload.from_file(file)


def _nan_tflite() -> bytes:
    from hwprof.devices.litert.tflite_writer import to_tflite

    graph = piece_graph(PIECES["mbconv strided"])
    weights = {n: np.full_like(a, np.nan) for n, a in random_weights(graph).items()}
    return to_tflite(graph, weights=weights)
