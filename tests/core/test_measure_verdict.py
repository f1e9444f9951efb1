"""Each verdict just below and just above its limit, their order, and the lines beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hwprof.measure.records import VERDICTS
from hwprof.measure.session_spread import FEW_SESSIONS
from hwprof.measure.verdict import Signs, judge

CLEAN = Signs(
    preset="quick",
    n_workers=3,
    n_bursts=24,
    n_excluded=0,
    rel_half_width=0.004,
    rel_half_width_when_quiet=0.004,
    target_rel=0.01,
    session_sd=0.004,
    sessions_known=None,
    confirmed=True,
    is_drifting=False,
    drift=0.001,
    reference_drift=0.0,
    throttled_share=0.0,
    full_clock_share=1.0,
    steal_share=0.0,
    foreign_cores=0.0,
    n_cpus=2,
    faulted_share=0.0,
)


def test_clean_says_what_agreed() -> None:
    verdict, evidence = judge(CLEAN)
    assert verdict == "clean"
    assert evidence == ("±0.4% by 24 bursts of 3 workers (asked: ±1.0%)",)


@pytest.mark.parametrize(
    ("passing", "failing", "verdict", "words"),
    [
        (
            {"rel_half_width": 0.01, "rel_half_width_when_quiet": 0.01},
            {"rel_half_width": 0.011, "rel_half_width_when_quiet": 0.011},
            "noisy",
            "asked was ±1.0%: measure longer (--preset standard)",
        ),
        (
            {},
            {"rel_half_width": 0.03, "session_sd": 0.015, "sessions_known": 12},
            "noisy",
            "asked was ±1.0%: sessions on this machine differ by 1.5% (standard deviation, 12 known)",
        ),
        ({"confirmed": True}, {"confirmed": False}, "unconfirmed", "fewer than 3 bursts"),
        ({"is_drifting": False}, {"is_drifting": True}, "drifting", "from first to last round"),
        (
            {"foreign_cores": 0.2},
            {"foreign_cores": 0.94},
            "contaminated",
            "other processes kept 0.9 of 2 cores busy while this ran: stop them",
        ),
        (
            {"foreign_processes": ("python (pid 7)",)},
            {"shared_device_share": 0.25, "foreign_processes": ("python (pid 7)", "b (pid 8)")},
            "contaminated",
            "another process was on the device in 25% of the bursts: python (pid 7), b (pid 8); end",
        ),
        (
            {},
            {"shared_device_share": 0.01, "foreign_processes": tuple("abcdef")},
            "contaminated",
            "in 1% of the bursts: a, b, c, d and 2 more; end it",
        ),
        ({"steal_share": 0.02}, {"steal_share": 0.021}, "contaminated", "hypervisor gave 2.1%"),
        (
            {"throttled_share": 0.1},
            {"throttled_share": 0.11},
            "throttled",
            "throttled its clock in 11%",
        ),
        (
            {"over_quota_share": 0.1},
            {"over_quota_share": 0.11},
            "throttled",
            "CPU quota of this process's control group was spent in 11% of the bursts",
        ),
        (
            {"full_clock_share": 0.25},
            {"full_clock_share": 0.2},
            "throttled",
            "only 20% of the bursts ran at the best clock",
        ),
    ],
)
def test_limits(passing: dict[str, Any], failing: dict[str, Any], verdict: str, words: str) -> None:
    assert judge(replace(CLEAN, **passing))[0] == "clean"
    found, evidence = judge(replace(CLEAN, **failing))
    assert found == verdict
    assert words in evidence[0]


def test_most_serious_wins_and_all_are_listed() -> None:
    signs = replace(
        CLEAN,
        rel_half_width=0.05,
        rel_half_width_when_quiet=0.05,
        confirmed=False,
        is_drifting=True,
        foreign_cores=1.0,
        throttled_share=0.5,
    )
    verdict, evidence = judge(signs)
    assert verdict == "throttled"
    assert len(evidence) == 5
    without = replace(signs, throttled_share=0.0)
    assert judge(without)[0] == "contaminated"
    assert judge(replace(without, foreign_cores=0.0))[0] == "drifting"
    assert VERDICTS.index("throttled") == len(VERDICTS) - 1


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (None, "let the machine settle"),
        (0.03, "and the reference block by +3.0%: the machine was changing"),
        (-0.03, "and the reference block by -3.0%: the machine was changing"),
        (0.0, "while the reference block shows no such trend"),
    ],
)
def test_drift_is_told_from_the_machines(reference: float | None, words: str) -> None:
    signs = replace(CLEAN, is_drifting=True, drift=0.05, reference_drift=reference)
    assert words in judge(signs)[1][0]


@pytest.mark.parametrize(
    ("preset", "advice"),
    [
        ("quick", "measure longer (--preset standard)"),
        ("standard", "measure longer (--preset strict)"),
        ("strict", "measure when the machine is quieter"),
    ],
)
def test_advice_names_the_next_preset(preset: str, advice: str) -> None:
    assert (
        advice
        in judge(
            replace(CLEAN, preset=preset, rel_half_width=0.05, rel_half_width_when_quiet=0.05)
        )[1][0]
    )


def test_remarks_do_not_change_the_verdict() -> None:
    signs = replace(
        CLEAN,
        n_excluded=1,
        steal_share=0.008,
        faulted_share=1.0,
        outside_ops=("Conv", "Exp", "Conv"),
        host_warnings=("clock boost is on",),
    )
    verdict, (_, *remarks) = judge(signs)
    assert verdict == "clean"
    beginnings = ("1 disturbed burst was", "the hypervisor gave 0.8%", "most calls cause page")
    assert all(r.startswith(b) for r, b in zip(remarks[:3], beginnings, strict=True))
    assert "does not take: Conv (x2), Exp; for speed replace them" in remarks[3]
    assert remarks[4] == "clock boost is on"


@pytest.mark.parametrize(
    ("signs", "what_to_do"),
    [
        ({"n_excluded": 2}, "measure when the machine is quieter"),
        ({"steal_share": 0.008}, "at another time or on another instance"),
        ({"steal_share": 0.03}, "at another time or on another instance"),
        ({"smt": True, "foreign_cores": 0.06}, "switch SMT off"),
        ({"faulted_share": 1.0, "allocator": "malloc, memory kept"}, "the runtime's own arena"),
        ({"faulted_share": 1.0, "allocator": "malloc, system default"}, "MALLOC_MMAP_MAX_=0"),
        ({"faulted_share": 1.0, "allocator": "system"}, "reuse its buffers"),
        ({"faulted_share": 1.0, "allocator": None}, "reuse its buffers"),
        ({"outside_ops": ("Exp",)}, "replace them by operators that it takes"),
    ],
)
def test_every_remark_says_what_to_do(signs: dict[str, Any], what_to_do: str) -> None:
    *_, line = judge(replace(CLEAN, **signs))[1]
    assert what_to_do in line


def test_what_is_done_already_is_not_advised() -> None:
    for allocator in ("malloc, memory kept", "system", None):
        *_, line = judge(replace(CLEAN, faulted_share=1.0, allocator=allocator))[1]
        assert "MALLOC_MMAP_MAX_" not in line


@pytest.mark.parametrize(
    ("smt", "foreign_cores", "said"),
    [(True, 0.06, True), (True, 0.05, False), (False, 0.06, False), (None, 0.06, False)],
)
def test_a_busy_sibling_is_worth_a_remark(
    smt: bool | None, foreign_cores: float, said: bool
) -> None:
    verdict, evidence = judge(replace(CLEAN, smt=smt, foreign_cores=foreign_cores))
    assert verdict == "clean"
    assert any("sibling" in line for line in evidence) is said


def test_a_machine_whose_sessions_are_not_known_yet_is_said_to_be() -> None:
    verdict, evidence = judge(replace(CLEAN, sessions_known=FEW_SESSIONS - 1))
    assert verdict == "clean"
    assert f"fewer than {FEW_SESSIONS} earlier sessions on this machine are known" in evidence[1]
    assert judge(replace(CLEAN, sessions_known=FEW_SESSIONS)) == judge(CLEAN)
