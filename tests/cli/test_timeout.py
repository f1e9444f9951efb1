"""``--timeout``: every command that measures ends a step that has not answered for so long."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from hwprof import api
from hwprof.api.finalists import open_measurer
from hwprof.campaign import Campaign
from hwprof.cli.app import app
from hwprof.errors import DeviceError, HwprofError
from hwprof.measure.records import DeviceOptions, DeviceRef, MeasurePlan
from hwprof.store import Run
from tests.cli.test_devices_compared import COST_MS, make_run
from tests.cli.test_retime import NULL, cells, made_up

HANGS = json.dumps({"faults": [{"label": "*", "stage": "compile", "kind": "hang"}]})
ASKED: dict[str, Any] = {"timeout_s": 0.5, "script": HANGS}
SUITE = "format: 1\nname: one\ndevices: ['null']\nworkloads: [{networks: [proxyless-cpu]}]\n"


def compare(folder: Path) -> object:
    return api.compare("proxyless-cpu", "proxyless-gpu", device="null", **ASKED).to_json()


def suite_run(folder: Path) -> object:
    (folder / "suite.yaml").write_text(SUITE)
    found = api.suite_run(folder / "suite.yaml", out=folder / "base", sessions=1, **ASKED)
    return [failure.why for failure in found.failures]


def retime(folder: Path) -> object:
    searched = made_up(folder / "front", cells(1), NULL)
    return api.retime(searched, out=folder / "times", device="null", **ASKED)


def search(folder: Path) -> object:
    measure = open_measurer(
        *(None, "null", DeviceOptions(script=HANGS)),
        preset=None,
        timeout_s=0.5,
        allow_emulated=False,
        what="a front",
        seed=0,
        progress=None,
    )
    assert measure is not None
    return [getattr(result, "why", result) for result in measure(cells(1))]


@pytest.mark.parametrize("ask", [compare, suite_run, retime, search])
def test_a_step_that_hangs_is_ended_in_time(
    ask: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        told = str(ask(tmp_path))
    except HwprofError as error:
        told = str(error)
    assert " within 0.5 s" in told + caplog.text


def test_adapting_measures_by_the_same_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen(run: Run, campaign: Campaign, device: DeviceRef, plan: MeasurePlan, **_: Any) -> None:
        raise DeviceError(f"a step may take {plan.timeout_s} s")

    monkeypatch.setattr("hwprof.campaign.run_campaign", seen)
    run = make_run(tmp_path, "phone", COST_MS)
    with pytest.raises(DeviceError, match=r"may take 0\.5 s"):
        api.adapt(runs=[run], out=tmp_path / "new", device="null", **ASKED)


def test_every_command_that_measures_takes_it() -> None:
    root: Any = typer.main.get_command(app)
    commands = {**root.commands, "suite run": root.commands["suite"].commands["run"]}
    measuring = ("bench", "compare", "profile", "adapt", "search", "retime", "suite run")
    for name in measuring:
        assert "timeout" in {p.name for p in commands[name].params}, name
