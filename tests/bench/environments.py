"""Throw-away virtual environments with published versions of a runtime."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path


@contextmanager
def environment(*requirements: str) -> Iterator[str]:
    """Install packages from the package index beside numpy; yield the environment's Python."""
    with tempfile.TemporaryDirectory(prefix="hwprof-environment-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # What pip says goes to stderr: standard output may be the page.
        subprocess.run([*install, "numpy", *requirements], check=True, stdout=sys.stderr)
        yield python


def installed(distribution: str) -> str:
    """Return the requirement of the version that runs here."""
    return f"{distribution}=={version(distribution)}"
