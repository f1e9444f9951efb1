"""The references: which stand beside what, and what they say of a candidate."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hwprof import cost
from hwprof.devices import open_device
from hwprof.measure.crew import Member
from hwprof.measure.records import DeviceOptions, DeviceRef, Fingerprint, Loaded, plan_for
from hwprof.measure.references import BLOCK, NETWORK, References
from hwprof.measure.session_spread import LARGE_BYTES, Kind, SessionLevel, session_spread
from hwprof.workload import Workload
from tests.core.bursts import burst, labelled
from tests.core.scripted import MemoryHistory, block

PLAN = plan_for("quick")
HERE = Fingerprint(stable={"device": "cpu", "hardware": "some CPU"})
FAR: Mapping[Kind, float] = {"block": 0.01, "network": 0.05}
KNOWN = [
    SessionLevel(kind=kind, setting="s", level_s=1e-3 * (1 + far * (-1) ** i), se=0.0)
    for kind, far in FAR.items()
    for i in range(30)
]


def member(n_bytes: int) -> Member:
    loaded = Loaded(load_s=0.1, artifact_bytes=n_bytes, peak_memory_bytes=None)
    return Member(workload=block("a"), seats=(), loaded=loaded)


def references(*candidates: Workload, history: MemoryHistory | None = None) -> References:
    return References(candidates, tuple, PLAN, 1, history)


def test_a_network_stands_beside_networks_and_models_only() -> None:
    model = Workload(role="model", label="m", path="m.onnx", content="0")
    assert [m.workload for m in references(block("a")).members] == [BLOCK]
    for other in (NETWORK, model):
        assert [m.workload for m in references(block("a"), other).members] == [BLOCK, NETWORK]
    assert all(m.is_reference for m in references(model).members)


def test_the_network_does_not_fit_into_a_cores_caches_and_the_block_does() -> None:
    assert NETWORK.arch is not None
    assert 4 * cost(NETWORK.arch).params > 2 * LARGE_BYTES
    ref = DeviceRef(name="cpu", factory="hwprof.devices.cpu:CpuAdapter", options=DeviceOptions())
    adapter = open_device(ref)
    sizes = [adapter.compile(w, PLAN).loaded.artifact_bytes for w in (BLOCK, NETWORK)]
    adapter.close()
    assert sizes[0] < LARGE_BYTES <= sizes[1]


@pytest.mark.parametrize(
    ("n_bytes", "kind"), [(LARGE_BYTES - 1, "block"), (LARGE_BYTES, "network")]
)
def test_a_candidate_has_the_spread_of_its_kind(n_bytes: int, kind: Kind) -> None:
    found = references(NETWORK, history=MemoryHistory(KNOWN))
    found.learn(HERE)
    said = found.telemetry(member(n_bytes))
    spread = session_spread(KNOWN, kind)
    assert said == {"session_sd": spread.sd, "sessions_known": 30}
    assert spread.sd == pytest.approx(FAR[kind], rel=0.15)


def test_earlier_sessions_count_for_the_level_and_not_for_the_history() -> None:
    earlier = [labelled(burst([1000.0] * 9), f"w{i}", i) for i in range(2)]
    history = MemoryHistory()
    found = References([block("a")], tuple, PLAN, 1, history, earlier)
    (reference,) = found.members
    assert reference.next_round == 2
    reference.bursts += [labelled(burst([1100.0] * 9), f"w{i}", i) for i in range(2, 4)]
    found.learn(HERE)
    # The lower quartile of four workers, as a candidate's level is.
    begun, fresh = member(0), member(0)
    begun.bursts += [*earlier, *reference.bursts]
    assert found.telemetry(begun)["reference_level_s"] == pytest.approx(1.0e-3)
    assert [b.worker for b in found.bursts] == ["w0", "w1", "w2", "w3"]
    fresh.bursts += reference.bursts  # its campaign was interrupted before its own first session
    assert found.telemetry(fresh)["reference_level_s"] == pytest.approx(1.1e-3)
    found.remember(HERE)
    assert [s.level_s for s in history.kept] == pytest.approx([1.1e-3])


def test_without_a_history_they_claim_nothing_of_other_sessions() -> None:
    found = references(NETWORK)
    found.learn(HERE)
    found.remember(HERE)
    assert found.telemetry(member(0)) == {}


def test_what_was_not_timed_is_not_remembered() -> None:
    history = MemoryHistory()
    found = references(NETWORK, history=history)
    found.learn(HERE)
    found.remember(HERE)
    assert history.kept == []
