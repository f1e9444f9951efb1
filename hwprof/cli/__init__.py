"""The command line. Importing it imports no heavy package; each command imports what it needs."""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

DEFECT = 70
"""Exit code of an error that hwprof does not raise on purpose; Python's own, 1, is a regression."""
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)
"""What the system says of a path that the user named: no defect, wherever it comes up."""
LIMITS = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
"""What it says where the user, the session or a container may have no more files or processes."""


def main() -> None:
    """Run the command line; return the documented exit codes."""
    from hwprof.cli.output import INTERRUPTED, open_streams

    open_streams()
    from hwprof.errors import HwprofError

    if sys.platform == "win32":
        told = "hwprof: Windows itself cannot run it; install and run it inside WSL (wsl --install)"
        _end(told, HwprofError.exit_code)
    try:
        os.getcwd()
    except OSError:
        _end(
            "hwprof: the working directory was removed: change to another one",
            HwprofError.exit_code,
        )

    try:
        from hwprof.cli.app import app

        app()
    except KeyboardInterrupt:  # while the commands were loaded; once they are, the app says it
        _end("\nhwprof: interrupted; call it again", INTERRUPTED)
    except HwprofError as error:
        _end(f"hwprof: {error}", error.exit_code)
    except Exception as error:  # noqa: BLE001 - the one place that turns a defect into its code
        if (refusal := _refusal(error)) is not None:
            _end(f"hwprof: {refusal}", HwprofError.exit_code)
        import traceback

        told = "hwprof: this is a defect of hwprof; please report the lines above"
        _end(f"{traceback.format_exc()}{told}", DEFECT)


def _refusal(error: Exception) -> str | None:
    """Say what the system refuses; None where that is not what ``error`` is about."""
    from hwprof.errors import is_disk_full, next_step

    if not isinstance(error, OSError):
        return None
    if error.errno in LIMITS:
        return f"the system refuses: {error.strerror}; raise that limit (ulimit -a shows all)"
    if not is_disk_full(error) and (error.errno not in REFUSED or error.filename is None):
        return None
    place = "the disk" if error.filename is None else repr(str(error.filename))
    step = next_step(error, "name another path, or change who may read and write this one")
    return f"cannot use {place}: {error.strerror}; {step}"


def _end(text: str, code: int) -> NoReturn:
    """Say why and end with ``code``, which still tells it where nothing more can be written."""
    from hwprof.cli.output import discard_output

    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        # From Python 3.13 on what is left in the stream would change the code to 120 at exit.
        discard_output()
    sys.exit(code)
