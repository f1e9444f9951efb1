"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Replace ``path`` at once: a reader sees the old file or the new one, never a part.

    Raises:
        OSError: the folder is missing, read-only or full; then nothing is left behind.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):  # where none could be made there is none to remove
            partial.unlink()
        raise
