"""docs/own-space.md is run as it stands, and mistakes in a space file are named."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli.running import hwprof

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "own-space.md").read_text()


def code(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def write_page(folder: Path) -> None:
    blocks = [text for text in code("python") if text.startswith("# file: my_blocks.py")]
    assert len(blocks) == 2
    (folder / "my_blocks.py").write_text("\n".join(blocks))
    (yaml,) = code("yaml")
    (folder / "my_space.yaml").write_text(yaml)
    (arch,) = code("json")
    (folder / "arch.json").write_text(arch)


def run(
    argv: list[str], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    bare = {k: v for k, v in os.environ.items() if k != "HWPROF_SPACES"}
    return hwprof(*argv, cwd=folder, env={**bare, **(environment or {})})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    write_page(folder)
    return folder


@pytest.mark.slow
def test_every_command_of_the_page_runs(page: Path) -> None:
    lines = [line for block in code("sh") for line in block.splitlines()]
    assert lines[0] == "export HWPROF_SPACES=$PWD/my_space.yaml"
    listed = {"HWPROF_SPACES": str(page / "my_space.yaml")}
    commands = [line.split() for line in lines[1:]]
    assert {c[1] for c in commands} >= {
        *("spaces", "cost", "profile", "effects", "predict", "reduce", "train"),
        *("search", "export", "report"),
    }
    for command in commands:
        assert command[0] == "hwprof"
        done = run(command[1:], page, listed)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    assert (page / "page" / "index.html").exists()
    assert (page / "net.onnx").stat().st_size > 0
    # The architecture's MACs are the sum by hand.
    cost = json.loads(run(["cost", "arch.json", "--json"], page, listed).stdout)
    assert cost["macs"] == macs_by_hand()


def macs_by_hand() -> int:
    """Sum output pixels times weights over the convolutions of arch.json, written out."""
    stem = 16 * 16 * 8 * 27
    first = 16 * 16 * 8 * 9 + 16 * 16 * 8 * 8
    ghost = 16 * 16 * 16 * 8 + 8 * 8 * 32 * 9 + 8 * 8 * 16 * 32
    mbconv = 8 * 8 * 48 * 16 + 8 * 8 * 48 * 9 + 8 * 8 * 16 * 48
    plain = 4 * 4 * 24 * 16 * 9
    head = 4 * 4 * 32 * 24 + 32 * 10
    return stem + first + ghost + mbconv + plain + head


def test_the_entry_point_s_space_is_one() -> None:
    text = next(t for t in code("python") if "def my_space" in t)
    found: dict[str, object] = {}
    exec(text, found)  # noqa: S102 - the page's own code
    space = found["my_space"]()  # type: ignore[operator]
    assert space.name == "my-space"
    assert space.size().n_encodings == 6


def test_a_space_of_an_entry_point_is_found(page: Path, tmp_path: Path) -> None:
    text = next(t for t in code("python") if "def my_space" in t)
    (tmp_path / "pointed.py").write_text(text.replace('"my-space"', '"pointed-space"'))
    info = tmp_path / "pointed-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pointed\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[hwprof.spaces]\npointed-space = pointed:my_space\n")
    done = run(["spaces", "pointed-space", "--json"], page, {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_encodings"] == 6


MISTAKES = {
    "unknown field": ("n_classes: 10", "n_class: 10", "line 5: unknown field n_class"),
    "missing field": ("resolution_px: 32\n", "", "resolution_px is missing; expected"),
    "absurd size": ("resolution_px: 32", "resolution_px: 1000000000",
                    "resolution_px is 1000000000; expected an image side of 8 to 8192"),
    "not a number": ("n_classes: 10", "n_classes: ten", "line 5: n_classes is 'ten'"),
    "wrong stride": ("stride: 2, depth: [1, 2], act: relu, blocks: [ghost_k3, plain]",
                     "stride: 3, depth: [1, 2], act: relu, blocks: [ghost_k3, plain]",
                     "line 12: units[1].stride is 3; expected 1 or 2"),
    "wrong depth": ("depth: [1, 2], act: relu, blocks: [ghost_k3, plain]",
                    "depth: [3, 2], act: relu, blocks: [ghost_k3, plain]",
                    "line 12: units[1].depth is [3, 2]; expected [least, most]"),
    "unknown block": ("ghost_k5", "gost_k5", "'gost_k5' is no block"),
    "even kernel": ("ghost_k5", "mbconv_k4_e3", "odd kernel"),
    "taken name": ("my-space", "mobile-mini", "line 3: design_space is 'mobile-mini'"),
    "unknown activation": ("head: {channels: 32, act: relu}", "head: {channels: 32, act: gelu}",
                           "line 13: head.act is 'gelu'; expected one of relu, relu6, hswish, none"),
    "shortcut that cannot be": ("first: {channels: 8,", "first: {channels: 16,",
                                "first.shortcut is True; expected false"),
    "width below 0": ("head: {channels: 32, act: relu}",
                      "head: {channels: 32, act: relu, last_channels: -8}",
                      "line 13: head.last_channels is -8; expected a whole number from 0 up"),
    "no epsilon": ("bn_eps: 1.0e-5", "bn_eps: -1", "line 6: bn_eps is -1; expected a number above"),
    "no module": ("my_blocks.py\nstem", "other.py\nstem", "blocks is 'other.py'"),
    "no YAML": ("units:", "units: [", "is no YAML"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str, tmp_path: Path) -> None:
    old, new, message = MISTAKES[name]
    write_page(tmp_path)
    file = tmp_path / "my_space.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    done = run(["spaces", "my_space.yaml"], tmp_path)
    assert done.returncode == 2
    assert "my_space.yaml" in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_block_that_returns_another_shape_is_refused(tmp_path: Path) -> None:
    write_page(tmp_path)
    blocks = tmp_path / "my_blocks.py"
    blocks.write_text(
        blocks.read_text().replace(
            "stride=place.stride,\n        short", "stride=1,\n        short"
        )
    )
    done = run(["spaces", "my_space.yaml"], tmp_path)
    assert done.returncode == 2
    assert "its place asks for" in done.stderr


def test_a_run_is_not_gone_on_with_when_the_space_changed(tmp_path: Path) -> None:
    write_page(tmp_path)
    profile = ["profile", "--space", "my_space.yaml", "--device", "null", "--no-isolated"]
    first = run([*profile, "--networks", "2", "--out", "run"], tmp_path)
    assert first.returncode == 0, first.stderr
    file = tmp_path / "my_space.yaml"
    file.write_text(file.read_text().replace("head: {channels: 32", "head: {channels: 64"))
    again = run([*profile, "--networks", "4", "--out", "run"], tmp_path)
    assert again.returncode == 2
    assert "own_space.head.channels" in again.stderr


def test_a_run_executes_nothing_that_it_names(tmp_path: Path) -> None:
    write_page(tmp_path)
    profile = ["profile", "--space", "my_space.yaml", "--device", "null", "--no-isolated"]
    first = run([*profile, "--networks", "2", "--out", "run"], tmp_path)
    assert first.returncode == 0, first.stderr
    blocks = tmp_path / "my_blocks.py"
    blocks.write_text(f"{blocks.read_text()}\nfrom pathlib import Path\nPath('ran').touch()\n")
    done = run(["effects", "run"], tmp_path)
    assert done.returncode == 2
    assert not (tmp_path / "ran").exists()
    assert "HWPROF_SPACES=my_space.yaml" in done.stderr
    assert done.stderr.count("\n") == 1
    # The user may still name the space, and so the code of its blocks.
    named = run(["effects", "run"], tmp_path, {"HWPROF_SPACES": str(tmp_path / "my_space.yaml")})
    assert (tmp_path / "ran").exists()
    assert "HWPROF_SPACES" not in named.stderr


def test_a_run_brings_a_space_without_code_of_its_own(tmp_path: Path) -> None:
    write_page(tmp_path)
    file = tmp_path / "my_space.yaml"
    plain = file.read_text().replace("blocks: my_blocks.py\n", "")
    file.write_text(
        re.sub(r"ghost_k(\d)", r"mbconv_k\1_e6", plain).replace("plain", "mbconv_k5_e3")
    )
    profile = ["profile", "--space", "my_space.yaml", "--device", "null", "--no-isolated"]
    first = run([*profile, "--networks", "40", "--out", "run"], tmp_path)
    assert first.returncode == 0, first.stderr
    assert run(["effects", "run"], tmp_path).returncode == 0
