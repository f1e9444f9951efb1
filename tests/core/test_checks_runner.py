"""The self-test as a whole, over real workers that follow a script."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from hwprof.checks import QUICK, selftest
from hwprof.checks.records import CheckResult, CheckSpec, SelftestResult
from hwprof.errors import DeviceUnavailableError, PlanError
from hwprof.measure.process import living_pids
from hwprof.measure.records import DeviceRef
from hwprof.measure.session_spread import SessionSpread
from hwprof.progress import Progress
from hwprof.reports.check_text import selftest_text
from tests.core.scripted import null


def labels(**seconds: float) -> dict[str, Any]:
    return {"labels": seconds}


SPEC = CheckSpec(check=1, name="one", limit=2.0, unit="µs", advice="do this")


def result(*checks: CheckResult) -> SelftestResult:
    return SelftestResult(device="null", checks=checks, seconds=1.0)


def shown(found: SelftestResult) -> str:
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(selftest_text(found.to_json()))
    return console.export_text()


class TestVerdict:
    def test_fit_where_nothing_failed(self) -> None:
        found = result(SPEC.result(2.0, "two"), SPEC.skipped("no such thing"))
        assert found.fit is True
        assert found.verdict.startswith("this machine is fit for measuring on null")
        assert "not done: 1" in found.verdict

    def test_unfit_says_what_to_do(self) -> None:
        found = result(SPEC.result(1.0, "one"), SPEC.result(2.1, "more"))
        assert found.fit is False
        assert found.verdict.endswith("check 1 (one): do this")

    def test_open_where_nothing_was_done(self) -> None:
        found = result(SPEC.skipped("no"))
        assert found.fit is None
        assert "is open" in found.verdict

    def test_json_holds_the_documented_keys(self) -> None:
        data = json.loads(json.dumps(result(SPEC.result(2.1, "more")).to_json(), allow_nan=False))
        assert data["fit"] is False
        (row,) = data["checks"]
        assert (row["check"], row["value"], row["limit"], row["passed"]) == (1, 2.1, 2.0, False)
        assert result(SPEC.result(2.0, "two")).to_frame()["passed"].tolist() == [True]

    def test_says_how_far_sessions_lie_apart(self) -> None:
        found = replace(
            result(SPEC.result(2.0, "two")),
            sessions={"network": SessionSpread(sd=0.015, n_known=12)},
        )
        assert found.to_json()["sessions"] == {"network": {"sd": 0.015, "n_known": 12}}
        said = "a network differs by 1.5% on this machine (standard deviation, 12 known)"
        assert said in shown(found)
        assert "at least ±2.9%" in shown(found)
        few = replace(found, sessions={"network": SessionSpread(sd=0.004, n_known=4)})
        assert "4 known, so that this is mostly assumed" in shown(few)
        assert "differs" not in shown(result())

    def test_bounds(self) -> None:
        least = CheckSpec(check=6, name="six", limit=17, unit="found", advice="x", bound="at least")
        assert [least.result(v, "").passed for v in (16, 17)] == [False, True]
        assert [SPEC.result(v, "").passed for v in (2.0, 2.1)] == [True, False]
        assert SPEC.result(2.0, "", holds=False).passed is False
        assert SPEC.result(3.0, "", limit=3.5).passed is True


def test_checks_run_in_order_and_tell_of_it() -> None:
    events: list[Progress] = []
    latency = labels(identity=5e-6)
    found = selftest(null(latency=latency), checks=[4, 1, 4], progress=events.append)
    assert [c.check for c in found.checks] == [1, 4]
    assert found.fit is True
    assert found.checks[1].value == pytest.approx(5.0, rel=0.01)
    assert (events[0].done, events[-1].done, events[-1].total) == (0, 2, 2)
    assert any("check 4, dispatch: round" in e.label for e in events)
    assert living_pids() == ()


def test_a_slowdown_goes_through_real_workers() -> None:
    found = selftest(null(noise={"call": 0.005}), checks=[6])
    assert found.fit is True
    assert found.checks[0].figures["median_shift_pct"] == pytest.approx(5.0, abs=0.2)


def test_a_plain_loop_goes_through_a_real_worker() -> None:
    (check,) = selftest(null(), checks=[7]).checks
    assert check.passed is True
    assert check.figures["loop_p10_s"] == pytest.approx(check.figures["level_s"], rel=0.02)


@pytest.mark.parametrize(
    ("stage", "kind", "passed"),
    [("supports", "unsupported", None), ("compile", "refuse", None), ("compile", "die", False)],
)
def test_a_device_that_cannot_is_not_one_that_breaks(
    stage: str, kind: str, passed: bool | None
) -> None:
    faults = [{"label": "identity", "stage": stage, "kind": kind}]
    (check,) = selftest(null(faults=faults), checks=[4]).checks
    assert check.passed is passed
    assert check.value is None


def test_unknown_checks_are_refused() -> None:
    with pytest.raises(PlanError, match="check 13; expected numbers from 1 to 12"):
        selftest(null(), checks=[1, 13])
    with pytest.raises(PlanError, match="empty"):
        selftest(null(), checks=[])


def test_a_device_that_is_not_there_is_no_verdict_on_the_machine() -> None:
    with pytest.raises(DeviceUnavailableError):
        selftest(DeviceRef(name="x", factory="hwprof.nowhere:X"), checks=[1])


def test_quick_is_the_documented_choice() -> None:
    assert QUICK == (1, 2, 3, 4, 10, 12)
