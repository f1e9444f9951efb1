"""Engines of TensorRT: built once, kept, and made again where what is kept is no good."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwprof.devices.nvidia.tensorrt_cache import DiskCache, Entry, model_digest
from hwprof.devices.nvidia.tensorrt_engine import collecting_logger
from hwprof.errors import (
    PlanError,
)
from hwprof.testing import block
from tests.devices import fake_tensorrt
from tests.devices.fake_nvml import FakeNvml
from tests.devices.fake_tensorrt_build import Script
from tests.devices.scripted_tensorrt import (
    PLAN,
    compiled,
    install,
    open_model,
    opened,
)

pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Script:
    return install(monkeypatch, tmp_path)


def files(folder: Path, kind: str) -> list[Path]:
    return sorted((folder / "engines").glob(f"{kind}-*.trt"))


def test_an_engine_is_built_once_and_says_how_long_that_took(script: Script) -> None:
    first, second = compiled(), compiled()
    assert len(script.configs) == 1
    assert first.loaded.warnings == second.loaded.warnings == ()
    np.testing.assert_array_equal(first.outputs()[0], second.outputs()[0])
    # Both hold the one build's time; what differs is loading, which is far shorter here.
    assert second.loaded.load_s == pytest.approx(first.loaded.load_s, rel=0.5)
    assert second.loaded.artifact_bytes == first.loaded.artifact_bytes > 0


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ({"batch": 2}, {}),
        ({"precision": "fp16"}, {}),
        ({"precision": "tf32"}, {}),
        ({}, {"HWPROF_TENSORRT_WORKSPACE_MIB": "64"}),
        ({}, {"HWPROF_TENSORRT_OPTIMIZATION_LEVEL": "5"}),
    ],
)
def test_what_changes_an_engine_changes_its_key(
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    environment: dict[str, str],
) -> None:
    compiled()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    compiled(**options)
    assert len(script.configs) == 2


def test_another_gpu_driver_or_version_builds_its_own(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = FakeNvml()
    newer.driver = "590.10"
    for nvml in (FakeNvml(), newer):
        opened(nvml=nvml).compile(block("skip"), PLAN)
    monkeypatch.setattr(fake_tensorrt, "__version__", "11.4.0.106")
    opened(nvml=newer).compile(block("skip"), PLAN)
    assert len(script.configs) == 3
    assert script.n_timings_reused == 0  # they are tied to the same facts


def torn(data: bytes) -> bytes:
    return data[:-7]


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def foreign(data: bytes) -> bytes:
    return b"\x00" * len(data)


def headless(data: bytes) -> bytes:
    return data.replace(b'"sha256"', b'"sha512"')


@pytest.mark.parametrize("damage", [torn, flipped, foreign, headless])
@pytest.mark.parametrize(("kind", "what"), [("engine", "engine"), ("timings", "timing cache")])
def test_a_damaged_entry_is_made_again_and_said(
    script: Script, tmp_path: Path, damage: Any, kind: str, what: str
) -> None:
    expected = compiled().outputs()[0]
    (path,) = files(tmp_path, kind)
    path.write_bytes(damage(path.read_bytes()))
    if kind == "timings":
        files(tmp_path, "engine")[0].unlink()
    again = compiled()
    (warning,) = again.loaded.warnings
    assert warning.endswith(f"the {what} was made again")
    assert str(path) in warning
    assert len(script.configs) == 2
    np.testing.assert_array_equal(again.outputs()[0], expected)
    assert compiled().loaded.warnings == ()  # mended


def test_a_whole_entry_that_tensorrt_refuses_is_made_again_and_said(
    script: Script, tmp_path: Path
) -> None:
    compiled()
    (path,) = files(tmp_path, "engine")
    old = b'{"version": "9.0", "detailed": 2}\n'
    DiskCache(path.parent).store(path.stem, Entry(content=old, build_s=1.0))
    (warning,) = compiled().loaded.warnings
    assert "not compatible with this version of TensorRT" in warning
    assert len(script.configs) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"no timings", "is corrupted"), (b'["timings", "another", 3]', "of another device")],
)
def test_timings_that_tensorrt_refuses_are_begun_again_and_said(
    script: Script, tmp_path: Path, content: bytes, words: str
) -> None:
    compiled()
    (path,) = files(tmp_path, "timings")
    DiskCache(path.parent).store(path.stem, Entry(content=content, build_s=1.0))
    (warning,) = compiled(block("conv")).loaded.warnings
    assert words in warning
    assert script.n_timings_reused == 0


def test_timings_serve_the_next_build(script: Script) -> None:
    compiled()
    compiled(block("conv"))
    assert script.n_timings_reused == 1


def test_a_folder_that_cannot_be_written_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HWPROF_TENSORRT_CACHE", str(tmp_path / "file"))
    executable = compiled()
    assert len(executable.loaded.warnings) >= 2
    assert all("file" in warning for warning in executable.loaded.warnings)
    assert executable.burst(0.0, 3, "hot").n_samples >= 3


def test_a_failed_write_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        DiskCache(tmp_path).store("engine", Entry(content=b"x", build_s=1.0))
    assert list(tmp_path.iterdir()) == []


def test_what_a_process_left_half_written_goes_in_time(tmp_path: Path) -> None:
    left, writing = tmp_path / "engine-a.7.part", tmp_path / "engine-b.8.part"
    for part in (left, writing):
        part.write_bytes(bytes(10))
    os.utime(left, (100.0, 100.0))
    DiskCache(tmp_path).store("engine", Entry(content=b"x", build_s=1.0))
    assert not left.exists()
    assert writing.exists()  # another process may be at it


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, most_bytes=3_000)
    for age, name in enumerate(["old", "older", "new"]):
        cache.store(name, Entry(content=bytes(700), build_s=1.0))
        os.utime(cache.path(name), (100.0 + age, 100.0 + age))
    assert cache.load("old") is not None  # used again: now the newest
    cache.store("newest", Entry(content=bytes(700), build_s=1.0))
    kept = {name for name in ("old", "older", "new", "newest") if cache.path(name).exists()}
    assert kept == {"old", "new", "newest"}


def test_the_builder_is_told_the_settings(script: Script) -> None:
    compiled()
    compiled(precision="tf32")
    plain, tf32 = script.configs
    pool, flag = fake_tensorrt.MemoryPoolType.WORKSPACE, fake_tensorrt.BuilderFlag.TF32
    assert plain.get_memory_pool_limit(pool) == 4 * 2**30
    assert (plain.builder_optimization_level, plain.avg_timing_iterations) == (3, 8)
    assert plain.profiling_verbosity == fake_tensorrt.ProfilingVerbosity.DETAILED
    assert [config.get_flag(flag) for config in (plain, tf32)] == [False, True]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HWPROF_TENSORRT_WORKSPACE_MIB", "4 GB"),
        ("HWPROF_TENSORRT_WORKSPACE_MIB", "0"),
        ("HWPROF_TENSORRT_OPTIMIZATION_LEVEL", "6"),
    ],
)
def test_settings_that_are_no_numbers(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(PlanError, match=rf"{name} is '{value}'; expected a whole number from"):
        opened()


@pytest.mark.parametrize("place", ["graph", "branch"])
def test_weights_beside_a_model_belong_to_its_key(
    script: Script, tmp_path: Path, place: str
) -> None:
    path = open_model(tmp_path / "m.onnx")
    model = helper.make_tensor("w", TensorProto.FLOAT, [1], [0.0])
    model.ClearField("float_data")
    model.data_location = TensorProto.EXTERNAL
    model.external_data.add(key="location", value="w.bin")
    whole = onnx.load(str(path))
    graph = whole.graph
    if place == "branch":
        kind = onnx.AttributeProto.GRAPH
        graph = graph.node.add(op_type="If").attribute.add(name="then_branch", type=kind).g
    graph.initializer.append(model)
    path.write_bytes(whole.SerializeToString())
    digests = set()
    for content in (b"0000", b"1111"):
        (tmp_path / "w.bin").write_bytes(content)
        digests.add(model_digest(str(path)))
    assert len(digests) == 2


def test_of_many_errors_the_first_and_the_last_are_told() -> None:
    logger = collecting_logger(fake_tensorrt)
    error, warning = fake_tensorrt.ILogger.Severity.ERROR, fake_tensorrt.ILogger.Severity.WARNING
    for number in range(9):
        logger.log(error, f"tactic {number}\n failed")
        logger.log(error, "tactic 0 failed")
        logger.log(warning, "slow")
    text = "tactic 0 failed; tactic 1 failed; ... 4 more ...; tactic 6 failed; "
    assert logger.take_errors() == f"{text}tactic 7 failed; tactic 8 failed"
    assert logger.take_errors() == "it gives no reason"
