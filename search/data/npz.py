"""Reading ``.npz`` archives that come from elsewhere."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwprof.errors import DataError


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return all arrays of an archive by name.

    Raises:
        DataError: it cannot be read, is damaged, or holds pickled objects.
    """
    try:
        # Opened here because numpy leaves its own handle open where the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    # AttributeError: a single array (.npy) in place of an archive.
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"cannot read {str(path)!r} ({reason}); expected an .npz without pickled objects, as "
            "numpy.savez writes it"
        ) from error
