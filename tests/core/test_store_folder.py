"""What a run folder is made of: its description, and what of it is refused."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from hwprof.errors import FormatVersionError, StoreError
from hwprof.estimate.run_analysis import run_space
from hwprof.store import Run

REQUEST = {"space": "mobile-mini", "resolution_px": 32, "networks": 3}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_another_format_is_refused(path: Path) -> None:
    Run.create(path, "profile", REQUEST).close()
    data = json.loads((path / "run.json").read_text())
    assert data["format"] == 1
    (path / "run.json").write_text(json.dumps({**data, "format": 2}))
    for opener in (Run.open, lambda p: Run.create_or_resume(p, "profile", REQUEST)):
        with pytest.raises(FormatVersionError, match=r"format 2; this version of hwprof reads 1"):
            opener(path)


def test_another_schema_is_refused(path: Path) -> None:
    Run.create(path, "profile", REQUEST).close()
    with sqlite3.connect(path / "run.db") as db:
        db.execute("PRAGMA user_version=9")
    db.close()
    for opener in (Run.open, lambda p: Run.create_or_resume(p, "profile", REQUEST)):
        with pytest.raises(FormatVersionError, match=r"format 9"):
            opener(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', "[" * 10**5])
def test_a_damaged_description_is_said_so(path: Path, text: str) -> None:
    Run.create(path, "profile", REQUEST).close()
    (path / "run.json").write_text(text)
    with pytest.raises(StoreError, match="is damaged"):
        Run.open(path)
    with pytest.raises(StoreError, match="is damaged"):
        Run.create_or_resume(path, "profile", REQUEST)


@pytest.mark.parametrize(
    "changed",
    [
        {"resolution_px": None},
        {"max_depth": [], "alive": {}},
        {"max_depth": ["x"], "alive": {}},
        {"alive": {}},
        {"max_depth": [2, 2, 2], "alive": None},
        {"own_space": [[1]]},
    ],
)
def test_a_damaged_request_is_said_so(path: Path, changed: dict[str, object]) -> None:
    run = Run.create(path, "profile", {**REQUEST, **changed})
    with run, pytest.raises(StoreError, match=r"run\.json' is damaged") as caught:
        run_space(run)
    assert "\n" not in str(caught.value)
