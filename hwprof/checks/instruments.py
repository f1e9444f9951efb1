"""The clock and the timing loop under test, and work whose length is known."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from hwprof.measure.records import Burst
from hwprof.measure.timing import timed_burst

_UNIT = bytes(64 * 1024)


class Instruments(Protocol):
    """What checks 1 to 3 are about. Another clock, a scripted one say, brings all four."""

    def now_ns(self) -> int:
        """Read the clock."""
        ...

    def spin(self, duration_s: float) -> None:
        """Keep busy until the clock has moved on by ``duration_s``."""
        ...

    def work(self, units: int) -> None:
        """Do ``units`` times the same work."""
        ...

    def burst(
        self,
        call: Callable[[], object],
        duration_s: float,
        min_calls: int,
        *,
        per_sample: int,
    ) -> Burst:
        """Time calls back to back, ``per_sample`` of them a sample."""
        ...


@runtime_checkable
class KeepsTime(Protocol):
    """An adapter whose device has a clock of its own."""

    @property
    def instruments(self) -> Instruments:
        """The device's clock and loop."""
        ...


class HostInstruments:
    """This host's clock, and the loop that times every call on its CPU."""

    def now_ns(self) -> int:
        """Read the clock."""
        return time.perf_counter_ns()

    def spin(self, duration_s: float) -> None:
        """Keep the core busy for ``duration_s``."""
        spin(duration_s)

    def work(self, units: int) -> None:
        """Hash 64 KiB ``units`` times: it fits any core's own cache and never branches."""
        digest = hashlib.sha256()
        for _ in range(units):
            digest.update(_UNIT)
        digest.digest()

    def burst(
        self, call: Callable[[], object], duration_s: float, min_calls: int, *, per_sample: int
    ) -> Burst:
        """Time calls with the loop that measuring uses."""
        return timed_burst(call, duration_s, min_calls, per_sample=per_sample)


def spin(duration_s: float) -> None:
    """Keep the core busy for ``duration_s`` of wall time."""
    clock = time.perf_counter_ns
    until_ns = clock() + int(duration_s * 1e9)
    while clock() < until_ns:
        pass
