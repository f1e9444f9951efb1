"""Files of one network in every format compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwprof import api
from hwprof.devices import device_ref, open_device
from hwprof.errors import PlanError
from hwprof.measure.records import DeviceOptions, plan_for
from hwprof.space import Architecture, get_space
from hwprof.workload import Workload


@pytest.fixture
def arch() -> Architecture:
    return get_space("mobile-mini").sample(np.random.default_rng(2))


def test_onnx_and_tflite_are_one_function(arch: Architecture, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    image = np.random.default_rng(1).standard_normal((2, 3, 32, 32), dtype=np.float32)
    outputs = []
    for format, device, given in (
        ("onnx", "cpu", image),
        ("tflite", "tflite", image.transpose(0, 2, 3, 1)),
    ):
        path = api.export(arch, tmp_path / f"net.{format}", format=format, batch=2, seed=5)
        adapter = open_device(device_ref(device, DeviceOptions()))
        executable = adapter.compile(Workload.from_file(path), plan_for("quick"))
        outputs.append(executable.outputs({"input": given})[0])
    assert outputs[0].shape == outputs[1].shape
    assert np.abs(outputs[0] - outputs[1]).max() <= 1e-5 * np.abs(outputs[0]).max()  # type: ignore[operator]


def test_images_without_a_checkpoint_are_refused(arch: Architecture, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="--data is for the weights of --checkpoint"):
        api.export(arch, tmp_path / "net.onnx", data="digits")
    assert not list(tmp_path.iterdir())


def test_a_batch_size_of_weights_alone_is_refused(arch: Architecture, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="--batch 2 means nothing to --format torch"):
        api.export(arch, tmp_path / "net.pt", format="torch", batch=2)
    assert not list(tmp_path.iterdir())
