"""Reading ``.npz`` archives that come from elsewhere."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from hwprof.errors import DataError

MEMORY_SHARE = 0.5
"""Arrays may fill this share of the memory that is free."""


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return all arrays of an archive by name.

    Raises:
        DataError: it cannot be read, is damaged, too large for the memory that is free, or holds
            pickled objects.
    """
    try:
        # Opened here because numpy leaves its own handle open where the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _check_room(sum(part.file_size for part in archive.zip.infolist()))
            return {name: archive[name] for name in archive.files}
    # AttributeError, TypeError: a single array (.npy) in place of an archive. MemoryError: a shape without end.
    # RuntimeError: a password, or a compression that is not known.
    except (
        OSError,
        ValueError,
        EOFError,
        AttributeError,
        TypeError,
        MemoryError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"cannot read {str(path)!r} ({reason}); expected an .npz without pickled objects, as "
            "numpy.savez writes it"
        ) from error


def _check_room(needed_bytes: int) -> None:
    """Refuse what a few packed megabytes would unpack to, before it fills the memory."""
    free_bytes = psutil.virtual_memory().available
    if needed_bytes > MEMORY_SHARE * free_bytes:
        raise MemoryError(
            f"it unpacks to {needed_bytes / 2**30:.1f} GiB, and {free_bytes / 2**30:.1f} GiB are free"
        )
