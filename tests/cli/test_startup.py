"""`hwprof --help` answers at once because it imports nothing heavy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Collection
from typing import Any, get_args

import pytest
import typer

from hwprof.api.exporting import EXPORT_FORMATS
from hwprof.campaign import DESIGNS
from hwprof.cli.app import app
from hwprof.measure.records import PRESETS
from hwprof.search.proxyless.penalties import PenaltyKind
from hwprof.search.proxyless.steps import MODES
from hwprof.search.scoring.proxies import PROXIES
from hwprof.search.strategy import APART, STRATEGIES

HEAVY = {"numpy", "onnx", "onnxruntime", "pandas", "matplotlib", "scipy", "torch", "sklearn"}
COMMANDS = (
    *("quickstart", "devices", "spaces", "cost", "profile", "import", "effects", "predict"),
    *("reduce", "train", "search", "export", "report", "bench", "compare"),
)
PROBE = """
import json, sys
from hwprof.cli import main
sys.argv = ["hwprof", *{argv!r}]
try:
    main()
except SystemExit:
    pass
sys.stderr.write(json.dumps(sorted({{m.split(".")[0] for m in sys.modules}})))
"""


def loaded_modules(*argv: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(argv=list(argv))],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_imports_no_heavy_package() -> None:
    assert not HEAVY & loaded_modules("--help")


def test_help_of_a_command_imports_no_heavy_package() -> None:
    assert not HEAVY & loaded_modules("search", "--help")


@pytest.mark.parametrize(
    ("command", "option", "known"),
    [
        ("search", "strategy", [*STRATEGIES, *APART]),
        ("search", "mode", MODES),
        ("search", "penalty", get_args(PenaltyKind)),
        ("search", "accuracy", PROXIES),
        ("search", "preset", PRESETS),
        ("bench", "preset", PRESETS),
        ("export", "format_", EXPORT_FORMATS),
        ("profile", "design", DESIGNS),
    ],
)
def test_help_names_all_that_is_known(command: str, option: str, known: Collection[str]) -> None:
    # Most of what knows the names imports numpy, which help must not: so the text repeats them.
    group: Any = typer.main.get_command(app)
    (help_,) = [p.help for p in group.commands[command].params if p.name == option]
    assert [name for name in known if name not in help_] == []


def test_import_hwprof_imports_no_heavy_package() -> None:
    code = "import sys, hwprof; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(ast_list(done.stdout))


def ast_list(text: str) -> list[str]:
    import ast

    value = ast.literal_eval(text)
    assert isinstance(value, list)
    return value


def test_every_contract_command_is_there() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hwprof", "--help"], capture_output=True, text=True, check=True
    )
    for command in COMMANDS:
        assert f" {command} " in done.stdout, command


@pytest.mark.parametrize(
    ("group", "one"), [([], "suite"), (["suite"], "run"), (["devices"], "add")]
)
def test_every_command_is_described_in_full(group: list[str], one: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hwprof", *group, "--help"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    commands = done.stdout.partition("Commands:")[2]
    assert f" {one} " in commands
    assert "..." not in commands


def test_on_windows_one_line_names_wsl() -> None:
    code = "import sys, hwprof.cli; sys.platform = 'win32'; hwprof.cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hwprof: Windows itself cannot run it; install and run it inside")
    assert len(done.stderr.splitlines()) == 1


def help_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hwprof", *command, "--help"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_commands_are_listed_in_the_order_in_which_a_newcomer_needs_them() -> None:
    listed = re.findall(r"^  (\w+)  ", help_of().partition("Commands:")[2], re.MULTILINE)
    assert listed[:4] == ["quickstart", "devices", "selftest", "bench"]
    assert listed.index("profile") < listed.index("reduce") < listed.index("search")


@pytest.mark.parametrize("command", ["search", "profile", "bench", "reduce", "train"])
def test_every_option_names_the_kind_of_its_value(command: str) -> None:
    options = help_of(command).partition("Options:")[2]
    assert re.findall(r"--[a-z-]+ <", options) == []
    # A limit that no one meets is in the message of who does.
    assert not re.search(r"\d{9}", options)
