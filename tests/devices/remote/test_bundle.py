"""The agent carries what it imports, and nothing else; workloads go as files named by hash."""

from __future__ import annotations

import ast
import hashlib
import io
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hwprof.devices import device_ref, open_device
from hwprof.devices.agent.models import NAME
from hwprof.devices.remote.artifacts import Artifacts
from hwprof.devices.remote.bundle import agent_bundle
from hwprof.errors import CompileError, ModelError
from hwprof.measure.records import DeviceOptions, plan_for
from hwprof.measure.references import BLOCK
from hwprof.workload import Workload

LOAD = """
import sys
sys.path.insert(0, {path!r})
from hwprof.devices.agent import board_server, keeper, supervisor
from hwprof.devices import BUILTIN
import importlib
for known in BUILTIN.values():
    importlib.import_module(known.factory.partition(":")[0])
import hwprof
assert hwprof.__file__.startswith({path!r}), hwprof.__file__
print(sorted(m for m in ("onnx", "scipy", "pandas", "torch", "typer") if m in sys.modules))
"""


def test_the_bundle_is_whole_and_needs_numpy_alone(tmp_path: Path) -> None:
    path = tmp_path / "agent.pyz"
    path.write_bytes(agent_bundle().content)
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD.format(path=str(path))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "[]\n"


def test_the_bundle_holds_no_part_that_the_device_does_not_need() -> None:
    with zipfile.ZipFile(io.BytesIO(agent_bundle().content)) as archive:
        names = archive.namelist()
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert "__main__.py" in names
    assert "hwprof/measure/timing.py" in names
    for part in ("api", "cli", "search", "reports", "store", "estimate", "checks"):
        assert not [n for n in names if n.startswith(f"hwprof/{part}/")]
    assert agent_bundle().digest == hashlib.sha256(agent_bundle().content).hexdigest()


def test_an_old_python_is_told_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(io.BytesIO(agent_bundle().content)) as archive:
        source = archive.read("__main__.py").decode()
    ast.parse(source, feature_version=(3, 7))
    entry = tmp_path / "entry.py"
    entry.write_text(source)
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer"):
        runpy.run_path(str(entry))


def test_arguments_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.pyz"
    path.write_bytes(agent_bundle().content)
    done = subprocess.run(
        [sys.executable, str(path), "worker", "; reboot", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("expected worker NUMBER FOLDER")


def test_a_block_becomes_a_file_with_the_same_outputs(tmp_path: Path) -> None:
    artifacts = Artifacts("cpu@ssh://board", DeviceOptions(batch=2))
    there = artifacts.there(BLOCK)
    assert there.path is not None
    assert NAME.fullmatch(there.path)
    content = artifacts.content(BLOCK)
    assert hashlib.sha256(content).hexdigest() == there.content
    assert artifacts.key_there(BLOCK.key) == there.key
    (tmp_path / there.path).write_bytes(content)
    adapter = open_device(device_ref("cpu", DeviceOptions(batch=2)))
    plan = plan_for("quick")
    here = adapter.compile(BLOCK, plan)
    copied = adapter.compile(
        Workload.from_json({**there.to_json(), "path": str(tmp_path / there.path)}), plan
    )
    for ours, theirs in zip(here.outputs(), copied.outputs(), strict=True):
        assert ours.shape[0] == 2
        np.testing.assert_array_equal(ours, theirs)


def test_files_keep_their_kind_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "My Model.ONNX"
    path.write_bytes(b"one")
    workload = Workload.from_file(path)
    there = Artifacts("cpu@ssh://board", DeviceOptions(batch=1)).there(workload)
    assert there.path == f"{hashlib.sha256(b'one').hexdigest()}.onnx"
    assert there.key == workload.key
    path.write_bytes(b"two")
    with pytest.raises(ModelError, match="has changed"):
        Artifacts("cpu@ssh://board", DeviceOptions(batch=1)).there(workload)


def test_an_adapter_that_reads_no_file_gets_the_workload_as_it_is() -> None:
    assert Artifacts("cpu-torch@ssh://board", DeviceOptions(batch=1)).there(BLOCK) == BLOCK
    with pytest.raises(CompileError, match="Python code of this machine"):
        Artifacts("cpu-torch@ssh://board", DeviceOptions(batch=1)).there(
            Workload.from_callable("m:Net", ())
        )
