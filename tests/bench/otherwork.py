"""Other work on the machine: put there on purpose, and watched by a monitor that owes hwprof nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

QUIET_CORES = 0.05
QUIET_STEAL = 0.005
SETTLE_S = 0.5
"""Other work has started, and filled its memory, after this long."""

_UNTIL_ORPHANED = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n"
COMPETITORS: Mapping[str, str] = {
    "busy": _UNTIL_ORPHANED + "    for _ in range(100_000): pass",
    "stream": "n = 128 << 20\na, b = bytearray(b'x' * n), bytearray(n)\n"
    + _UNTIL_ORPHANED
    + "    b[:] = a",
}
"""Processes by kind: a loop of no work, and copying 128 MiB back and forth. Unpinned."""


@contextmanager
def competitor(kind: str) -> Iterator[tuple[int, ...]]:
    """Run other work meanwhile (``quiet``: none), and yield its process ids."""
    if kind == "quiet":
        yield ()
        return
    process = subprocess.Popen([sys.executable, "-S", "-c", COMPETITORS[kind]])
    try:
        time.sleep(SETTLE_S)
        yield (process.pid,)
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True, kw_only=True)
class Load:
    """What others did with the machine's CPUs over some seconds."""

    seconds: float
    foreign_cores: float
    steal_share: float
    """Of all CPU time."""


def is_quiet(cell: Mapping[str, Any]) -> bool:
    """Return whether hardly any other work ran while the cell was measured."""
    return bool(cell["foreign_cores"] < QUIET_CORES and cell["steal_share"] < QUIET_STEAL)


class Watch:
    """Tells the load since it was made: the machine's busy time less this process tree's.

    Args:
        beside: process ids in the tree that count as others, with all that they start.
    """

    def __init__(self, beside: Collection[int] = ()) -> None:
        self._beside = frozenset(beside)
        self._before = self._now()

    def load(self) -> Load:
        """Return the load so far."""
        seconds, busy, steal, own = np.subtract(self._now(), self._before).tolist()
        return Load(
            seconds=seconds,
            foreign_cores=max(0.0, (busy - own) / seconds),
            steal_share=max(0.0, steal / (seconds * (os.cpu_count() or 1))),
        )

    def _now(self) -> tuple[float, float, float, float]:
        busy_s, steal_s = cpu_seconds(Path("/proc/stat").read_text())
        return time.monotonic(), busy_s, steal_s, self._own_s()

    def _own_s(self) -> float:
        """Return the CPU time of this process, what it reaped, and its living descendants."""
        processes: dict[int, tuple[int, float]] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                processes[int(folder.name)] = process_seconds((folder / "stat").read_text())
            except OSError:  # ended meanwhile: its parent has its time, or will have
                continue
        return tree_seconds(processes, os.getpid(), self._beside)


def tree_seconds(
    processes: Mapping[int, tuple[int, float]], root: int, beside: Collection[int] = ()
) -> float:
    """Return the CPU seconds of a process and all its descendants, but not of those ``beside``.

    ``processes`` has each process's parent and seconds.
    """
    children = (p for p, (parent, _) in processes.items() if parent == root and p not in beside)
    return processes[root][1] + sum(tree_seconds(processes, p, beside) for p in children)


def cpu_seconds(stat: str) -> tuple[float, float]:
    """Return busy and stolen seconds of all CPUs from the text of ``/proc/stat``."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.split()[1:9])
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) * tick_s, steal * tick_s


def process_seconds(stat: str) -> tuple[int, float]:
    """Return a process's parent and its CPU seconds with its reaped children's.

    ``stat`` is the text of ``/proc/PID/stat``; the name in brackets may hold anything.
    """
    fields = stat.rpartition(")")[2].split()
    return int(fields[1]), sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
