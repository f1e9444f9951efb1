"""A real sshd on 127.0.0.1 plays a board: its own port, keys and configuration."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwprof.devices.remote.board import release_boards

PATIENCE_S = 20.0

CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
MaxSessions 100
ForceCommand {folder}/session
"""

SESSION = """\
#!/bin/sh
# What a login on the pretended board finds: a home of its own, and its python3.
export HOME={home} PATH={bin}:$PATH
cd {home} && exec sh -c "$SSH_ORIGINAL_COMMAND"
"""

CLIENT = """\
#!/bin/sh
# The user's own configuration, as hwprof finds it: where keys and known hosts are.
exec {ssh} -F {folder}/client_config "$@"
"""

CLIENT_CONFIG = """\
Host *
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking no
"""


@dataclass(frozen=True, kw_only=True)
class Loopback:
    """A server that plays a board."""

    port: int
    folder: Path

    @property
    def home(self) -> Path:
        """Where sessions begin."""
        return self.folder / "home"

    @property
    def client_bin(self) -> Path:
        """Goes first on PATH: an ``ssh`` that knows this server."""
        return self.folder / "client"

    @property
    def url(self) -> str:
        """The address for hwprof."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"


def missing() -> str | None:
    """Return why there can be no server here; None where there can."""
    if sys.platform != "linux":
        return "the loopback server is set up for Linux"
    if _sshd() is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        return "sshd is not installed: apt-get install openssh-server openssh-client"
    return None


@contextmanager
def serving(folder: Path, python: Path) -> Iterator[Loopback]:
    """Run a server until the block ends; ``python`` is what its sessions find as python3."""
    sshd, ssh = _sshd(), shutil.which("ssh")
    assert sshd is not None
    assert ssh is not None
    for name in ("home", "bin", "client"):
        (folder / name).mkdir()
    # Not a link: an interpreter finds the packages of its environment by its own path.
    _program(folder / "bin" / "python3", f'#!/bin/sh\nexec {python} "$@"\n')
    for key in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(command, check=True, timeout=60)
    port = _free_port()
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder))
    session = SESSION.format(home=folder / "home", bin=folder / "bin")
    _program(folder / "session", session)
    _program(folder / "client" / "ssh", CLIENT.format(ssh=ssh, folder=folder))
    (folder / "client_config").write_text(CLIENT_CONFIG.format(folder=folder))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it
    command = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
    with open(folder / "sshd.log", "wb") as log, subprocess.Popen(command, stderr=log) as server:
        try:
            _wait_until_open(port, server, folder / "sshd.log")
            yield Loopback(port=port, folder=folder)
        finally:
            server.terminate()


def _sshd() -> str | None:
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_open(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while server.poll() is None and time.monotonic() < deadline_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"sshd does not listen: {log.read_text()}")


Serve = Callable[[Path, Path], AbstractContextManager[Loopback]]


@pytest.fixture(autouse=True)
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and tokens of devices are kept apart from the user's, and from other tests'."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture(scope="session")
def serve() -> Serve:
    """How a server is run: given a folder and what its sessions find as python3."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    return serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, serve: Serve) -> Iterator[Loopback]:
    with serve(tmp_path_factory.mktemp("board"), Path(sys.executable)) as found:
        yield found


@pytest.fixture
def board(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """The pretended board, with a client that reaches it; given back at the end."""
    monkeypatch.setenv("PATH", f"{server.client_bin}:{os.environ['PATH']}")
    yield server
    release_boards()
