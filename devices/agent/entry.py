# The agent's __main__: written so that an old Python can still say what it lacks.
"""Start the agent: ``python3 agent.pyz worker NUMBER FOLDER`` or ``keeper FOLDER``."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this file runs on whatever the device has
    sys.exit(
        "hwprof's agent needs Python 3.11 or newer, this is %s: install one there and name it, "  # noqa: UP031
        "e.g. ssh://user@host?python=python3.12" % sys.version.split()[0]
    )

from hwprof.devices.agent.supervisor import main

main(sys.argv[1:])
