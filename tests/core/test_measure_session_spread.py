"""How far sessions lie apart, against closed forms and simulated machines."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from hwprof.measure.floor import SESSION_SD
from hwprof.measure.session_spread import (
    FEW_SESSIONS,
    SessionLevel,
    session_spread,
)


def sessions(logs: list[float], se: float = 0.0, setting: str = "a") -> list[SessionLevel]:
    return [
        SessionLevel(kind="block", setting=setting, level_s=1e-5 * math.exp(x), se=se) for x in logs
    ]


def drawn(n: int, sd: float, se: float, seed: int = 0) -> list[SessionLevel]:
    """Return sessions that differ by ``sd`` and know themselves to ``se``."""
    rng = np.random.default_rng(seed)
    logs = sd * rng.standard_normal(n) + se * rng.standard_normal(n)
    return sessions(logs.tolist(), se)


def test_without_sessions_it_is_the_protocols_constant() -> None:
    spread = session_spread([], "block")
    assert (spread.sd, spread.n_known) == (SESSION_SD, 0)


def test_one_session_has_nothing_to_differ_from() -> None:
    assert session_spread(sessions([0.3]), "block").sd == SESSION_SD


def test_sessions_alone_in_their_settings_tell_nothing() -> None:
    """Five batch sizes, one session each: what sessions differ by is still assumed."""
    alone = [s for i in range(5) for s in sessions([0.1 * i], setting=f"batch {i}")]
    spread = session_spread(alone, "block")
    assert (spread.sd, spread.n_known) == (SESSION_SD, 0)
    assert session_spread([*alone, *sessions([0.0], setting="batch 0")], "block").n_known == 2


STUDENT_4 = 2.776445105 / 1.959963985
"""Student's t over the normal distribution's, 97.5 % and 4 degrees of freedom, any table."""


def test_the_constant_weighs_as_much_as_a_few_sessions() -> None:
    # Around their mean -0.02, 0 and 0.02: 2 degrees of freedom, sum of squares 0.0008.
    spread = session_spread(sessions([-0.02, 0.0, 0.02]), "block")
    expected = (2 * SESSION_SD**2 + 0.0008) / (2 + 2)
    assert spread.sd == pytest.approx(STUDENT_4 * math.sqrt(expected))
    assert spread.n_known == 3


def test_what_sessions_do_not_know_of_themselves_is_taken_off() -> None:
    # 0.0008 without 3 × 0.01² × 2/3.
    spread = session_spread(sessions([-0.02, 0.0, 0.02], se=0.01), "block")
    expected = (2 * SESSION_SD**2 + 0.0006) / (2 + 2)
    assert spread.sd == pytest.approx(STUDENT_4 * math.sqrt(expected))


@pytest.mark.parametrize("sd", [0.008, 0.015, 0.03])
def test_many_sessions_tell_the_truth(sd: float) -> None:
    found = [session_spread(drawn(100, sd, 0.005, seed), "block").sd for seed in range(40)]
    assert np.mean(found) == pytest.approx(sd, rel=0.05)
    # A standard deviation of 100 values is known to 1/√200.
    assert np.std(found) < 2 * sd / math.sqrt(200)


def test_quiet_sessions_never_make_it_less_than_the_constant() -> None:
    for se in (0.0, 0.01):
        assert session_spread(sessions([0.0] * 50, se), "block").sd == SESSION_SD


def test_settings_have_levels_of_their_own() -> None:
    apart = [*sessions([-0.01, 0.01]), *sessions([0.49, 0.51], setting="another runtime")]
    expected = (2 * SESSION_SD**2 + 2 * 0.0002) / (2 + 2)
    assert session_spread(apart, "block").sd == pytest.approx(STUDENT_4 * math.sqrt(expected))
    assert session_spread(sessions([-0.01, 0.01, 0.49, 0.51]), "block").sd > 0.05


def test_kinds_of_work_lie_apart_by_themselves() -> None:
    calm = sessions([0.0] * 20)
    wild = [replace(s, kind="network") for s in sessions([-0.03, 0.03] * 10)]
    assert session_spread([*calm, *wild], "block") == session_spread(calm, "block")
    assert session_spread([*calm, *wild], "network").sd > 0.025


def test_one_bad_hour_counts_as_a_slow_mode_and_no_more() -> None:
    usual = [0.001 * (-1) ** i for i in range(20)]
    bad, worse = (session_spread(sessions([*usual, x]), "block").sd for x in (math.log(1.1), 3.0))
    assert worse == pytest.approx(bad, rel=0.03)


@pytest.mark.parametrize("sd", [0.004, 0.015])
def test_intervals_that_know_it_hold_other_sessions(sd: float) -> None:
    """A machine whose sessions differ: the interval's normal part holds 95 % of the others.

    Each session but the first few knows those before it; the truth is the machine's long run.
    """
    rng = np.random.default_rng(3)
    held: list[bool] = []
    for _ in range(60):
        logs = (sd * rng.standard_normal(40)).tolist()
        known = sessions(logs)
        held += [
            abs(logs[i]) <= 1.959963984540054 * session_spread(known[:i], "block").sd
            for i in range(FEW_SESSIONS, 40)
        ]
    assert np.mean(held) > 0.93
