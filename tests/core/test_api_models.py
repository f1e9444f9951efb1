"""What a user names becomes a workload."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwprof.api.models import as_workload


@pytest.mark.parametrize("name", ["net.onnx", "package.module:function", "proxyless-gpu"])
def test_the_seed_reaches_the_inputs_of_every_kind_of_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(b"")
    assert as_workload(name).seed == 0
    assert as_workload(name, seed=7).seed == 7
