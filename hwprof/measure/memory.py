"""What a workload needs of this host's memory, told apart from what its process holds besides."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

from hwprof.measure.machine import bytes_in

PROC_SELF = Path("/proc/self")
_RESET_PEAK = "5"
"""What /proc/self/clear_refs takes to forget the highest resident size so far."""


class MemoryMeter:
    """Resident memory at its highest while one workload is loaded and run.

    A worker holds the other workloads of its group as well. What counts is the process as it
    was when its device was open, and what the workload came to add to it.

    Args:
        proc: the process's folder in the process file system.
    """

    def __init__(self, proc: Path = PROC_SELF) -> None:
        self._proc, self._status = proc, proc / "status"
        self._empty = bytes_in(self._status, "VmRSS")
        self._before: int | None = None

    def begin(self) -> None:
        """Begin with a workload: give freed memory back, and forget the highest size so far."""
        _give_back_freed_memory()
        self._before = None
        # Of a system that cannot forget nothing can be told, and None says so.
        with suppress(OSError):
            (self._proc / "clear_refs").write_text(_RESET_PEAK)
            self._before = bytes_in(self._status, "VmRSS")

    def peak_bytes(self) -> int | None:
        """Return what the workload needs at its highest; None where the system does not tell."""
        peak = bytes_in(self._status, "VmHWM")
        if self._empty is None or self._before is None or peak is None:
            return None
        return self._empty + max(0, peak - self._before)


def _give_back_freed_memory() -> None:
    """Return freed memory to the system, lest the next workload take it over unseen."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
