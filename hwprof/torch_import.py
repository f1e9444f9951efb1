"""torch where it trains or builds: what is missing is said, threads sleep, memory that is full is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwprof.errors import DataError, MissingExtraError

SPINS = "GOMP_SPINCOUNT"
FEW_SPINS = "1000"
"""libgomp's own number where it has more threads than cores."""
NO_MEMORY = "can't allocate memory"
"""In what torch raises, a RuntimeError, where the host gives no more."""


@contextmanager
def needs_torch(purpose: str) -> Iterator[None]:
    """Say how to install torch where an import inside finds that it is missing.

    Imported here, its threads wait for each other asleep where another process has their core.
    """
    try:
        with _short_spins():
            yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", "search", purpose) from error


@contextmanager
def _short_spins() -> Iterator[None]:
    """Make libgomp, which torch brings, spin for microseconds before it sleeps.

    By default a thread spins for milliseconds at the end of every operator, on a core that the
    one it waits for may need: beside a busy process a step takes 1.6 to 1.9 times as long,
    where sleeping costs 4 to 5 % on a quiet machine (docs/proxyless.md). What is computed stays the
    same. libgomp reads the variable once, when it is loaded; it is not for workers, which
    are started later and measure.
    """
    if SPINS in os.environ or "OMP_WAIT_POLICY" in os.environ:  # as the user says
        yield
        return
    os.environ[SPINS] = FEW_SPINS
    try:
        yield
    finally:
        os.environ.pop(SPINS, None)


def refuse_too_large(path: str | Path, error: Exception) -> None:
    """Tell a file that does not fit into memory from one that is damaged.

    Args:
        path: the file.
        error: what reading it raised.

    Raises:
        DataError: it was the memory; the file may be sound.
    """
    if isinstance(error, MemoryError) or NO_MEMORY in str(error):
        raise DataError(
            f"cannot read the checkpoint {str(path)!r}: it does not fit into the memory that is "
            "free; end what else runs, and call again"
        ) from error
