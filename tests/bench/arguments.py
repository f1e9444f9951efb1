"""How the benchmarks read what stands on their command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import typer

from hwprof.cli.options import parse_duration


def seconds(text: str) -> float:
    """Read a duration such as ``10m``; no limit where it is empty."""
    try:
        return parse_duration("the time", text) or np.inf
    except typer.BadParameter as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def existing(text: str) -> Path:
    """Read the path of what a benchmark needs and does not make."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text!r} is not there")
    return path
