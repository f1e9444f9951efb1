"""Faults of the link are nobody's fault, but not for ever."""

from __future__ import annotations

from typing import Any

import pytest

from hwprof.measure.crew import MOST_LOST_LINKS, Crew, LostError, Member, Seat
from hwprof.measure.process import LINK, WorkerFault
from hwprof.measure.records import plan_for
from hwprof.space.pieces import SkipPiece
from hwprof.workload import Workload

WORKLOAD = Workload.block(SkipPiece(in_channels=8, size_px=8), "block")


class CutOff:
    """A worker whose session ends at its first request."""

    label = "w0"

    def request(self, op: str, timeout_s: float, **fields: Any) -> None:
        raise WorkerFault(LINK, "the session ended", lost=True)


class CutOffPool:
    """A pool of such workers."""

    def __init__(self) -> None:
        self.n_started = 0

    def start(self, count: int, interpreter: None) -> tuple[list[CutOff], None]:
        self.n_started += count
        return [CutOff() for _ in range(count)], None

    def run_only(self, worker: CutOff) -> None:
        pass

    def remove(self, worker: CutOff) -> None:
        pass


def test_a_device_whose_sessions_always_end_is_given_up() -> None:
    pool: Any = CutOffPool()
    crew = Crew(pool, plan_for("quick"), lambda *_: None)
    seat = Seat()
    member = Member(workload=WORKLOAD, seats=(seat,))
    with pytest.raises(LostError) as caught:
        crew.prepare(member, seat, warm=True)
    assert caught.value.failure.kind == LINK
    assert pool.n_started == MOST_LOST_LINKS + 1
    assert seat.worker is None
