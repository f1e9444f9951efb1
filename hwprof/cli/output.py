"""Results go to stdout, as text or as JSON; nothing else does."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hwprof.errors import StoreError

INTERRUPTED = 130
"""What a shell reports of a program that SIGINT ended."""


def print_json(data: Any) -> None:
    """Print plain data as JSON on stdout."""
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    with _writing():
        sys.stdout.write(text)


def print_text(renderable: Any) -> None:
    """Print text or a rich renderable on stdout."""
    from rich.console import Console

    console = Console(soft_wrap=isinstance(renderable, str), highlight=False)
    # Captured, because rich itself ends a program whose reader has gone with 1, "regressed" here.
    with _writing(), console.capture() as captured:
        console.print(renderable, markup=False)
    with _writing():
        sys.stdout.write(captured.get())


def say(text: str) -> None:
    """Print a remark on stderr."""
    sys.stderr.write(text + "\n")


def open_streams() -> None:
    """Make stdout and stderr take all that is written, also where the caller has closed them.

    A file that is opened later must not become stdout, and a character that the terminal lacks
    is no reason to lose a result.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = open(os.devnull, "r" if name == "stdin" else "w")  # noqa: SIM115 - kept
            setattr(sys, name, nowhere)
        elif name == "stdout" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Send nowhere what is still to be written, so that the end does not fail on it again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StoreError(
            f"cannot write the result to standard output: {error.strerror}; "
            "send it to a place with free space"
        ) from error
