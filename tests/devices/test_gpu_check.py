"""The script for GPU machines, as far as it goes without one."""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwprof.campaign import plan_campaign
from hwprof.devices import open_device
from hwprof.devices.nvidia.cuda_presence import torch_lacks
from hwprof.graph import piece_graph
from hwprof.measure.records import DeviceRef
from hwprof.protocols import DeviceAdapter
from hwprof.results import Sample
from hwprof.space import get_space
from hwprof.space.pieces import ConvPiece
from hwprof.testing import block
from tests.hardware import gpu_check, gpu_effects, gpu_floor, gpu_sections
from tests.hardware.gpu_check import RESULTS, SECTIONS
from tests.hardware.gpu_effects import depths_r2, effects
from tests.hardware.gpu_floor import moved_bytes
from tests.hardware.gpu_sections import Row

ROOT = Path(__file__).resolve().parents[2]


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.hardware.gpu_check", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_names_every_section() -> None:
    found = script("--help")
    assert found.returncode == 0
    assert all(name in found.stdout for name in SECTIONS)


@pytest.mark.skipif(not torch_lacks(), reason="a GPU is here")
def test_without_a_gpu_it_ends_plainly(tmp_path: Path) -> None:
    found = script("--out", str(tmp_path / "out"))
    assert found.returncode == 3
    assert "nothing to check: " in found.stderr
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_section_is_named() -> None:
    found = script("--sections", "floor,ceiling")
    assert found.returncode == 2
    assert "ceiling" in found.stderr


def test_bytes_of_a_convolution() -> None:
    """3x8x8 in, 4 channels out at stride 2 (3x3, bias folded): every tensor once, in fp32."""
    piece = ConvPiece(
        in_channels=3, size_px=8, out_channels=4, kernel=3, stride=2, act="relu", bn_eps=1e-5
    )
    graph = piece_graph(piece)
    image, output = 3 * 8 * 8, 4 * 4 * 4
    # The convolution reads the image and writes; the activation reads that and writes.
    assert moved_bytes(graph, 2) == 4 * (2 * (image + 3 * output) + graph.params)


def test_variance_that_depths_explain() -> None:
    space = get_space("mobile-mini")
    archs = plan_campaign(space, 0, 60, isolated=False).networks
    layers = [sum(map(len, w.arch.units)) for w in archs if w.arch is not None]
    by_depth = [
        Sample(arch=w.arch, latency_s=1e-3 * n)
        for w, n in zip(archs, layers, strict=True)
        if w.arch is not None
    ]
    assert depths_r2(by_depth) == pytest.approx(1.0)


def test_effects_from_campaigns_that_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_effects, "DEVICE", "null")
    monkeypatch.setattr(gpu_effects, "SPACES", ("mobile-mini",))
    few = list(effects(tmp_path, 20, (1,), time.monotonic() + 60))
    assert "20 networks cannot price the 52 coefficients" in few[-1].what
    rows = list(effects(tmp_path, 120, (8,), time.monotonic() + 60))
    measured = [row for row in rows if "networks measured" in row.what]
    assert [row.value for row in measured] == ["120 of 120"]
    assert all(row.holds for row in measured)
    for words in ("depths alone explain", "effect in its slot", "a layer more"):
        assert sum(words in row.what for row in rows) == 1
    late = list(effects(tmp_path, 120, (1,), time.monotonic() - 1))
    assert [row.holds for row in late] == [False]


def asked(out: Path, sections: str) -> argparse.Namespace:
    return argparse.Namespace(out=out, max_time="9m", networks=1, batches="1", sections=sections)


