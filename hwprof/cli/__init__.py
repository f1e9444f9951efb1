"""The command line. Importing it imports no heavy package; each command imports what it needs."""

from __future__ import annotations

import sys

DEFECT = 70
"""Exit code of an error that hwprof does not raise on purpose; Python's own, 1, is a regression."""


def main() -> None:
    """Run the command line; return the documented exit codes."""
    from hwprof.cli.output import open_streams

    open_streams()
    from hwprof.cli.app import app
    from hwprof.errors import HwprofError

    try:
        app()
    except HwprofError as error:
        sys.stderr.write(f"hwprof: {error}\n")
        sys.exit(error.exit_code)
    except Exception:  # noqa: BLE001 - the one place that turns a defect into its exit code
        import traceback

        traceback.print_exc()
        sys.stderr.write("hwprof: this is a defect of hwprof; please report the lines above\n")
        sys.exit(DEFECT)
