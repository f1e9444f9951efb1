"""Another environment's Python for the base's workers: what it must have, and how it is reached.

It must be CPython 3.11 or newer with numpy, the device's runtime and what its models are written
with (onnx for the device cpu); hwprof itself need not be installed there. Its workers import this
very hwprof, through a folder that holds a link to it and nothing else, so that none of our packages
hide theirs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import hwprof
from hwprof.errors import PlanError
from hwprof.measure.process import Interpreter

OLDEST = (3, 11)
_ASK_TIMEOUT_S = 60.0
_ASK = """
import importlib.util, json, sys
missing = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
print(json.dumps([list(sys.version_info[:2]), missing]))
"""


@contextmanager
def interpreter_of(python: str, packages: Sequence[str]) -> Iterator[Interpreter]:
    """Check another environment's Python and lend it to workers.

    Args:
        python: path of the executable, such as ``.venv-old/bin/python``.
        packages: import names that must be there beside numpy: the device's runtime, and what
            its models are written with.

    Raises:
        PlanError: it is no Python, too old, or lacks a package; the message names which.
    """
    executable = shutil.which(python)
    if executable is None:
        raise PlanError(
            f"--base-python is {python!r}, which is no program; expected a Python such as "
            ".venv-old/bin/python"
        )
    # Not resolved: in a virtual environment the link itself says which environment it is.
    executable = os.path.abspath(executable)
    version, missing = _asked(executable, python, ("numpy", *packages))
    if version < OLDEST:
        raise PlanError(
            f"--base-python {python!r} is Python {'.'.join(map(str, version))}; expected "
            f"{'.'.join(map(str, OLDEST))} or newer"
        )
    if missing:
        # They are here, where the new side runs: what pip calls them need not be what Python does.
        known = metadata.packages_distributions()
        named = dict.fromkeys(known.get(name, [name])[0] for name in missing)
        raise PlanError(
            f"--base-python {python!r} lacks {', '.join(missing)}: "
            f"run {python} -m pip install {' '.join(named)}"
        )
    with tempfile.TemporaryDirectory(prefix="hwprof-base-") as folder:
        (Path(folder) / "hwprof").symlink_to(Path(hwprof.__file__).resolve().parent)
        yield Interpreter(executable=executable, paths=(folder,))


def _asked(
    executable: str, python: str, packages: Sequence[str]
) -> tuple[tuple[int, ...], list[str]]:
    """Ask the interpreter its version and which packages it lacks."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [executable, "-P", "-c", _ASK, *packages],
            capture_output=True,
            text=True,
            check=True,
            timeout=_ASK_TIMEOUT_S,
            env=environment,
        )
        version, missing = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise PlanError(
            f"--base-python {python!r} does not answer as a Python 3.11 or newer does "
            f"({type(error).__name__}); expected one such as .venv-old/bin/python"
        ) from error
    return tuple(version), list(missing)
