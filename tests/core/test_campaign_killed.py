"""A whole campaign on the scripted device, killed for good at any moment, ends all the same."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from hwprof.campaign import Campaign, plan_campaign, run_campaign
from hwprof.devices import device_ref
from hwprof.errors import IncompatibleRunError
from hwprof.measure.measurement import measurement_from
from hwprof.measure.records import DeviceOptions, DeviceRef, Measurement, MeasurePlan, plan_for
from hwprof.space import get_space
from hwprof.store import Run

ROOT = Path(__file__).resolve().parents[2]
N_NETWORKS = 4

CAMPAIGN = """
    import sys
    from hwprof.campaign import plan_campaign, run_campaign
    from hwprof.devices import device_ref
    from hwprof.measure.records import DeviceOptions, plan_for
    from hwprof.space import get_space
    from hwprof.store import Run

    mini = get_space("mobile-mini")
    space = mini.restrict({slot: mini.choices(slot)[:2] for slot in mini.slots})
    campaign = plan_campaign(space, seed=0, n_networks=4)
    plan = plan_for("quick", workers=2, looks=(3,))
    device = device_ref("null", DeviceOptions())
    with Run.create_or_resume(sys.argv[1], "profile", campaign.request(device, plan)) as run:
        run_campaign(run, campaign, device, plan)
"""


@pytest.fixture(scope="module")
def campaign() -> Campaign:
    mini = get_space("mobile-mini")
    space = mini.restrict({slot: mini.choices(slot)[:2] for slot in mini.slots})
    return plan_campaign(space, seed=0, n_networks=N_NETWORKS)


@pytest.fixture(scope="module")
def plan() -> MeasurePlan:
    return plan_for("quick", workers=2, looks=(3,))


@pytest.fixture(scope="module")
def device() -> DeviceRef:
    return device_ref("null", DeviceOptions())


def count(path: Path, table: str) -> int:
    if not (path / "run.json").exists():
        return 0
    db = sqlite3.connect(f"file:{path / 'run.db'}?mode=ro", uri=True)
    found = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    db.close()
    return int(found)


def kill_once(path: Path, table: str, rows: int) -> None:
    """Start the campaign and kill it as soon as ``table`` has ``rows`` rows."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CAMPAIGN), str(path)], cwd=ROOT
    )
    while process.poll() is None and count(path, table) < rows:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"


def test_killed_twice_and_resumed(
    tmp_path: Path, campaign: Campaign, plan: MeasurePlan, device: DeviceRef
) -> None:
    path = tmp_path / "run"
    kill_once(path, "bursts", 40)
    before = count(path, "bursts")
    kill_once(path, "measurements", 3)
    with Run.create_or_resume(path, "profile", campaign.request(device, plan)) as run:
        kept = {k: [b.burst.start_ns for b in v] for k, v in run.partial_bursts().items()}
        settled = run.measured_keys()
        assert count(path, "bursts") >= before, "what was there stays there"
        summary = run_campaign(run, campaign, device, plan)
        measurements = run.measurements()
        assert count(path, "events") == 3, "each was opened, none is closed yet"
        assert len(run.fingerprints) == 1
    assert settled
    assert (summary.n_done, summary.n_failed, summary.n_left) == (len(campaign.workloads), 0, 0)
    assert {m.workload.key for m in measurements} == {w.key for w in campaign.workloads}
    for m in measurements:
        starts = {b.burst.start_ns.tobytes() for b in m.bursts}
        assert {s.tobytes() for s in kept.get(m.workload.key, ())} <= starts
        assert_recomputable(m)


def assert_recomputable(m: Measurement) -> None:
    again = measurement_from(
        m.workload, m.plan, m.fingerprint, tuple(m.bursts), m.loaded, m.telemetry
    )
    for name in ("level_s", "median_s", "p90_s", "p99_s", "ci95_s"):
        np.testing.assert_allclose(getattr(again, name), getattr(m, name), rtol=1e-12)
    assert (again.verdict, again.evidence) == (m.verdict, m.evidence)


def test_a_device_that_changed_is_refused_before_it_is_timed(
    tmp_path: Path, campaign: Campaign, plan: MeasurePlan, device: DeviceRef
) -> None:
    path = tmp_path / "run"
    one = plan_campaign(campaign.space, n_networks=1, isolated=False)
    two = plan_campaign(campaign.space, n_networks=2, isolated=False)
    with Run.create(path, "profile", one.request(device, plan)) as run:
        run_campaign(run, one, device, plan)
        n_bursts = count(path, "bursts")
        changed = device_ref("null", DeviceOptions(threads=2))
        with pytest.raises(IncompatibleRunError, match="threads 1, not 2"):
            run_campaign(run, two, changed, plan)
        assert count(path, "bursts") == n_bursts > 0
