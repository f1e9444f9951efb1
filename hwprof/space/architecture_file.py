"""Architectures by name, as JSON, or as files of it."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path

from hwprof.errors import SpaceError
from hwprof.space.architecture import Architecture
from hwprof.space.fields import reason
from hwprof.space.lookup import space_of
from hwprof.space.named import NAMED_ARCHITECTURES


def read_architecture(text_or_path: str) -> Architecture:
    """Read an architecture and check it against its space.

    Args:
        text_or_path: a named architecture (``proxyless-gpu``), ``-`` for JSON on standard
            input, the path of a JSON file, or the JSON itself.

    Raises:
        SpaceError: nothing of that name, no JSON, or not an architecture of its space.
    """
    if text_or_path in NAMED_ARCHITECTURES:
        return NAMED_ARCHITECTURES[text_or_path]
    if text_or_path == "-":
        source, text = "standard input", _read_standard_input()
    elif text_or_path.lstrip().startswith("{"):
        source, text = "the architecture", text_or_path
    else:
        source, text = text_or_path, _read_architecture_file(text_or_path)
    try:
        arch = Architecture.from_json(json.loads(text))
        space_of(arch).validate(arch)
    except json.JSONDecodeError as error:
        raise SpaceError(
            f"{source}: line {error.lineno} column {error.colno} is no JSON ({error.msg}); "
            'expected {"space": …, "resolution_px": …, "units": …}'
        ) from error
    except RecursionError as error:
        raise SpaceError(
            f"{source}: lists in lists without end; expected "
            '{"space": …, "resolution_px": …, "units": …}'
        ) from error
    except SpaceError as error:
        raise SpaceError(f"{source}: {error}") from error
    return arch


def _read_standard_input() -> str:
    try:
        return sys.stdin.read()
    except ValueError as error:
        raise SpaceError(
            f"standard input is no text ({error}); expected an architecture as JSON"
        ) from error


def _read_architecture_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        close = difflib.get_close_matches(path, NAMED_ARCHITECTURES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise SpaceError(
            f"no architecture {path!r}: {hint}expected a JSON file, '-' for standard input, or "
            f"one of {list(NAMED_ARCHITECTURES)}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(
            f"cannot read the architecture {path!r} ({reason(error)}); expected a JSON file"
        ) from error
