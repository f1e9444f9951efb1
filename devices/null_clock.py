"""The scripted device's clock: it moves only when it is read or when scripted work is done.

The field ``clock`` of the null device's script; every part may be left out:

    {"step_ns": 50, "backward_every": 0, "spin_error": 0.0,
     "work_s": 4e-5, "work_curvature": 0.0}

A reading takes ``step_ns`` (0: the clock stands still); one reading in ``backward_every`` lies
ten steps in the past; waits last 1 + ``spin_error`` times as long as asked; n units of work take
n · ``work_s`` · (1 + ``work_curvature`` · n).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hwprof.measure.records import Burst


class ScriptedClock:
    """A clock with the work that it times, in no time at all."""

    def __init__(self, told: Mapping[str, float]) -> None:
        self._step_ns = int(told.get("step_ns", 50))
        self._backward_every = int(told.get("backward_every", 0))
        self._spin_error = float(told.get("spin_error", 0.0))
        self._work_s = float(told.get("work_s", 4e-5))
        self._curvature = float(told.get("work_curvature", 0.0))
        self._now_ns = self._n_readings = 0

    def now_ns(self) -> int:
        """Read the clock."""
        self._now_ns += self._step_ns
        self._n_readings += 1
        if self._backward_every and self._n_readings % self._backward_every == 0:
            return self._now_ns - 10 * self._step_ns
        return self._now_ns

    def spin(self, duration_s: float) -> None:
        """Let ``duration_s`` pass, more or less."""
        self._pass(duration_s * (1.0 + self._spin_error))

    def work(self, units: int) -> None:
        """Let the time of ``units`` of work pass."""
        self._pass(units * self._work_s * (1.0 + self._curvature * units))

    def burst(
        self, call: Callable[[], object], duration_s: float, min_calls: int, *, per_sample: int
    ) -> Burst:
        """Time calls by this clock."""
        starts: list[int] = []
        ends: list[int] = []
        until_ns = self._now_ns + int(duration_s * 1e9)
        while self._now_ns < until_ns or len(starts) < min_calls:
            starts.append(self.now_ns())
            for _ in range(per_sample):
                call()
            ends.append(self.now_ns())
        start_ns = np.array(starts, dtype=np.int64)
        return Burst(
            start_ns=start_ns,
            duration_ns=np.array(ends, dtype=np.int64) - start_ns,
            wait_ns=None,
            calls_per_sample=per_sample,
        )

    def _pass(self, duration_s: float) -> None:
        self._now_ns += round(duration_s * 1e9)
