"""Faults of the link are nobody's fault, but not for ever."""

from __future__ import annotations

from typing import Any

import pytest

from hwprof.errors import DeviceUnavailableError
from hwprof.measure.crew import MOST_LOST_LINKS, Crew, LostError, Member, Seat
from hwprof.measure.process import LINK, WorkerFault
from hwprof.measure.records import plan_for
from hwprof.space.pieces import SkipPiece
from hwprof.workload import Workload

WORKLOAD = Workload.block(SkipPiece(in_channels=8, size_px=8), "block")
CUT_OFF = WorkerFault(LINK, "the session ended", lost=True)


class FaultyWorker:
    """A worker whose every request ends in a fault."""

    label = "w0"

    def __init__(self, fault: WorkerFault) -> None:
        self.fault = fault

    def request(self, op: str, timeout_s: float, **fields: Any) -> None:
        raise self.fault


class FaultyPool:
    """A pool of such workers; with ``while_starting`` none of them even starts."""

    def __init__(self, fault: WorkerFault, *, while_starting: bool = False) -> None:
        self.fault, self.while_starting = fault, while_starting
        self.n_started = 0

    def start(self, count: int, interpreter: None) -> tuple[list[FaultyWorker], None]:
        self.n_started += count
        if self.while_starting:
            raise self.fault
        return [FaultyWorker(self.fault) for _ in range(count)], None

    def run_only(self, worker: FaultyWorker) -> None:
        pass

    def remove(self, worker: FaultyWorker) -> None:
        pass


@pytest.mark.parametrize("while_starting", [False, True])
def test_a_device_whose_sessions_always_end_is_given_up(while_starting: bool) -> None:
    pool: Any = FaultyPool(CUT_OFF, while_starting=while_starting)
    crew = Crew(pool, plan_for("quick"), lambda *_: None)
    seat = Seat()
    member = Member(workload=WORKLOAD, seats=(seat,))
    with pytest.raises(LostError) as caught:
        crew.prepare(member, seat)
    assert caught.value.failure.kind == LINK
    assert pool.n_started == MOST_LOST_LINKS + 1
    assert seat.worker is None


def test_what_the_environment_lacks_ends_the_campaign_not_one_workload_after_another() -> None:
    lacking = WorkerFault("unavailable", "the package 'x' is not installed", lost=False)
    pool: Any = FaultyPool(lacking)
    crew = Crew(pool, plan_for("quick"), lambda *_: None)
    seat = Seat()
    member = Member(workload=WORKLOAD, seats=(seat,))
    with pytest.raises(DeviceUnavailableError, match="block: the package 'x' is not installed"):
        crew.prepare(member, seat)
    assert member.n_faults == 0
