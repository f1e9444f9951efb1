"""The recipes of docs/ci.md: their hwprof and pytest lines are run, the rest is accounted for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from hwprof import api

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "ci.md").read_text()
NOT_RUN = ("python -m venv", "python -m pip", ".venv-old/bin/python -m pip", "git ")
"""What needs a network or a repository."""


def recipes() -> list[Any]:
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def lines(recipe: object) -> Iterator[str]:
    """Yield every shell line of a recipe, of either build server."""
    if isinstance(recipe, dict):
        for key, value in recipe.items():
            if key in ("run", "script", "before_script"):
                yield from value.splitlines() if isinstance(value, str) else value
            else:
                yield from lines(value)
    elif isinstance(recipe, list):
        for item in recipe:
            yield from lines(item)


def commands(index: int) -> list[str]:
    """Return the lines of a recipe that are run here."""
    return [line for line in lines(recipes()[index]) if not line.startswith(NOT_RUN)]


def shell(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_recipe_uses_a_secret_or_may_write() -> None:
    assert "secrets." not in PAGE
    assert "pull_request_target" not in PAGE
    assert recipes()[0]["permissions"] == {"contents": "read"}


def test_every_line_is_run_here_or_needs_a_network() -> None:
    ran = [line for i in range(len(recipes())) for line in commands(i)]
    assert all(line.startswith(("hwprof ", "pytest ", "cat ")) for line in ran)
    assert len(ran) == 7


@pytest.mark.parametrize("index", [0, 1])
def test_side_by_side(index: int, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in "xy"]
    node = helper.make_node("Relu", ["x"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", value[:1], value[1:]))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    compare, *rest = commands(index)
    # The scripted device, so that the verdict does not depend on this machine.
    compare = compare.replace(".venv-old/bin/python", sys.executable) + " --device null"
    done = shell(compare, tmp_path)
    assert done.returncode == 0, done.stderr
    for line in rest:
        step = shell(line, tmp_path, GITHUB_STEP_SUMMARY=str(tmp_path / "step.md"))
        assert step.returncode == 0, step.stderr
    assert "1 equivalent" in (tmp_path / "summary.md").read_text()
    assert ElementTree.parse(tmp_path / "latency.xml").getroot().attrib["tests"] == "1"
    assert "not slower" in (tmp_path / "latency.svg").read_text()
    if rest:
        assert "1 equivalent" in (tmp_path / "step.md").read_text()


def test_against_a_commits_baseline(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(
        'format: 1\ndevices: ["null"]\nworkloads:\n  - networks: [proxyless-gpu]\n'
    )
    variables = {
        "BASELINES": str(tmp_path / "baselines"),
        "CI_COMMIT_SHA": "bbb2",
        "CI_COMMIT_BEFORE_SHA": "aaa1",
    }
    api.suite_run(tmp_path / "suite.yaml", out=tmp_path / "baselines" / "aaa1")
    for line in commands(2):
        done = shell(line, tmp_path, **variables)
        assert done.returncode == 0, done.stderr
    assert "1 equivalent" in (tmp_path / "suite.md").read_text()


def test_under_pytest(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "test_model.py").write_text(
        "def test_model(hwprof_benchmark):\n"
        '    hwprof_benchmark.model("proxyless-gpu", device="null")\n'
    )
    measure, compare = commands(3)
    assert shell(measure, tmp_path).returncode == 0
    shutil.copy(tmp_path / "bench.json", tmp_path / "bench-base.json")
    done = shell(compare, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 inconclusive" in (tmp_path / "bench.md").read_text()
