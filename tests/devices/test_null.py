"""The scripted device says what its script says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwprof.devices.null import NullAdapter, NullExecutable, read_script
from hwprof.errors import DeviceError, PlanError
from hwprof.graph import workload_graph
from hwprof.measure.level import burst_statistic_s, waiting_share
from hwprof.measure.records import DeviceOptions, plan_for
from hwprof.space.pieces import ConvPiece
from hwprof.workload import Workload

CONV = Workload.block(
    ConvPiece(
        in_channels=3, size_px=8, out_channels=4, kernel=3, stride=1, act="relu", bn_eps=1e-5
    ),
    "u0.l1 conv",
)
SILENT = {"call": 0.0, "worker": 0.0}


def executable(**script: Any) -> NullExecutable:
    adapter = NullAdapter(DeviceOptions(script=json.dumps({"noise": SILENT, **script})))
    return adapter.compile(CONV, plan_for("quick"))


def statistic_s(found: NullExecutable) -> float:
    value = burst_statistic_s(found.burst(0.02, 5, "hot"), 1)
    assert value is not None
    return value


@pytest.mark.parametrize(
    ("latency", "expected_s"),
    [
        ({}, 1e-3),
        ({"base_s": 2e-3}, 2e-3),
        ({"labels": {"u0.*": 3e-3, "*": 4e-3}}, 3e-3),
        ({"labels": {"u1.*": 3e-3}, "base_s": 5e-3}, 5e-3),
        ({"base_s": 1e-3, "per_mac_s": 1e-7}, 1e-3 + 1e-7 * 4 * 8 * 8 * 27),
    ],
)
def test_latency(latency: dict[str, Any], expected_s: float) -> None:
    assert statistic_s(executable(latency=latency)) == pytest.approx(expected_s, rel=1e-5)


def test_latency_by_operators() -> None:
    n_operators = len(workload_graph(CONV).nodes)
    found = executable(latency={"base_s": 0, "per_operator_s": 1e-4})
    assert statistic_s(found) == pytest.approx(n_operators * 1e-4, rel=1e-5)


def test_modes_drift_and_waits() -> None:
    slow = executable(slow_mode={"share": 1.0, "factor": 1.5})
    assert statistic_s(slow) == pytest.approx(1.5e-3, rel=1e-5)
    drifting = executable(drift_per_burst=0.1)
    assert [statistic_s(drifting) for _ in range(3)] == pytest.approx(
        [1e-3, 1.1e-3, 1.21e-3], rel=1e-5
    )
    waiting = executable(wait={"share": 1.0, "s": 1e-3}).burst(0.02, 5, "hot")
    assert waiting_share(waiting) == pytest.approx(0.5, abs=0.01)
    assert burst_statistic_s(waiting, 1) == pytest.approx(1e-3, rel=1e-5)


def test_noise_only_adds_and_repeats_with_the_seed() -> None:
    bursts = [executable(noise={"call": 0.05}, seed=s).burst(0.05, 5, "hot") for s in (1, 1, 2)]
    np.testing.assert_array_equal(bursts[0].duration_ns, bursts[1].duration_ns)
    assert not np.array_equal(bursts[0].duration_ns, bursts[2].duration_ns)
    assert bursts[0].duration_ns.min() >= 1_000_000


def test_workers_differ_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    first = executable(noise={"worker": 0.01}).burst(0.01, 5, "hot")
    monkeypatch.setenv("HWPROF_WORKER", "1")
    second = executable(noise={"worker": 0.01}).burst(0.01, 5, "hot")
    assert not np.array_equal(first.duration_ns, second.duration_ns)


def test_script_from_a_file_and_its_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    file.write_text('{"seed": 3}')
    assert read_script(str(file)) == {"seed": 3}
    assert read_script(None) == {}
    for text, words in (
        ("{", "cannot be read"),
        (str(tmp_path / "none.json"), "cannot be read"),
        ('{"sede": 1}', "unknown field 'sede'"),
        ('{"faults": [{"kind": "explode"}]}', "unknown fault 'explode'"),
    ):
        with pytest.raises(PlanError, match=words):
            read_script(text)


def test_no_trace() -> None:
    with pytest.raises(DeviceError, match="no trace"):
        executable().trace()
