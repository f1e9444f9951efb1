"""What a report takes from a run."""

from __future__ import annotations

from dataclasses import replace

from hwprof.api.reporting import _verdicts
from tests.core.test_measure_records import measured


def test_what_holds_for_all_workloads_is_said_under_one_verdict_alone() -> None:
    new, wide, slow = "1 known sessions", "a wide interval", "a slow clock"
    noisy = replace(measured(), verdict="noisy", evidence=(wide, new))
    throttled = replace(measured(), verdict="throttled", evidence=(slow, new, "2 known sessions"))
    rows = _verdicts([noisy, throttled, noisy])
    assert [(r.verdict, r.n, r.evidence) for r in rows] == [
        ("noisy", 2, (wide, new)),
        ("throttled", 1, (slow,)),
    ]
