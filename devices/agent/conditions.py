"""The state of the device around each burst: load, throttling, temperature, cooling down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hwprof.devices.agent.sensors import Sensors
from hwprof.files import write_whole
from hwprof.measure.load import WINDOW_S, Load, LoadMonitor
from hwprof.protocols import Disturbance

COOL_WITHIN_C = 2.0
"""A burst begins within so many degrees of the temperature that the campaign began with
(methods: measurement protocol, mobile)."""
COOL_LIMIT_S = 60.0
COOL_STEP_S = 1.0
LONGEST_PAUSE_S = 10.0
"""A longer pause ends a sustained load: the device cools within seconds."""
LOAD_STEP_S = 1.0


class CampaignLoad:
    """The load of others on this device over wall time, as the host tells its own.

    What a process of the campaign did since it was last looked at is not told once it has ended,
    and would be taken for work of others: watching begins anew then. Less than a second says
    nothing, for the system counts in ticks of 10 ms.

    Args:
        pids: returns the campaign's other living processes on this device.
        proc: where the process file system is mounted.
    """

    def __init__(self, pids: Callable[[], frozenset[int]], proc: Path = Path("/proc")) -> None:
        self._pids, self._proc = pids, proc
        self._living = pids()
        self._began_s = time.monotonic()
        self._monitor = self._watch()

    def mark(self) -> Load | None:
        """Return the load over the last second or more; None where that is not known."""
        living = self._pids()
        if not self._living <= living:
            self._living, self._began_s = living, time.monotonic()
            self._monitor = self._watch()
            return None
        self._living = living
        load = self._monitor.mark()
        return load if time.monotonic() - self._began_s >= WINDOW_S else None

    def _watch(self) -> LoadMonitor:
        return LoadMonitor(lambda: self._living, self._proc)


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
        found, now_s = self._read(), self._clock()
        # What ends in the future was noted before the system was started again.
        if found is None or not found[1] <= now_s <= found[1] + LONGEST_PAUSE_S:
            return 0.0
        return found[1] - found[0]

    def add(self, began_s: float) -> None:
        """Take in a burst that ended now."""
        found = self._read()
        if found is None or began_s - found[1] > LONGEST_PAUSE_S or found[1] > began_s:
            found = (began_s, began_s)
        write_whole(self._path, json.dumps([found[0], self._clock()]).encode())

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
        load: of others on the device.
    """

    def __init__(
        self, sensors: Sensors, cpus: frozenset[int], cooling: Cooling, load: CampaignLoad
    ) -> None:
        self._sensors, self._cpus, self._cooling, self._load = sensors, cpus, cooling, load
        self._cooled_s = 0.0
        self._throttled = False
        self._throttle_count: int | None = None
        self.last = Disturbance()

    def before(self, *, hot: bool = False) -> None:
        """Note the state in which the burst begins; unless ``hot``, cool down first."""
        self._cooled_s = 0.0 if hot else self._cooling.wait(self._sensors.temperature_c)
        self._throttled = self._sensors.is_throttled()
        self._throttle_count = self._sensors.throttle_count()

    def after(self) -> None:
        """Note what disturbed the burst in :attr:`last`."""
        load = self._load.mark()
        self.last = Disturbance(
            steal_share=load.steal_share if load else 0.0,
            foreign_cores=load.foreign_cores if load else 0.0,
            throttled=self._throttled
            or self._sensors.is_throttled()
            or self._sensors.throttle_count() != self._throttle_count,
            readings={**self._sensors.readings(self._cpus), "cooled_s": self._cooled_s},
        )
