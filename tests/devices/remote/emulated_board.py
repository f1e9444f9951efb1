"""An aarch64 board that is not there: its files, and qemu to run its Python.

``python tests/devices/remote/emulated_board.py`` builds it once, from Debian's and Python's
package archives, into ``HWPROF_BOARD_CACHE`` (by default ``~/.cache/hwprof-board``). Nothing is
installed on this machine. What was learnt by trying:

* qemu-user shows the guest this machine's /proc/cpuinfo; XNNPACK crashes on it, so the guest gets
  one of its own in ARM form. ``qemu -L ROOT`` opens files below ROOT first.
* The guest cannot start its own interpreter again (no binfmt), so nothing there may spawn Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = (
    *("libc6", "libgcc-s1", "libstdc++6", "gcc-12-base", "zlib1g", "libexpat1", "libffi8"),
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libssl3"),
    *("libbz2-1.0", "liblzma5", "libuuid1", "libcrypt1", "libsqlite3-0"),
)
WHEELS = ("ai-edge-litert==2.3.0", "onnxruntime==1.32.0", "numpy==2.4.6")
PLATFORMS = ("2_17", "2014", "2_27", "2_28")
N_CORES = 2
CORE = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
PYTHON = """\
#!/bin/sh
exec {root}/../qemu-aarch64-static -L {root} -cpu cortex-a72 \\
  -E PYTHONPATH={root}/opt/site {root}/usr/bin/python3.11 "$@"
"""


class CannotBuildError(Exception):
    """The packages cannot be had here."""


def cache_folder() -> Path:
    """Return where the board is kept."""
    given = os.environ.get("HWPROF_BOARD_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "hwprof-board"


def interpreter(folder: Path) -> Path:
    """Return the program that runs the board's Python."""
    return folder / "python3"


def is_built(folder: Path) -> bool:
    """Return whether the board is there, whole."""
    return interpreter(folder).exists()


def build(folder: Path) -> None:
    """Fetch and unpack the board.

    Raises:
        CannotBuildError: a program or a package is missing.
    """
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise CannotBuildError(f"{program} is missing: the board is built on Debian or Ubuntu")
    folder.mkdir(parents=True, exist_ok=True)
    _qemu(folder)
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    _system(folder, root)
    _python_packages(root / "opt" / "site")
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text("".join(CORE.format(number=n) for n in range(N_CORES)))
    runner = interpreter(folder)
    part = runner.with_suffix(".part")
    part.write_text(PYTHON.format(root=root))
    part.chmod(0o755)
    part.replace(runner)  # last: it says that the rest is whole


def _qemu(folder: Path) -> None:
    if (folder / "qemu-aarch64-static").exists():
        return
    debs = folder / "qemu"
    _fresh(debs)
    _run(["apt-get", "-qq", "download", "qemu-user-static"], debs)
    (deb,) = debs.glob("*.deb")
    _run(["dpkg", "-x", str(deb), str(debs)], debs)
    shutil.move(str(debs / "usr/bin/qemu-aarch64-static"), folder / "qemu-aarch64-static")
    shutil.rmtree(debs)


def _system(folder: Path, root: Path) -> None:
    """Unpack Debian's packages for arm64, leaving this machine's own package lists alone."""
    debs, lists = folder / "debs", folder / "lists"
    _fresh(debs)
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    settings = [
        "APT::Architecture=arm64",
        "APT::Architectures=arm64",
        f"Dir::State::Lists={lists}",
        "Dir::State::status=/dev/null",
        "APT::Sandbox::User=root",
        "pkgCacheFile=",
        "Dir::Cache::pkgcache=",
        "Dir::Cache::srcpkgcache=",
    ]
    options = [part for setting in settings for part in ("-o", setting)]
    _run(["apt-get", "-qq", *options, "update"], debs)
    _run(["apt-get", "-qq", *options, "download", *PACKAGES], debs)
    for deb in debs.glob("*.deb"):
        _run(["dpkg", "-x", str(deb), str(root)], debs)
    shutil.rmtree(debs)
    shutil.rmtree(lists)


def _python_packages(site: Path) -> None:
    platforms = [
        p for level in PLATFORMS for p in ("--platform", f"manylinux{_dash(level)}_aarch64")
    ]
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(site)]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11"]
    _run([*command, *platforms, *WHEELS], site.parent.parent)


def _dash(level: str) -> str:
    return level if "_" not in level else f"_{level}"


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _run(command: list[str], cwd: Path) -> None:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=1200, check=False
    )
    if done.returncode != 0:
        raise CannotBuildError(
            f"{' '.join(command[:3])}: {(done.stderr or done.stdout).strip()[-400:]}"
        )


if __name__ == "__main__":
    build(cache_folder())
    print(interpreter(cache_folder()))
