"""How busy others keep the host, and what must not be measured in spite of it."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hwprof.errors import DeviceUnavailableError, PlanError
from hwprof.measure.machine import cpu_quota, read_text, stat_fields, usable_cpus

FOREIGN_CORES_LIMIT = 0.2
STEAL_LIMIT = 0.02
STEAL_WARNING = 0.005
WINDOW_S = 1.0
"""The system counts in ticks of 10 ms: shares over less than a second would be noise."""
REFRESH_S = 0.2
"""A burst is shorter than that: to look at every worker's counters behind each would keep the
host busier than the window can tell."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """CPU time spent so far, in seconds, on the CPUs this process may use."""

    at_s: float
    busy_s: float
    steal_s: float
    own_s: float


@dataclass(frozen=True, kw_only=True)
class Load:
    """What others did with the CPUs between two snapshots."""

    steal_share: float
    foreign_cores: float
    n_cpus: int


def load_between(before: Snapshot, after: Snapshot, n_cpus: int) -> Load:
    """Return the steal share (of all CPU time) and the cores that others kept busy."""
    elapsed_s = max(after.at_s - before.at_s, 1e-9)
    foreign_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return Load(
        steal_share=max(0.0, after.steal_s - before.steal_s) / (elapsed_s * n_cpus),
        foreign_cores=min(max(0.0, foreign_s / elapsed_s), float(n_cpus)),
        n_cpus=n_cpus,
    )


class LoadMonitor:
    """Reads /proc/stat now and then and tells the load over the last second or more.

    Args:
        pids: returns the living worker processes; their CPU time is our own.
        proc: where the process file system is mounted.
    """

    def __init__(
        self, pids: Callable[[], Iterable[int]] = tuple, proc: Path = Path("/proc")
    ) -> None:
        self._pids = pids
        self._proc = proc
        self._cpus = usable_cpus()
        self._tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
        self._history: deque[Snapshot] = deque()
        self._load: Load | None = None
        self.mark()

    @property
    def n_cpus(self) -> int:
        """CPUs this process may use."""
        return len(self._cpus)

    def mark(self) -> Load | None:
        """Return the load over the last second or more (or since the first snapshot).

        It is at most 0.2 s old. None where the system has no /proc/stat.
        """
        history = self._history
        if len(history) > 1 and time.monotonic() - history[-1].at_s < REFRESH_S:
            return self._load
        now = self.snapshot()
        if now is None:
            return None
        while len(history) > 1 and now.at_s - history[1].at_s >= WINDOW_S:
            history.popleft()
        history.append(now)
        self._load = load_between(history[0], now, len(self._cpus))
        return self._load

    def snapshot(self) -> Snapshot | None:
        """Return the CPU time spent so far; None where the system has no /proc/stat."""
        stat = read_text(self._proc / "stat")
        if stat is None:
            return None
        busy = steal = 0
        for line in stat.splitlines():
            if not line.startswith("cpu"):
                break  # what follows is long, and this is read often
            name, *fields = line.split()
            if name[3:].isdigit() and int(name[3:]) in self._cpus:
                user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, fields[:8])
                busy += user + nice + system + irq + softirq
                steal += stolen
        return Snapshot(
            at_s=time.monotonic(),
            busy_s=busy * self._tick_s,
            steal_s=steal * self._tick_s,
            own_s=sum(os.times()[:4]) + sum(map(self._process_s, self._pids())),
        )

    def _process_s(self, pid: int) -> float:
        """Return the CPU time of a living process; once reaped it is in ``os.times()``."""
        # User and system time: fields 14 and 15 of the whole line.
        fields = stat_fields(pid, self._proc)
        return (int(fields[11]) + int(fields[12])) * self._tick_s if fields else 0.0


def check_threads(threads: int) -> None:
    """Refuse more threads than the machine grants this process.

    Raises:
        PlanError: fewer usable CPUs, or a smaller quota, than threads.
    """
    if threads < 1:
        raise PlanError(f"threads is {threads}; expected 1 or more")
    n_cpus = len(usable_cpus())
    if threads > n_cpus:
        raise PlanError(
            f"threads is {threads}, but this process may use {n_cpus} CPUs: "
            f"use --threads {n_cpus} or fewer"
        )
    quota = cpu_quota()
    if quota is not None and quota < threads:
        raise PlanError(
            f"threads is {threads}, but the control group grants {quota:.2g} cores: a throttled "
            f"thread cannot be timed; raise the quota to {threads} or more (docker --cpus, "
            f"Kubernetes limits.cpu){' or use fewer threads' if quota >= 1 else ''}"
        )


def check_quiet(threads: int, load: Load | None) -> None:
    """Refuse to time several threads beside other work: they wait for each other.

    Raises:
        DeviceUnavailableError: others keep more than 0.2 of a core busy.
    """
    if threads > 1 and load is not None and load.foreign_cores > FOREIGN_CORES_LIMIT:
        raise DeviceUnavailableError(
            f"{threads} threads need the CPUs to themselves, but other processes keep "
            f"{load.foreign_cores:.1f} of {load.n_cpus} cores busy: stop them, measure later, or "
            "use --threads 1"
        )
