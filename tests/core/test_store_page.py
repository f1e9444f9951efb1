"""What docs/measuring.md says of run.db is what stands there."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hwprof.store import Run
from hwprof.workload import Workload
from tests.core.test_store import REQUEST, arch, burst

PAGE = (Path(__file__).parents[2] / "docs" / "measuring.md").read_text()
SECTION = PAGE.partition("## The raw samples")[2].partition("\n## ")[0]


def test_the_page_s_reading_of_raw_samples_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = burst(1)
    with Run.create("run", "profile", REQUEST) as run:
        run.burst(Workload.network(arch(), "net"), burst(0))  # a warm-up: the page leaves it out
        run.burst(Workload.network(arch(), "net"), kept)
        (code,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
        exec(code, {})  # noqa: S102 - the page's own code, while the run is open
    label, least_s = capsys.readouterr().out.split()
    assert label == "net"
    assert float(least_s) == pytest.approx(kept.burst.duration_ns.min() * 1e-9 / 3)


def test_the_page_names_every_table(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", "profile", REQUEST).close()
    with closing(sqlite3.connect(tmp_path / "run" / "run.db")) as db:
        tables = {
            name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type='table'")
        }
    named = set(
        re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", SECTION, re.MULTILINE)))
    )
    assert named == tables
