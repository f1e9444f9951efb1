"""``hwprof selftest``: exit codes, keys, and a real run that ends in a verdict."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.cli.running import hwprof, hwprof_here

SOUND = {"latency": {"labels": {"identity": 4e-6}}}


def selftest(*options: str) -> subprocess.CompletedProcess[str]:
    return hwprof("selftest", *options)


def scripted(checks: str, **script: Any) -> subprocess.CompletedProcess[str]:
    told = json.dumps(script)
    return selftest("--device", "null", "--script", told, "--checks", checks, "--json")


def test_fit_is_exit_0() -> None:
    done = scripted("1,4", **SOUND)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fit"] is True
    assert [c["check"] for c in found["checks"]] == [1, 4]
    assert all({"check", "value", "limit", "passed"} <= set(c) for c in found["checks"])


def test_unfit_is_exit_3_with_what_to_do() -> None:
    done = scripted("1,4", clock={"step_ns": 900}, **SOUND)
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert found["fit"] is False
    assert [c["passed"] for c in found["checks"]] == [False, True]
    assert "clocksource" in found["verdict"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--checks", "1,99"), "expected numbers from 1 to 12"),
        (("--checks", "one"), "expected numbers such as 1,2,5"),
        (("--quick", "--checks", "1"), "leave out"),
        (("--device", "nul"), "did you mean 'null'"),
        (("--quick", "--trials", "9"), "--trials goes with --inject"),
    ],
)
def test_a_users_mistake_is_exit_2_in_one_line(options: tuple[str, ...], message: str) -> None:
    done = hwprof_here("selftest", *options)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_real_quick_run_ends_in_a_verdict() -> None:
    done = selftest("--device", "cpu", "--quick")
    assert done.returncode in (0, 3), done.stderr
    text = " ".join(done.stdout.split())
    assert ("this machine is fit" in text) is (done.returncode == 0)
    assert ("this machine is unfit" in text) is (done.returncode == 3)
    for name in ("clock pair", "busy wait", "fixed work", "dispatch", "page faults", "simulated"):
        assert name in text
