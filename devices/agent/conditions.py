"""The state of the device around each burst: load, throttling, temperature, cooling down."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hwprof.devices.agent.sensors import Sensors
from hwprof.measure.load import WINDOW_S, Load, LoadMonitor, Snapshot, load_between
from hwprof.protocols import Disturbance

COOL_WITHIN_C = 2.0
"""A burst begins within so many degrees of the temperature that the campaign began with
(methods: measurement protocol, mobile)."""
COOL_LIMIT_S = 60.0
COOL_STEP_S = 1.0
LONGEST_PAUSE_S = 10.0
"""A longer pause ends a sustained load: the device cools within seconds."""
LOAD_STEP_S = 1.0

_ZERO = Snapshot(at_s=0.0, busy_s=0.0, steal_s=0.0, own_s=0.0)


class RunningLoad:
    """The load while this worker ran: between its bursts others of the campaign run.

    Bursts are joined until they make up a second, for the system counts in ticks of 10 ms.

    Args:
        snapshot: returns the CPU time spent so far; None where the system does not tell.
        n_cpus: CPUs that are counted.
    """

    def __init__(self, snapshot: Callable[[], Snapshot | None], n_cpus: int) -> None:
        self._snapshot, self._n_cpus = snapshot, n_cpus
        self._parts: deque[Snapshot] = deque()
        self._before: Snapshot | None = None

    @classmethod
    def here(cls) -> RunningLoad:
        """Watch the CPUs that this process may use."""
        monitor = LoadMonitor()
        return cls(monitor.snapshot, monitor.n_cpus)

    def begin(self) -> None:
        """A burst begins."""
        self._before = self._snapshot()

    def end(self) -> Load | None:
        """A burst ended: return the load over the last second of running (or all there is)."""
        after, before = self._snapshot(), self._before
        if after is None or before is None:
            return None
        self._parts.append(
            Snapshot(
                at_s=after.at_s - before.at_s,
                busy_s=after.busy_s - before.busy_s,
                steal_s=after.steal_s - before.steal_s,
                own_s=after.own_s - before.own_s,
            )
        )
        while len(self._parts) > 1 and self._total().at_s - self._parts[0].at_s >= WINDOW_S:
            self._parts.popleft()
        total = self._total()
        if total.at_s < WINDOW_S:  # too few ticks to say anything
            return None
        return load_between(_ZERO, total, self._n_cpus)

    def _total(self) -> Snapshot:
        return Snapshot(
            at_s=sum(p.at_s for p in self._parts),
            busy_s=sum(p.busy_s for p in self._parts),
            steal_s=sum(p.steal_s for p in self._parts),
            own_s=sum(p.own_s for p in self._parts),
        )


@dataclass(frozen=True, kw_only=True)
class Cooling:
    """What a burst begins with: no hotter than ``start_c`` and two degrees.

    ``start_c`` None, or a device without a temperature: never wait.
    """

    start_c: float | None
    limit_s: float = COOL_LIMIT_S

    def wait(
        self,
        temperature_c: Callable[[], float | None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> float:
        """Idle until the device is cool enough, or the limit is reached; return the seconds."""
        waited_s = 0.0
        while self.start_c is not None and waited_s < self.limit_s:
            now_c = temperature_c()
            if now_c is None or now_c <= self.start_c + COOL_WITHIN_C:
                break
            sleep(COOL_STEP_S)
            waited_s += COOL_STEP_S
        return waited_s


class SustainedLoad:
    """How long the device has been under load, over all workers of a campaign.

    Args:
        path: a file that the workers share.
        clock: seconds since the system's start, the same for every process.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock

    def lasted_s(self) -> float:
        """Return for how long bursts followed each other without a pause that cools."""
        found = self._read()
        if found is None or self._clock() - found[1] > LONGEST_PAUSE_S:
            return 0.0
        return found[1] - found[0]

    def add(self, began_s: float) -> None:
        """Take in a burst that ended now."""
        found = self._read()
        if found is None or began_s - found[1] > LONGEST_PAUSE_S or found[1] > began_s:
            found = (began_s, began_s)
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        part.write_text(json.dumps([found[0], self._clock()]))
        part.replace(self._path)

    def run(self, work: Callable[[float], object]) -> None:
        """Call ``work`` with a duration, and take it in."""
        began_s = self._clock()
        work(LOAD_STEP_S)
        self.add(began_s)

    def _read(self) -> tuple[float, float] | None:
        try:
            first_s, last_s = json.loads(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return float(first_s), float(last_s)


class Conditions:
    """Watches one burst after another.

    Args:
        sensors: of the device.
        cpus: the CPUs whose clock counts.
        cooling: when a burst may begin.
        load: of the device.
    """

    def __init__(
        self, sensors: Sensors, cpus: frozenset[int], cooling: Cooling, load: RunningLoad
    ) -> None:
        self._sensors, self._cpus, self._cooling, self._load = sensors, cpus, cooling, load
        self._cooled_s = 0.0
        self._throttled = False
        self.last = Disturbance()

    def before(self, *, hot: bool = False) -> None:
        """Note the state in which the burst begins; unless ``hot``, cool down first."""
        self._cooled_s = 0.0 if hot else self._cooling.wait(self._sensors.temperature_c)
        self._throttled = self._sensors.is_throttled()
        self._load.begin()

    def after(self) -> None:
        """Note what disturbed the burst in :attr:`last`."""
        load = self._load.end()
        self.last = Disturbance(
            steal_share=load.steal_share if load else 0.0,
            foreign_cores=load.foreign_cores if load else 0.0,
            throttled=self._throttled or self._sensors.is_throttled(),
            readings={**self._sensors.readings(self._cpus), "cooled_s": self._cooled_s},
        )
