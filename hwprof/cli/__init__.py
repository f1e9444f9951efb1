"""The command line. Importing it imports no heavy package; each command imports what it needs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; return the documented exit codes."""
    from hwprof.cli.app import app
    from hwprof.errors import HwprofError

    try:
        app()
    except HwprofError as error:
        sys.stderr.write(f"hwprof: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nhwprof: interrupted; what was measured is kept, the same command goes on\n"
        )
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
