"""The command line, run as a user runs it."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from hwprof.cli import main


def hwprof(
    *argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hwprof", *argv],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def hwprof_here(*argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``hwprof`` in this process, which has imported all it needs: for mistakes, told at once."""
    out, told = io.StringIO(), io.StringIO()
    with (
        chdir(cwd or "."),
        redirect_stdout(out),
        redirect_stderr(told),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["hwprof", *argv])
        with pytest.raises(SystemExit) as end:
            main()
    code = end.value.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(argv, code, out.getvalue(), told.getvalue())
