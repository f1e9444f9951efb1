"""Files and folders that a user names, written or told why not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from hwprof.errors import IncompatibleRunError, StoreError, next_step
from hwprof.files import write_whole
from hwprof.store.folder import RUN_FILE


def write_file(target: Path, content: bytes) -> None:
    """Write a whole file or nothing.

    Raises:
        StoreError: it is a folder, or the one it is in is missing, read-only or full.
    """
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        write_whole(target, content)
    except OSError as error:
        step = next_step(error, "name a file in an existing folder that you may write")
        raise StoreError(
            f"cannot write {str(target)!r}: {error.strerror or error}; {step}"
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder with those above it, unless it is there.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        step = next_step(error, "name another --out, which you may write")
        raise StoreError(
            f"cannot make the folder {str(folder)!r}: {error.strerror or error}; {step}"
        ) from error


def refuse_search_folder(out: str | Path) -> None:
    """Refuse to begin another run in the folder of a search, which then could not go on.

    A run that is there already goes on, or is refused as any other.

    Raises:
        IncompatibleRunError: a search was begun there.
    """
    from hwprof.search.journal import CHECKPOINT_FILE

    if os.path.exists(Path(out) / CHECKPOINT_FILE) and not os.path.exists(Path(out) / RUN_FILE):
        raise IncompatibleRunError(
            f"{str(out)!r} is the folder of a search, which could not go on beside another run; "
            "name another --out"
        )
