"""A user's mistake gets one line that says what to do, exit code 2, and no traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from hwprof.cli.app import app
from tests.cli.running import hwprof, hwprof_here

CELL = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"
OTHER_CELL = CELL.replace("avg_pool_3x3", "nor_conv_3x3")


def mini(resolution_px: int) -> str:
    units = [["mbconv_k3_e3"]] * 3
    return json.dumps({"space": "mobile-mini", "resolution_px": resolution_px, "units": units})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "damaged.onnx").write_bytes(b"\x08\x09 this is no model")
    (tmp_path / "text.json").write_text("{not json")
    wrong_block = {
        "space": "mobile-mini",
        "resolution_px": 32,
        "units": [["mbconv_k9_e3"], ["mbconv_k3_e3"], ["mbconv_k3_e3"]],
    }
    (tmp_path / "wrong_block.json").write_text(json.dumps(wrong_block))
    other_version = tmp_path / "other_version"
    other_version.mkdir()
    (other_version / "run.json").write_text(json.dumps({"format": 99, "kind": "profile"}))
    (other_version / "run.db").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name, content in (
        ("search", '{"format": 1, "space": "mobile-mini"}'),
        ("list_search", "[]"),
        ("quick", '{"requ'),
    ):
        (tmp_path / name).mkdir()
        file = "quickstart.json" if name == "quick" else "search.json"
        (tmp_path / name / file).write_text(content)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "words.yaml").write_text("just words")
    (tmp_path / "nan.csv").write_text(f"arch,latency_ms\n{CELL},12.5\n{OTHER_CELL},nan\n")
    (tmp_path / "twice.csv").write_text(f"arch,latency_ms\n{CELL},12.5\n{CELL},12.6\n")
    return tmp_path


MISTAKES = {
    "unknown space": (["spaces", "proxylesnas"], "proxylessnas"),
    "unknown device": (["bench", "proxyless-gpu", "--device", "gpu"], "cpu"),
    "unknown architecture": (["cost", "proxyless-phone"], "proxyless-"),
    "missing file": (["cost", "missing.json"], "missing.json"),
    "not JSON": (["cost", "text.json"], "text.json"),
    "block that does not fit": (["cost", "wrong_block.json"], "mbconv_k9_e3"),
    "damaged model": (["bench", "damaged.onnx", "--preset", "quick"], "damaged.onnx"),
    "missing model": (["bench", "missing.onnx"], "missing.onnx"),
    "model of another kind": (["bench", "bytes.yaml"], "or a model as .onnx, .tflite or package."),
    "unknown preset": (["bench", "proxyless-gpu", "--preset", "fast"], "standard"),
    "wrong input": (["bench", "damaged.onnx", "--input", "x=3by3"], "NAME="),
    "not a run": (["effects", "empty"], "empty"),
    "run of another version": (["effects", "other_version"], "99"),
    "report of nothing": (["report", "empty", "--out", "page"], "empty"),
    "report of half a search": (["report", "search", "--out", "page"], "search.json"),
    "report of a list": (["report", "list_search", "--out", "page"], "search.json"),
    "report of half a quickstart": (["report", "quick", "--out", "page"], "quickstart.json"),
    "report of bytes": (["report", "bytes.yaml", "--out", "page"], "bytes.yaml"),
    "report of a space that is none": (
        ["report", "words.yaml", "--out", "page"],
        "words.yaml: the file holds str",
    ),
    "unknown format": (["export", "proxyless-gpu", "--format", "onyx", "--out", "x"], "onnx"),
    "no duration": (
        ["profile", "--space", "mobile-mini", "--out", "r", "--max-time", "soon"],
        "--max-time is 'soon'; expected a duration",
    ),
    "no time for a pair": (
        ["compare", "proxyless-gpu", "proxyless-cpu", "--max-time", "0s"],
        "--max-time is '0s'",
    ),
    "no time limit": (
        ["bench", "proxyless-gpu", "--timeout", "1x"],
        "--timeout is '1x'; expected a duration up to a year, such as 90s",
    ),
    "time limit beyond a year": (["bench", "proxyless-gpu", "--timeout", "9999999h"], "a year"),
    "seed below zero": (
        ["profile", "--space", "mobile-mini", "--out", "r", "--seed", "-1"],
        "Invalid value for '--seed'",
    ),
    "seed beyond any": (
        ["train", "--space", "mobile-mini", "--out", "n.pt", "--seed", "9" * 30],
        "expected 9223372036854775807 at most",
    ),
    "an architecture without its side": (
        ["cost", '{"space": "mobile-mini", "units": []}'],
        "resolution_px is missing; expected a positive whole number",
    ),
    "a network for no image": (["cost", mini(-3)], "resolution_px is -3"),
    "a network for an image that nobody has": (
        ["cost", mini(10**9)],
        "resolution_px is 1000000000; expected an image side of 8 to 8192",
    ),
    "a space for no image": (
        ["profile", "--space", "mobile-mini", "--out", "r", "--resolution", "7"],
        "resolution_px is 7; expected an image side of 8 to 8192",
    ),
    "a batch beyond any": (
        ["export", "proxyless-gpu", "--out", "x", "--batch", "9" * 20],
        "expected 2147483647 at most",
    ),
    "batches beyond any": (["bench", "proxyless-gpu", "--batch", "1,9" + "9" * 20], "--batch is"),
    "a folder for a file": (["export", "proxyless-gpu", "--out", "."], "'.': Is a directory"),
    "table with a latency that is none": (
        ["import", "nan.csv", "--space", "nasbench201", "--device-name", "x", "--out", "r"],
        "nan.csv line 3, latency_ms is 'nan'; expected a number above 0",
    ),
    "table with a network twice": (
        ["import", "twice.csv", "--space", "nasbench201", "--device-name", "x", "--out", "r"],
        "twice.csv line 3, arch is that of line 2",
    ),
    "table of another space": (
        ["import", "nan.csv", "--space", "mobile-mini", "--device-name", "x", "--out", "r"],
        "nan.csv line 2, arch: ",
    ),
    "effects that are not there": (
        ["reduce", "--effects", "e.csv", "--space", "mobile-mini"],
        "cannot read the effects 'e.csv': No such file or directory; expected a file that",
    ),
    "unknown fact of a search": (["search", "--space", "mobile-mini", "--out", "s"], "--latency"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line(name: str, folder: Path) -> None:
    argv, expected = MISTAKES[name]
    done = hwprof_here(*argv, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert expected in done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("hwprof: ")]
    assert len(lines) == 1 or "Usage:" in done.stderr


def taking(option: str, group: Any = None, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command that has an option."""
    start: Any = typer.main.get_command(app) if group is None else group
    for word, command in start.commands.items():
        if hasattr(command, "commands"):
            yield from taking(option, command, *path, word)
        elif any(option in parameter.opts for parameter in command.params):
            yield (*path, word)


