"""Campaigns are the same for the same seed, grow, stop, and go on where they stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwprof.campaign import (
    Campaign,
    default_n_networks,
    plan_campaign,
    run_campaign,
    sample_networks,
)
from hwprof.errors import IncompatibleRunError, PlanError
from hwprof.estimate.design_matrix import n_coefficients
from hwprof.isolated import isolated_table
from hwprof.measure import engine
from hwprof.measure.floor import SESSION_SD
from hwprof.measure.records import (
    PRESETS,
    Burst,
    DeviceOptions,
    DeviceRef,
    Failure,
    Fingerprint,
    LabelledBurst,
    MeasurePlan,
    Result,
)
from hwprof.protocols import SessionHistory, Sink
from hwprof.space import DesignSpace, Slot, get_space
from hwprof.store import Run
from hwprof.workload import Workload
from tests.made import measurement

DEVICE = DeviceRef(name="null", factory="nowhere:Null")
PLAN = PRESETS["quick"]
ROUNDS = 2
FINGERPRINT = Fingerprint(
    stable={
        "device": "null",
        "hardware": "scripted",
        "runtime": "null",
        "runtime_version": "1",
        "threads": 1,
        "batch": 1,
        "precision": "fp32",
    }
)


@pytest.fixture(scope="module")
def mini() -> DesignSpace:
    return get_space("mobile-mini")


def level_s(workload: Workload) -> float:
    return (1 + int(workload.key, 16) % 1000) * 1e-6


class FakeEngine:
    """Measures at once, two bursts a workload; ends or is interrupted when told."""

    def __init__(self) -> None:
        self.interrupt_after_bursts: int | None = None
        self.stop_after: int | None = None
        self.failing: Mapping[str, bool] = {}
        self.n_bursts = 0
        self.asked: list[str] = []

    def __call__(
        self,
        workloads: Sequence[Workload],
        device: DeviceRef,
        plan: MeasurePlan,
        *,
        sink: Sink,
        history: SessionHistory,
        earlier: Mapping[str, Sequence[LabelledBurst]],
        references: Sequence[tuple[str, LabelledBurst]],
        taken: Collection[str],
        progress: object = None,
        deadline_s: float | None = None,
    ) -> Iterator[Result]:
        self.asked = [w.key for w in workloads]
        self.taken = set(taken)
        self.references = [(key, burst.round_index) for key, burst in references]
        self.deadline_s = deadline_s
        for workload in workloads[: self.stop_after]:
            sink.opened(FINGERPRINT)
            yield self.result(workload, plan, sink, list(earlier.get(workload.key, ())))

    def result(
        self, workload: Workload, plan: MeasurePlan, sink: Sink, bursts: list[LabelledBurst]
    ) -> Result:
        if workload.key in self.failing:
            failure = Failure(
                workload=workload,
                stage="compile",
                kind="refused",
                message="no",
                retryable=self.failing[workload.key],
            )
            sink.failed(failure)
            return failure
        while len(bursts) < ROUNDS:
            if self.n_bursts == self.interrupt_after_bursts:
                raise KeyboardInterrupt
            self.n_bursts += 1
            values = np.full(3, round(level_s(workload) * 1e9), dtype=np.int64)
            made = Burst(start_ns=values, duration_ns=values, wait_ns=None)
            bursts.append(LabelledBurst(burst=made, worker="w0", round_index=len(bursts)))
            sink.burst(workload, bursts[-1])
            sink.reference(workload, bursts[-1])
        level = level_s(workload)
        found = measurement(
            workload,
            level,
            (0.9 * level, 1.2 * level),
            plan=plan,
            fingerprint=FINGERPRINT,
            bursts=bursts,
        )
        found = replace(found, telemetry={"worker_levels_s": {"w0": level}})
        sink.done(found)
        return found


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    made = FakeEngine()
    monkeypatch.setattr(engine, "measure", made)
    return made


Opener = Callable[[Campaign], Run]


@pytest.fixture
def opened(tmp_path: Path) -> Opener:
    def opener(campaign: Campaign) -> Run:
        request = campaign.request(DEVICE, PLAN)
        return Run.create_or_resume(tmp_path / "run", "profile", request)

    return opener


@pytest.mark.parametrize("name", ["mobile-mini", "proxylessnas", "ofa-resnet50", "nasbench201"])
def test_every_distinct_block_then_distinct_networks(name: str) -> None:
    space = get_space(name)
    campaign = plan_campaign(space, seed=3, n_networks=40)
    timed = {w.piece for w in campaign.isolated}
    assert timed == {p for p in space.distinct_pieces() if p.kind != "skip"}
    assert len(timed) == len(campaign.isolated)
    assert all(w.role == "block" and w.label for w in campaign.isolated)
    drawn = [w.arch for w in campaign.networks if w.arch is not None]
    assert len(drawn) == 40
    assert len({space.canonical(a).arch_id for a in drawn}) == 40
    for a in drawn:
        space.validate(a)
    assert campaign.workloads == (*campaign.isolated, *campaign.networks)


def test_more_networks_extend_the_same_sequence(mini: DesignSpace) -> None:
    few = plan_campaign(mini, seed=5, n_networks=7)
    many = plan_campaign(mini, seed=5, n_networks=30)
    assert [w.key for w in many.networks[:7]] == [w.key for w in few.networks]
    other = plan_campaign(mini, seed=6, n_networks=7)
    assert [w.key for w in other.networks] != [w.key for w in few.networks]


def test_a_small_space_is_measured_whole(mini: DesignSpace) -> None:
    one = {slot: mini.choices(slot)[:1] for slot in mini.slots}
    tiny = mini.restrict({**one, Slot(0, 0): mini.choices(Slot(0, 0))[:2]}, mini.min_depth)
    assert len(sample_networks(tiny, seed=0, n_networks=50)) == 2


def test_default_count_follows_the_effect_model() -> None:
    mbv3 = get_space("ofa-mbv3-w1.2")
    assert default_n_networks(mbv3) == 3 * 171  # 171 coefficients: block-profiling note
    small = get_space("mobile-mini")
    assert default_n_networks(small) == max(100, 3 * n_coefficients(small))


def test_plans_that_measure_nothing_are_refused(mini: DesignSpace) -> None:
    with pytest.raises(PlanError, match="nothing to measure"):
        plan_campaign(mini, n_networks=0, isolated=False)
    with pytest.raises(PlanError, match="unknown design 'pinnd'"):
        plan_campaign(mini, design="pinnd")


def test_more_networks_than_can_be_drawn_are_refused(mini: DesignSpace) -> None:
    with pytest.raises(PlanError, match=r"99999999999 networks .* at most 100000"):
        plan_campaign(mini, n_networks=99_999_999_999)


def test_a_finished_campaign_is_not_measured_again(
    mini: DesignSpace, fake: FakeEngine, opened: Opener
) -> None:
    campaign = plan_campaign(mini, n_networks=5)
    with opened(campaign) as run:
        summary = run_campaign(run, campaign, DEVICE, PLAN)
    assert fake.asked == [w.key for w in campaign.workloads]
    assert (summary.n_done, summary.n_failed, summary.n_left) == (len(campaign.workloads), 0, 0)
    with opened(campaign) as run:
        again = run_campaign(run, campaign, DEVICE, PLAN)
    assert fake.asked == []
    assert again.n_done == summary.n_done


def test_a_campaign_grows(mini: DesignSpace, fake: FakeEngine, opened: Opener) -> None:
    first = plan_campaign(mini, n_networks=4, isolated=False)
    with opened(first) as run:
        run_campaign(run, first, DEVICE, PLAN)
    grown = plan_campaign(mini, n_networks=6)
    with opened(grown) as run:
        summary = run_campaign(run, grown, DEVICE, PLAN)
        assert len(run.networks()) == 6
    assert fake.taken == {"w0"}, "no later worker bears the label of an earlier one"
    assert summary.n_done == len(grown.workloads)
    assert not set(fake.asked) & {w.key for w in first.workloads}


@pytest.mark.parametrize("after", [0, 1, 4, 9])
def test_an_interrupted_campaign_goes_on_with_its_bursts(
    mini: DesignSpace, fake: FakeEngine, opened: Opener, after: int
) -> None:
    campaign = plan_campaign(mini, n_networks=5, isolated=False)
    fake.interrupt_after_bursts = after
    with opened(campaign) as run, pytest.raises(KeyboardInterrupt):
        run_campaign(run, campaign, DEVICE, PLAN)
    fake.interrupt_after_bursts = None
    with opened(campaign) as run:
        summary = run_campaign(run, campaign, DEVICE, PLAN)
        kept = run.measurements()
    begun = campaign.workloads[after // ROUNDS].key
    assert [r for r in fake.references if r[0] == begun] == [(begun, 0)] * (after % ROUNDS)
    assert fake.n_bursts == ROUNDS * 5, "no burst is taken twice"
    assert summary.n_done == 5
    assert {m.workload.key for m in kept} == {w.key for w in campaign.workloads}
    assert [len(m.bursts) for m in kept] == [ROUNDS] * 5


def test_what_is_left_is_listed(mini: DesignSpace, fake: FakeEngine, opened: Opener) -> None:
    campaign = plan_campaign(mini, n_networks=5, isolated=False)
    fake.stop_after = 2
    with opened(campaign) as run:
        summary = run_campaign(run, campaign, DEVICE, PLAN, max_time_s=60.0)
    assert fake.deadline_s is not None
    assert summary.left == campaign.workloads[2:]
    assert (summary.n_done, summary.n_left) == (2, 3)


def test_only_failures_that_may_pass_are_tried_again(
    mini: DesignSpace, fake: FakeEngine, opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = plan_campaign(mini, n_networks=4, isolated=False)
    hopeless, passing = (w.key for w in campaign.workloads[:2])
    fake.failing = {hopeless: False, passing: True}
    with opened(campaign) as run:
        summary = run_campaign(run, campaign, DEVICE, PLAN)
    assert (summary.n_done, summary.n_failed, summary.n_left) == (2, 2, 0)
    assert "refused" in caplog.text
    fake.failing = {}
    with opened(campaign) as run:
        summary = run_campaign(run, campaign, DEVICE, PLAN)
    assert fake.asked == [passing]
    assert (summary.n_done, summary.n_failed, summary.n_left) == (3, 1, 0)


def test_a_campaign_of_something_else_is_refused(mini: DesignSpace, opened: Opener) -> None:
    campaign = plan_campaign(mini, n_networks=5)
    opened(campaign).close()
    block = mini.choices(Slot(0, 0))[0]
    for other, said in (
        (plan_campaign(mini, seed=1, n_networks=5), "seed 0, not 1"),
        (plan_campaign(mini.restrict({Slot(0, 0): (block,)}), n_networks=5), "alive.u0.l0"),
        (
            plan_campaign(mini.at_resolution(2 * mini.resolution_px), n_networks=5),
            f"resolution_px {mini.resolution_px}, not {2 * mini.resolution_px}",
        ),
    ):
        with pytest.raises(IncompatibleRunError, match=said):
            opened(other)
    request = campaign.request(
        DeviceRef(name="cpu", factory="", options=DeviceOptions(threads=2)), PRESETS["strict"]
    )
    with opened(campaign) as run:
        path = run.path
    with pytest.raises(IncompatibleRunError) as caught:
        Run.create_or_resume(path, "profile", request)
    for said in ('device "null", not "cpu"', "options.threads 1, not 2", "plan.preset"):
        assert said in str(caught.value)


def test_a_campaign_of_another_space_is_refused_in_a_few_words(
    mini: DesignSpace, opened: Opener
) -> None:
    opened(plan_campaign(mini, n_networks=5)).close()
    with pytest.raises(IncompatibleRunError) as caught:
        opened(plan_campaign(get_space("proxylessnas"), n_networks=5))
    said = str(caught.value)
    assert 'was made with space "mobile-mini", not "proxylessnas"; ' in said
    assert "more: ask for the same" in said
    assert said.count(", not ") == 5


@pytest.mark.parametrize("name", ["mobile-mini", "nasbench201", "ofa-resnet50"])
def test_isolated_times_come_back_to_every_place(
    name: str, fake: FakeEngine, opened: Opener
) -> None:
    space = get_space(name)
    campaign = plan_campaign(space, n_networks=0)
    with opened(campaign) as run:
        run_campaign(run, campaign, DEVICE, PLAN)
        rows = isolated_table(run, space)
    assert {(r.slot, r.block) for r in rows if r.slot is not None} == {
        (slot, block) for slot in space.slots for block in space.choices(slot)
    }
    assert {r.block for r in rows if r.slot is None} == {p.scope for p in space.fixed_parts()}
    known = {w.piece: level_s(w) for w in campaign.isolated}
    for row in rows:
        level, low, high = row.isolated_hot_s
        if row.slot is None or space.factors:
            continue
        if row.block == "skip":
            assert row.isolated_hot_s == (0.0, 0.0, 0.0)
            continue
        parts = space.block_pieces(row.slot, row.block)
        assert level == pytest.approx(sum(known[p] * count for p, count in parts))
        # What sessions differ by moves all pieces alike; each piece's own error is 10 and 20 %.
        alike = 1.959963984540054 * SESSION_SD
        down, up = (level * math.hypot(own, alike) for own in (0.1, 0.2))
        if len(parts) == 1:
            assert (low, high) == pytest.approx((level - down, level + up))
        else:
            assert level - down < low < level < high < level + up
    if space.factors:
        variants = [p for p, places in space.block_places().items() for _ in places]
        assert len(variants) > len(rows), "a block has a variant for every width"
        assert all(0 < r.isolated_hot_s.value <= 1e-3 for r in rows)


def test_blocks_that_were_not_measured_are_left_out(
    mini: DesignSpace, fake: FakeEngine, opened: Opener
) -> None:
    campaign = plan_campaign(mini, n_networks=0)
    fake.stop_after = 5
    with opened(campaign) as run:
        run_campaign(run, campaign, DEVICE, PLAN)
        rows = isolated_table(run, mini)
    assert 0 < len(rows) < sum(len(mini.choices(s)) for s in mini.slots)