def test_rows_survive_what_ends_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is lent for ten minutes does not wait for the last row."""

    def rows(section: str, *told: str) -> Iterator[Row]:
        for what in told:
            if what == "killed":
                raise KeyboardInterrupt
            yield Row(section=section, what=what, value="1", holds=True)

    def kept() -> list[str]:
        return [row["what"] for row in json.loads((tmp_path / RESULTS).read_text())]

    monkeypatch.setattr(gpu_sections, "outputs", lambda: rows("outputs", "a", "b"))
    gpu_check.run(asked(tmp_path, "outputs"))
    assert kept() == ["a", "b"]
    monkeypatch.setattr(gpu_floor, "floors", lambda: rows("floor", "c", "killed"))
    with pytest.raises(KeyboardInterrupt):
        gpu_check.run(asked(tmp_path, "floor"))
    assert kept() == ["a", "b", "c"]
    monkeypatch.setattr(gpu_sections, "outputs", lambda: rows("outputs", "again"))
    gpu_check.run(asked(tmp_path, "outputs"))
    assert kept() == ["c", "again"]
    # Of several sections those that never began keep what they had.
    monkeypatch.setattr(gpu_sections, "outputs", lambda: rows("outputs", "third", "killed"))
    with pytest.raises(KeyboardInterrupt):
        gpu_check.run(asked(tmp_path, "outputs,floor"))
    assert kept() == ["c", "third"]
    with monkeypatch.context() as slow:
        slow.setattr(time, "monotonic", itertools.count(step=1000).__next__)
        for _ in range(2):
            gpu_check.run(asked(tmp_path, "floor"))
    assert kept() == ["c", "third", "no time was left"]


FRAIL = """
import os, signal, sys, time
section = sys.argv[sys.argv.index("--sections") + 1]
open(os.path.join(sys.argv[sys.argv.index("--out") + 1], section), "w").close()
if section == "outputs":
    os.kill(os.getpid(), signal.SIGSEGV)
if section == "agreement":
    time.sleep(600)
if section == "search":
    raise OSError("no space left on device")
"""


def test_a_section_that_crashes_or_hangs_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the library's half-dead state, which the sections behind it would fail of."""
    (tmp_path / "frail_check.py").write_text(FRAIL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(gpu_check, "MODULE", "frail_check")
    monkeypatch.setattr(gpu_check, "LONGEST_S", 2.0)
    for sections in ("outputs", "outputs,agreement,floor,search"):
        gpu_check.run_apart(asked(tmp_path, sections))
    assert all((tmp_path / name).exists() for name in ("outputs", "agreement", "floor", "search"))
    rows = json.loads((tmp_path / RESULTS).read_text())
    assert [(row["section"], row["what"], row["holds"]) for row in rows] == [
        ("outputs", "its process ended with exit code -11", False),
        ("agreement", "ended after 2 s: it hangs, or takes too long", False),
        # A traceback's exit code is that of a check that fails.
        ("search", "its process ended with exit code 1", False),
    ]


def test_outputs_go_on_behind_a_device_that_fails_in_a_way_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch")

    def fail(ref: DeviceRef) -> DeviceAdapter:
        if ref.options.precision == "tf32":
            raise RuntimeError("CUDA error: unspecified launch failure\nand more")
        return open_device(ref)

    monkeypatch.setattr(gpu_sections, "open_device", fail)
    monkeypatch.setattr(gpu_sections, "usable", lambda: ["cpu-torch"])
    monkeypatch.setattr(gpu_sections, "network", lambda: block("mbconv"))
    fp32, tf32, *others = gpu_sections.outputs()
    assert fp32.holds
    assert tf32.holds is False
    assert tf32.value == "RuntimeError: CUDA error: unspecified launch failure"
    assert len(others) == 2


def test_search_steps_compute_as_a_search_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever another section has set: the number must not depend on which ran before."""
    torch = pytest.importorskip("torch")
    for name, value in (
        ("PLACE", "cpu"),
        ("SEARCH_SPACE", "mobile-mini"),
        ("SEARCH_BATCH", 2),
        ("STEPS", 1),
    ):
        monkeypatch.setattr(gpu_floor, name, value)
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2**30)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    found = [
        (row.what.rpartition(": ")[2], row.bar, torch.backends.cudnn.allow_tf32)
        for row in gpu_floor.search_steps()
    ]
    assert found == [
        ("weight step", "1.00 GiB", True),
        ("architecture step, recomputed", "1.00 GiB", True),
    ]
