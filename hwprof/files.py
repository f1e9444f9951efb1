"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PARTIAL = ".partial"
"""How the name of what is half written ends; it is left where a process is killed meanwhile."""


def write_whole(path: Path, content: bytes | memoryview, *, alone: bool = False) -> None:
    """Replace ``path`` at once: a reader sees the old file or the new one, never a part.

    Args:
        path: the file.
        content: all of it.
        alone: whether a lock keeps other writers away. What a killed one left half written is then
            written over; otherwise every process has a name of its own for it.

    Raises:
        OSError: the folder is missing, read-only or full; then nothing is left behind.
    """
    writer = "" if alone else f".{os.getpid()}"
    partial = path.with_name(f".{path.name}{writer}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            # Else a power failure could leave the new name with nothing behind it.
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):  # where none could be made there is none to remove
            partial.unlink()
        raise
