"""Peak memory: of one workload, not of the process with all that it holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hwprof.measure.memory import MemoryMeter

MIB = 2**20


MEASURED = """
import numpy as np
from hwprof.measure.memory import MemoryMeter

MIB = 2**20
meter = MemoryMeter()
others = np.ones(40 * MIB // 8)  # another workload of the group
meter.begin()
small = meter.peak_bytes()
freed = np.ones(30 * MIB // 8)
del freed  # at its highest, although it is gone by now
peak = meter.peak_bytes()
meter.begin()
print(peak - small, meter.peak_bytes() - small)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and forgets a peak")
def test_what_is_held_besides_does_not_count() -> None:
    # In a process of its own, as workers are: one that ran other tests may free memory meanwhile.
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True
    )
    came, stayed = map(int, done.stdout.split())
    assert came == pytest.approx(30 * MIB, abs=2 * MIB)
    assert stayed == pytest.approx(0, abs=2 * MIB)


def test_figures_of_a_sample_process(tmp_path: Path) -> None:
    def status(resident_kib: int, peak_kib: int) -> None:
        (tmp_path / "status").write_text(f"VmHWM:\t {peak_kib} kB\nVmRSS:\t {resident_kib} kB\n")

    status(1000, 1500)
    meter = MemoryMeter(tmp_path)
    status(5000, 9000)  # others came in between
    meter.begin()
    assert (tmp_path / "clear_refs").read_text() == "5"
    status(5200, 5700)
    assert meter.peak_bytes() == (1000 + 700) * 1024


def test_a_system_that_cannot_tell_says_none(tmp_path: Path) -> None:
    meter = MemoryMeter(tmp_path / "nowhere")
    meter.begin()
    assert meter.peak_bytes() is None
