"""What README shows is what runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_python_lines_run(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    # The scripted device gives the same calls the same types, without minutes of measuring.
    code = code.replace('device="cpu"', 'device="null"')
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (tmp_path / "reduced.yaml").exists()
    assert "n_networks" in done.stdout
    assert done.stdout.rstrip().endswith(("clean", "noisy", "unconfirmed", "drifting"))


def test_every_command_that_readme_shows_exists() -> None:
    shown = set(re.findall(r"^hwprof (\w+)", README, re.MULTILINE))
    assert {"devices", "bench", "profile", "search", "report"} <= shown
    done = subprocess.run(
        [sys.executable, "-m", "hwprof", "--help"], capture_output=True, text=True, check=True
    )
    for command in shown:
        assert re.search(rf"^  {command} ", done.stdout, re.MULTILINE), command


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("target", ["quickstart", "test"])
def test_the_two_commands_are_targets_of_make(target: str) -> None:
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("version", ["3, 10", "3, 15"])
def test_make_refuses_a_python_that_the_pinned_packages_do_not_know(
    version: str, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    played = f'{sys.executable} -c "import sys; sys.version_info = ({version}); $2"'
    python.write_text(f'#!/bin/sh\n[ "$1" = -V ] && exec echo {version}\nexec {played}\n')
    python.chmod(0o755)
    command = ["make", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}", "quickstart"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"is {version}; expected 3.11 to 3.14" in done.stdout
    assert not (tmp_path / "venv").exists()
