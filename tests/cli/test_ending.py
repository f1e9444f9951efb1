"""How a command ends: its exit code is never 1, a regression, for anything else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.running import hwprof

COMMAND = (sys.executable, "-m", "hwprof")


@pytest.mark.parametrize("argv", [["spaces"], ["spaces", "--json"]])
def test_a_reader_that_has_gone_is_no_regression(argv: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, *argv], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("argv", [["spaces"], ["spaces", "--json"]])
def test_a_result_that_cannot_be_written_is_said(argv: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *argv], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("hwprof: cannot write the result to standard output: No space")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="closes streams by a shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_closed_streams_cost_no_result(closed: str, tmp_path: Path) -> None:
    command = f'exec "$0" -m hwprof export proxyless-gpu --out net.onnx {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "net.onnx").stat().st_size > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it may not be removed")
def test_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    command = 'mkdir gone && cd gone && rmdir ../gone && exec "$0" -P -m hwprof bench x'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "hwprof: the working directory was removed: change to another one\n"


def test_a_terminal_without_a_character_shows_the_rest(tmp_path: Path) -> None:
    arch = json.loads(hwprof("cost", "proxyless-mobile", "--json").stdout)["arch"]
    (tmp_path / "réseau.json").write_text(json.dumps(arch))
    done = subprocess.run(
        [*COMMAND, "cost", "réseau.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert rb"r\xe9seau.json" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a path is text")
def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    argv = [*COMMAND, "profile", "--space", "mobile-mini", "--device", "null", "--no-isolated"]
    done = subprocess.run(
        [*argv, "--networks", "2", "--out", b"run\xff"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_interrupted_profile_says_so_and_goes_on(tmp_path: Path) -> None:
    argv = ["profile", "--space", "mobile-mini", "--device", "null", "--networks", "30"]
    hangs = {"label": "*", "stage": "burst", "kind": "hang", "once": "hangs"}
    argv += ["--no-isolated", "--out", "run", "--json", "--script", json.dumps({"faults": [hangs]})]
    # A shell's background job ignores the signal, and all that it starts inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [*COMMAND, *argv],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as profile:
        while not (tmp_path / "hangs").exists():
            assert profile.poll() is None
            time.sleep(0.02)
        os.killpg(profile.pid, signal.SIGINT)
        out, err = profile.communicate()
    assert profile.returncode == 130
    assert out == ""
    assert "hwprof: interrupted" in err
    assert "Traceback" not in err
    done = hwprof(*argv, cwd=tmp_path)
    assert json.loads(done.stdout)["n_done"] == 30


def test_a_profile_of_which_nothing_could_be_measured_is_no_success(tmp_path: Path) -> None:
    argv = ["profile", "--space", "mobile-mini", "--device", "null", "--networks", "2"]
    argv += ["--no-isolated", "--out", "run", "--json", "--script"]
    refuses = {"label": "network*", "stage": "compile", "kind": "refuse"}
    for _ in range(2):  # the second call tries nothing again
        done = hwprof(*argv, json.dumps({"faults": [refuses]}), cwd=tmp_path)
        assert done.returncode == 3
        assert json.loads(done.stdout)["n_failed"] == 2
        assert "all 2 that were tried failed on null: mend the device" in done.stderr


def test_a_quickstart_on_no_device_ends_before_it_trains(tmp_path: Path) -> None:
    done = hwprof("quickstart", "--device", "cpux", "--out", "quick", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'cpu'?" in done.stderr
    assert list((tmp_path / "quick").iterdir()) == []


def failing(error: str) -> subprocess.CompletedProcess[str]:
    """Run a command inside which an error comes up."""
    script = (
        "import sys, hwprof.api, hwprof.cli\n"
        "def cost(arch):\n"
        f"    raise {error}\n"
        "hwprof.api.cost = cost\n"
        "sys.argv = ['hwprof', 'cost', 'proxyless-gpu']\n"
        "hwprof.cli.main()"
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )


def test_an_interruption_while_commands_are_loaded_shows_no_traceback() -> None:
    script = (
        "import sys, hwprof.cli\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'hwprof.cli.app':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.argv = ['hwprof', 'spaces']\n"
        "hwprof.cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert done.stderr.split() == ["hwprof:", "interrupted;", "call", "it", "again"]


@pytest.mark.parametrize(
    "error", ["ZeroDivisionError()", "EOFError()", "OSError(5, 'Input/output error')"]
)
def test_a_defect_is_no_regression(error: str) -> None:
    done = failing(error)
    assert done.returncode == 70
    assert error.partition("(")[0] in done.stderr
    assert "defect of hwprof" in done.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("PermissionError(13, 'Permission denied', 'a')", "'a': Permission denied; name another"),
        ("OSError(30, 'Read-only file system', 'a')", "'a': Read-only file system; name another"),
        ("OSError(24, 'Too many open files')", "Too many open files; raise that limit (ulimit -a"),
        ("BlockingIOError(11, 'Try again')", "the system refuses: Try again; raise that limit"),
        ("OSError(28, 'No space left on device')", "No space left on device; free some space"),
    ],
)
def test_what_the_system_refuses_is_no_defect(error: str, told: str) -> None:
    done = failing(error)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_error_that_cannot_be_said_is_no_regression() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "cost", "missing.json"], stderr=full, check=False)
    assert done.returncode == 2
