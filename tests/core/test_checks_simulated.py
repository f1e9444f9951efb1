"""Golden check 12 gates: the statistics on a machine whose floor is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwprof.checks import simulated
from hwprof.checks.simulated import Machine, Session, simulate
from hwprof.measure.level import corrected_s, estimate
from hwprof.measure.records import plan_for

QUIET = Machine(
    slow_share=0.0,
    session_sd=0.0,
    process_sd=0.0,
    layout_sd=0.0,
    stuck_share=0.0,
    spike_share=0.0,
    wait_share=0.0,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_check_12_gates() -> None:
    result = simulated.simulated_machine()
    assert result.passed, result
    assert result.figures["false_alarms"] <= 0.01
    assert result.figures["coverage standard"] >= 0.90
    assert result.figures["coverage quick in a campaign"] >= 0.90
    assert result.figures["found"] >= 0.95


@pytest.mark.parametrize(
    "machine",
    [
        Machine(layout_sd=0.02),  # candidates that differ for life: the gate takes it for change
        Machine(session_sd=0.03),  # sessions differ by more than the interval holds
    ],
    ids=["false alarms", "coverage"],
)
def test_check_12_fails_on_a_machine_beyond_its_statistics(machine: Machine) -> None:
    result = simulated.simulated_machine(machine=machine, n_levels=30, n_pairs=30)
    assert result.passed is False
    assert result.advice


def test_same_seed_same_result() -> None:
    one, again = (simulated.simulated_machine(3, n_levels=5, n_pairs=5) for _ in range(2))
    assert one == again


class TestSimulate:
    def test_a_quiet_machine_shows_its_target(self) -> None:
        plan = plan_for("strict", burst_s=0.4)
        (bursts,) = simulate(QUIET, Session(plan=plan), rng())
        assert estimate(bursts, 1).level_s == pytest.approx(QUIET.target_s, rel=2e-4)

    def test_bursts_are_labelled_and_never_overlap(self) -> None:
        plan = plan_for("quick")
        a, b = simulate(Machine(), Session(plan=plan, candidates=2, neighbours=3), rng())
        for candidate in (a, b):
            cells = [(x.worker, x.round_index) for x in candidate]
            assert sorted(cells) == [(f"w{w}", r) for w in range(3) for r in range(8)]
        starts = np.sort([x.burst.start_ns[0] for x in (*a, *b)])
        assert np.diff(starts).min() >= plan.burst_s * 1e9

    def test_slow_modes_take_their_share_of_time(self) -> None:
        machine = replace(QUIET, slow_share=0.3, noise=0.0)
        session = Session(plan=plan_for("strict"), neighbours=30)
        factors = np.concatenate(
            [
                corrected_s(b.burst, 1) / machine.floor_s
                for i in range(40)
                for b in simulate(machine, session, rng(i))[0]
            ]
        )
        assert set(np.unique(np.round(factors, 3))) == {1.0, 1.2, 1.4}
        assert np.mean(factors > 1.1) == pytest.approx(0.3, abs=0.04)

    def test_slow_modes_last_from_a_millisecond_to_seconds(self) -> None:
        machine = replace(QUIET, slow_share=0.3)
        modes = simulated._modes(machine, 2000.0, rng())
        dwells = np.diff(modes.ends_s)[modes.factors[1:-1] > 1.0]
        low, high = np.quantile(dwells, (0.01, 0.99))
        assert machine.dwell_s[0] <= low < 2e-3
        assert 2.0 < high <= machine.dwell_s[1]
        # Log-uniform: the median is the geometric mean of the ends.
        assert np.median(dwells) == pytest.approx(np.sqrt(1e-3 * 3.0), rel=0.2)

    def test_waits_are_recorded_and_correctable(self) -> None:
        machine = replace(QUIET, wait_share=0.2, wait_trace_s=0.0)
        (bursts,) = simulate(machine, Session(plan=plan_for("quick")), rng())
        wall = np.concatenate([b.burst.duration_ns for b in bursts])
        waits = np.concatenate([b.burst.wait_ns for b in bursts if b.burst.wait_ns is not None])
        assert np.mean(waits > 0) == pytest.approx(0.2, abs=0.04)
        assert (wall - waits).max() < 1.05e9 * machine.floor_s

    def test_processes_differ_for_life(self) -> None:
        machine = replace(QUIET, process_sd=0.02)
        (bursts,) = simulate(machine, Session(plan=plan_for("standard")), rng())
        by_worker: dict[str, list[float]] = {}
        for b in bursts:
            by_worker.setdefault(b.worker, []).append(float(np.median(b.burst.duration_ns)))
        within = [np.std(np.log(v)) for v in by_worker.values()]
        between = np.std([np.mean(np.log(v)) for v in by_worker.values()])
        assert between > 4 * max(within)
