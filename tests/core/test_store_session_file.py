"""Sessions kept from one command to the next."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hwprof.measure.records import Fingerprint
from hwprof.measure.session_spread import SessionLevel
from hwprof.store.session_file import MOST_KNOWN, SessionFile

HERE = Fingerprint(
    stable={"device": "cpu", "hardware": "some CPU", "cores": 2, "threads": 1, "runtime": "a"}
)
ONE = SessionLevel(kind="block", setting="x hot 0", level_s=2e-5, se=0.001)


def other(**facts: str | int) -> Fingerprint:
    return replace(HERE, stable={**HERE.stable, **facts})


def test_what_was_kept_is_known_to_the_next_command(tmp_path: Path) -> None:
    folder = tmp_path / "not there yet"
    assert SessionFile(folder).known(HERE) == ()
    SessionFile(folder).add(HERE, ONE)
    other_kind = replace(ONE, kind="network", level_s=3e-3)
    SessionFile(folder).add(HERE, other_kind)
    assert SessionFile(folder).known(HERE) == [ONE, other_kind]


def test_another_runtime_is_the_same_machine_and_another_cpu_is_not(tmp_path: Path) -> None:
    file = SessionFile(tmp_path)
    file.add(HERE, ONE)
    assert file.known(other(runtime="b", kernel="new")) == [ONE]
    for facts in ({"hardware": "another CPU"}, {"threads": 2}, {"device": "cpu-torch"}):
        assert file.known(other(**facts)) == ()


def test_the_latest_count(tmp_path: Path) -> None:
    file = SessionFile(tmp_path)
    for i in range(MOST_KNOWN + 5):
        file.add(HERE, replace(ONE, level_s=float(i + 1)))
    known = file.known(HERE)
    assert (len(known), known[0].level_s) == (MOST_KNOWN, 6.0)


def test_it_is_below_the_users_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    SessionFile().add(HERE, ONE)
    (path,) = (tmp_path / "hwprof" / "sessions").iterdir()
    (row,) = map(json.loads, path.read_text().splitlines())
    assert (row["level_s"], row["hardware"]) == (2e-5, "some CPU")


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"kind": "tree", "setting": "x", "level_s": 1.0, "se": 0.0}', "7", '{"setting": "x"}', '{"kind": "block", "setting": "x", "level_s": -1.0, "se": 0.0}',
             '{"kind": "block", "setting": "x", "level_s": NaN, "se": 0.0}'],
)  # fmt: skip
def test_a_damaged_line_is_told_and_left_out(
    line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = SessionFile(tmp_path)
    file.add(HERE, ONE)
    with file.path(HERE).open("a") as text:
        text.write(line + "\n")
    file.add(HERE, ONE)
    with caplog.at_level(logging.WARNING):
        assert file.known(HERE) == [ONE, ONE]
    assert "1 damaged" in caplog.text
    assert str(file.path(HERE)) in caplog.text


def test_what_cannot_be_written_or_read_is_told_and_measuring_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a file").write_text("")
    file = SessionFile(tmp_path / "a file" / "sessions")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):  # groups of a campaign
            file.add(HERE, ONE)
            assert file.known(HERE) == ()
    assert caplog.text.count("XDG_STATE_HOME") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="homes are found otherwise there")
def test_a_user_without_a_home_measures_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    with caplog.at_level(logging.WARNING):
        SessionFile().add(HERE, ONE)
        assert SessionFile().known(HERE) == ()
    assert "home" in caplog.text
