"""A search whose finalists are measured where its run was profiled is no search of another device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hwprof
from hwprof.api.device_checks import require_same_device
from hwprof.api.runs import latency_model
from hwprof.errors import IncompatibleRunError
from hwprof.measure.records import DeviceOptions


@pytest.mark.slow
def test_the_device_of_a_run_is_its_own_device(tmp_path: Path) -> None:
    """For real: workers have an allocator of their own, which is part of the key."""
    hwprof.profile(
        space="nasbench201", device="cpu", out=tmp_path / "run", networks=12, isolated=False
    )
    model, device = latency_model(tmp_path / "run")
    assert device == "cpu"
    require_same_device(model, "cpu", DeviceOptions())
    with pytest.raises(IncompatibleRunError, match="batch 1, not 2"):
        require_same_device(model, "cpu", DeviceOptions(batch=2))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["kind"] == "profile"
