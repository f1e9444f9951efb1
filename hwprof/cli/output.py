"""Results go to stdout, as text or as JSON; nothing else does."""

from __future__ import annotations

import json
import sys
from typing import Any


def print_json(data: Any) -> None:
    """Print plain data as JSON on stdout."""
    sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")


def print_text(renderable: Any) -> None:
    """Print text or a rich renderable on stdout."""
    from rich.console import Console

    console = Console(soft_wrap=isinstance(renderable, str), highlight=False)
    console.print(renderable, markup=False) if isinstance(renderable, str) else console.print(
        renderable
    )


def say(text: str) -> None:
    """Print a remark on stderr."""
    sys.stderr.write(text + "\n")
