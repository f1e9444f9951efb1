"""What disturbed a burst, as labels; nothing is deleted for its value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hwprof.measure.level import WAITING_SHARE, waiting_share
from hwprof.measure.load import FOREIGN_CORES_LIMIT, STEAL_LIMIT, Load, LoadMonitor
from hwprof.measure.machine import thermal_throttle_count
from hwprof.measure.records import Burst, LabelledBurst
from hwprof.protocols import Disturbance

FAULTS_PER_CALL = 0.1
SLOW_CLOCK = 0.97
"""A clock probe below this share of the best one labels its burst."""
WORTH_REPEATING = frozenset({"slow_clock", "stolen", "throttled"})


class Labeller:
    """Labels bursts, knowing the best clock probe of the campaign so far."""

    def __init__(self, earlier: Iterable[LabelledBurst] = ()) -> None:
        probes = [b.burst.probe_ns for b in earlier if b.burst.probe_ns is not None]
        self._best_probe_ns = min(probes, default=None)
        self._throttle_count = thermal_throttle_count()

    def host_disturbance(self, load: Load | None) -> Disturbance:
        """Return what disturbed a burst that was timed on this host's CPU."""
        count = thermal_throttle_count() if self._throttle_count is not None else None
        throttled = count != self._throttle_count
        self._throttle_count = count
        if load is None:
            return Disturbance(throttled=throttled)
        return Disturbance(
            steal_share=load.steal_share, foreign_cores=load.foreign_cores, throttled=throttled
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
            best = self._best_probe_ns
            self._best_probe_ns = burst.probe_ns if best is None else min(best, burst.probe_ns)
        n_calls = burst.n_samples * burst.calls_per_sample
        found = {
            "preempted": waiting_share(burst) > WAITING_SHARE,
            "faulted": burst.page_faults > FAULTS_PER_CALL * n_calls,
            "slow_clock": self._is_slow(burst),
            "stolen": disturbance.steal_share > STEAL_LIMIT,
            "foreign_load": disturbance.foreign_cores > FOREIGN_CORES_LIMIT,
            "throttled": disturbance.throttled,
        }
        return tuple(name for name, applies in found.items() if applies)

    def relabel(self, labelled: LabelledBurst) -> LabelledBurst:
        """Return the burst with ``slow_clock`` judged against the best probe known by now."""
        if self._is_slow(labelled.burst) == ("slow_clock" in labelled.causes):
            return labelled
        # The best probe only gets better, so a burst can only turn out slow, never fast.
        return replace(labelled, causes=(*labelled.causes, "slow_clock"))

    def _is_slow(self, burst: Burst) -> bool:
        best, probe = self._best_probe_ns, burst.probe_ns
        return best is not None and probe is not None and best < SLOW_CLOCK * probe
