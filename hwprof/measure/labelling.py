"""What disturbed a burst, as labels; nothing is deleted for its value."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import replace

from hwprof.measure.level import WAITING_SHARE, waiting_share
from hwprof.measure.load import FOREIGN_CORES_LIMIT, STEAL_LIMIT, Load, LoadMonitor
from hwprof.measure.machine import quota_stops, thermal_throttle_count
from hwprof.measure.records import Burst, LabelledBurst
from hwprof.protocols import Disturbance

FAULTS_PER_CALL = 0.1
SLOW_CLOCK = 0.95
"""A clock slower than this share of the full one labels its burst."""
FULL_CLOCK = 0.1
"""Share of probes that ran at full clock, at least. Probes of one clock differ by some percent,
so that the very best of thousands is an accident that would make all others slow."""
WORTH_REPEATING = frozenset({"slow_clock", "throttled"})
"""Not ``stolen``, which is told over a second: a repeat would see the same."""


class Labeller:
    """Labels bursts, knowing the clock probes of the campaign so far."""

    def __init__(self, earlier: Iterable[LabelledBurst] = ()) -> None:
        probes = (b.burst.probe_ns for b in earlier)
        self._probes_ns = sorted(p for p in probes if p is not None)
        self._throttle_count, self._stops = thermal_throttle_count(), quota_stops()

    def host_disturbance(self, load: Load | None) -> Disturbance:
        """Return what disturbed a burst that was timed on this host's CPU."""
        count = thermal_throttle_count() if self._throttle_count is not None else None
        stops = quota_stops() if self._stops is not None else None
        throttled, over_quota = count != self._throttle_count, stops != self._stops
        self._throttle_count, self._stops = count, stops
        return Disturbance(
            steal_share=load.steal_share if load else 0.0,
            foreign_cores=load.foreign_cores if load else 0.0,
            throttled=throttled,
            over_quota=over_quota,
        )

    def label(
        self,
        burst: Burst,
        disturbance: Disturbance | None,
        monitor: LoadMonitor,
        worker: str,
        round_index: int,
    ) -> LabelledBurst:
        """Return a burst with its place and its causes; without a disturbance the host is asked."""
        if disturbance is None:
            disturbance = self.host_disturbance(monitor.mark())
        return LabelledBurst(
            burst=burst,
            worker=worker,
            round_index=round_index,
            causes=self.causes(burst, disturbance),
            steal_share=disturbance.steal_share,
            foreign_cores=disturbance.foreign_cores,
        )

    def causes(self, burst: Burst, disturbance: Disturbance) -> tuple[str, ...]:
        """Return the labels of a burst, most of them relative to fixed limits."""
        if burst.probe_ns is not None:
            bisect.insort(self._probes_ns, burst.probe_ns)
        n_calls = burst.n_samples * burst.calls_per_sample
        found = {
            "preempted": waiting_share(burst) > WAITING_SHARE,
            "faulted": burst.page_faults > FAULTS_PER_CALL * n_calls,
            "slow_clock": self._is_slow(burst),
            "stolen": disturbance.steal_share > STEAL_LIMIT,
            "foreign_load": disturbance.foreign_cores > FOREIGN_CORES_LIMIT,
            "foreign_process": bool(disturbance.foreign_processes),
            "throttled": disturbance.throttled,
            "over_quota": disturbance.over_quota,
        }
        return tuple(name for name, applies in found.items() if applies)

    def relabel(self, labelled: LabelledBurst) -> LabelledBurst:
        """Return the burst with ``slow_clock`` judged against the probes known by now."""
        is_slow = self._is_slow(labelled.burst)
        if is_slow == ("slow_clock" in labelled.causes):
            return labelled
        others = tuple(c for c in labelled.causes if c != "slow_clock")
        return replace(labelled, causes=(*others, "slow_clock") if is_slow else others)

    def _is_slow(self, burst: Burst) -> bool:
        probes, probe = self._probes_ns, burst.probe_ns
        if probe is None or not probes:
            return False
        return probes[int(FULL_CLOCK * (len(probes) - 1))] < SLOW_CLOCK * probe
