"""``hwprof devices``: what is here, what was given a name, and mistakes in one line."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli import running

CONTRACT_KEYS = {"name", "available", "reason", "runtime", "runtime_version", "hardware"}


def hwprof(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return running.hwprof(*arguments, env={**os.environ, "XDG_CONFIG_HOME": str(home)})


def test_devices_alone_and_devices_list_say_the_same(tmp_path: Path) -> None:
    alone = hwprof(tmp_path, "devices", "--json")
    assert alone.returncode == 0
    assert alone.stdout == hwprof(tmp_path, "devices", "list", "--json").stdout
    rows = json.loads(alone.stdout)
    assert all(set(row) >= CONTRACT_KEYS for row in rows)
    assert {"cpu", "null"} <= {row["name"] for row in rows}


def test_a_device_that_was_given_a_name_is_listed(tmp_path: Path) -> None:
    added = hwprof(tmp_path, "devices", "add", "pi", "ssh://pi@10.0.0.2?emulated=yes")
    assert added.returncode == 0
    assert "hwprof devices check pi" in added.stderr
    (row,) = [
        r
        for r in json.loads(hwprof(tmp_path, "devices", "--json").stdout)
        if r["name"] == "NAME@pi"
    ]
    assert row["emulated"] is True
    assert "ssh://pi@10.0.0.2?emulated=yes" in row["hardware"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["devices", "add", "pi", "http://pi"], 2, "expected ssh://user@host:port"),
        (["devices", "add", "-pi", "ssh://pi"], 2, "No such option"),
        (["devices", "check", "nowhere"], 2, "no device is remembered as 'nowhere'"),
        (["devices", "--json", "list"], 2, "put it behind"),
        (["devices", "check", "ssh://127.0.0.1:1"], 3, "does not answer"),
        (["bench", "proxyless-cpu", "--device", "cpu@nowhere"], 2, "no device is remembered"),
        (["bench", "proxyless-cpu", "--device", "cpu@ssh://127.0.0.1:1"], 3, "does not answer"),
        (["bench", "proxyless-cpu", "--sustained"], 2, "on another machine, not 'cpu'"),
        (["selftest", "--device", "cpu@ssh://127.0.0.1:1"], 2, "log in there and run"),
    ],
)
def test_mistakes_are_one_line_with_their_exit_code(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    done = hwprof(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
