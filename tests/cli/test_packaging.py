"""The wheel and the sdist hold the whole product and run outside the clone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("hwprof/devices/cpu.py", "hwprof/search/strategies/nsga2.py", "hwprof/reports/html.py")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    # Without isolation, so that building needs no network.
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    return out


def test_wheel_holds_every_part(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= {*PARTS, "hwprof/py.typed", "hwprof/reports/templates/report.html"}
    assert "hwprof/regression/suites/stock.yaml" in names
    assert not [n for n in names if n.startswith(("devices/", "search/", "reports/", "tests/"))]


def test_sdist_holds_every_part(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {*PARTS, "pyproject.toml"}


def test_wheel_runs_outside_the_clone(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    # A folder of the user's with the name of one of our top-level folders must not matter.
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "__init__.py").write_text("raise RuntimeError('shadowed')")
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "hwprof", "spaces", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"proxylessnas", "mobile-mini"} <= {row["space"] for row in json.loads(done.stdout)}
    where = subprocess.run(
        [sys.executable, "-c", "import hwprof.search; print(hwprof.search.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
