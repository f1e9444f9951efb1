"""A kept measurement stands only for what was measured: same device, options and plan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwprof import api
from hwprof.api.finalists import FinalistMeasurer
from hwprof.errors import IncompatibleRunError
from hwprof.measure.records import DeviceOptions, Measurement, plan_for
from hwprof.space import Architecture, get_space
from hwprof.store import Run


def arch() -> Architecture:
    return get_space("mobile-mini").sample(np.random.default_rng(0))


def test_the_same_question_is_answered_from_the_folder(tmp_path: Path) -> None:
    measure = FinalistMeasurer(tmp_path, "null", DeviceOptions(), plan_for("quick"), None)
    (first,), (again,) = measure([arch()]), measure([arch()])
    assert isinstance(first, Measurement)
    assert isinstance(again, Measurement)
    assert again.level_s == first.level_s


@pytest.mark.parametrize(
    ("options", "preset"), [(DeviceOptions(batch=2), "quick"), (DeviceOptions(), "standard")]
)
def test_another_question_is_refused(options: DeviceOptions, preset: str, tmp_path: Path) -> None:
    FinalistMeasurer(tmp_path, "null", DeviceOptions(), plan_for("quick"), None)([arch()])
    with pytest.raises(IncompatibleRunError):
        FinalistMeasurer(tmp_path, "null", options, plan_for(preset), None)([arch()])


def test_a_search_does_not_hide_another_run(tmp_path: Path) -> None:
    Run.create(tmp_path, "profile", {"space": "mobile-mini"}).close()
    with pytest.raises(IncompatibleRunError, match="a run of 'profile', not of a search"):
        api.search(space="mobile-mini", latency=tmp_path, accuracy="table:a.csv", out=tmp_path)


def test_a_quickstart_does_not_write_beside_another_run(tmp_path: Path) -> None:
    profile, search = tmp_path / "profile", tmp_path / "search"
    Run.create(profile, "profile", {"space": "mobile-mini"}).close()
    search.mkdir()
    (search / "checkpoint.json").write_text("{}")
    for folder, why in ((profile, "a run of 'profile', not of a quickstart"), (search, "a search")):
        before = sorted(folder.iterdir())
        with pytest.raises(IncompatibleRunError, match=why):
            api.quickstart(folder, device="no-device")
        assert sorted(folder.iterdir()) == before


def test_another_question_is_refused_before_the_search_begins(tmp_path: Path) -> None:
    FinalistMeasurer(tmp_path, "null", DeviceOptions(), plan_for("quick"), None)([arch()])
    with pytest.raises(IncompatibleRunError, match=r"options\.batch 1, not 2"):
        api.search(
            space="mobile-mini",
            latency=tmp_path / "never-read",
            accuracy="table:a.csv",
            out=tmp_path,
            measure_on="null",
            batch=2,
        )