def test_what_writes_takes_out() -> None:
    words = {command[0] for command in taking("--out")}
    assert words >= {"profile", "import", "adapt", "reduce", "train", "search", "retime", "export"}
    assert words >= {"report", "quickstart", "suite"}


@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize(
    "option", ["--out", "--device-name", "--data", "--csv", "--markdown", "--junit", "--badge"]
)
def test_no_command_takes_an_empty_name(option: str, value: str) -> None:
    commands = list(taking(option))
    assert commands
    for command in commands:
        done = CliRunner().invoke(app, [*command, option, value])
        assert done.exit_code == 2, command
        assert f"'{option}': it is {value!r}; expected a name" in done.output, command


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(folder: Path) -> None:
    locked = folder / "locked"
    locked.mkdir(mode=0o555)
    done = hwprof("export", "proxyless-gpu", "--out", "locked/net.onnx", cwd=folder)
    assert done.returncode == 2
    assert "locked" in done.stderr


def test_a_folder_that_cannot_be_made_is_named(folder: Path) -> None:
    """A file where a folder is asked for stands for every path that cannot be written."""
    for argv in (
        ["export", "proxyless-gpu", "--out", "text.json/net.onnx"],
        ["profile", "--space", "mobile-mini", "--device", "null", "--out", "text.json/run"],
        ["quickstart", "--out", "text.json/quick"],
    ):
        done = hwprof(*argv, cwd=folder)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "text.json" in done.stderr


def test_json_goes_to_stdout_alone(folder: Path) -> None:
    done = hwprof("bench", "proxyless-mobile", "--device", "null", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    expected = {
        *("level_s", "ci95_s", "median_s", "p90_s", "n_samples", "verdict", "evidence"),
        *("peak_memory_bytes", "load_s", "artifact_bytes", "device", "fingerprint"),
    }
    assert expected <= set(result)
