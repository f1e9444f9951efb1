"""Model files on a device, named by the hash of their bytes: copied once, never overwritten."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from hwprof.errors import DeviceUnavailableError, ModelError

NAME = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{1,16}")
"""A SHA-256 and a suffix: no name that comes from outside can leave the folder."""
_PART = ".part"
"""Suffix of a model that is being written."""
BUDGET_BYTES = 2**30
"""What the folder may hold; the models that were not used for longest make room."""


class ModelFolder:
    """The models of one device."""

    def __init__(self, folder: Path, budget_bytes: int = BUDGET_BYTES) -> None:
        self._folder, self._budget_bytes = folder, budget_bytes

    def path(self, name: str) -> Path:
        """Return where the model ``name`` lies, or would.

        Raises:
            ModelError: that is no name of a model.
        """
        if not NAME.fullmatch(name):
            raise ModelError(f"{name!r} is no model's name; expected a SHA-256 and a suffix")
        return self._folder / name

    def has(self, name: str) -> bool:
        """Return whether the model is here, whole; it counts as used."""
        path = self.path(name)
        try:
            whole = _digest(path.read_bytes()) == path.stem
        except OSError:
            return False
        if whole:
            os.utime(path)
        return whole

    def put(self, name: str, content: bytes) -> Path:
        """Keep a model.

        Raises:
            ModelError: the bytes are not those that the name stands for.
            DeviceUnavailableError: there is no room for it.
        """
        path = self.path(name)
        if _digest(content) != path.stem:
            raise ModelError(f"the bytes of {name} do not have the hash that they are named by")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._make_room(len(content))
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=_PART, delete=False) as file:
                try:
                    file.write(content)
                    file.flush()
                    os.replace(file.name, path)
                except OSError:
                    with suppress(OSError):
                        os.unlink(file.name)
                    raise
        except OSError as error:
            raise DeviceUnavailableError(
                f"the device cannot keep a model of {len(content):,} bytes in "
                f"{str(self._folder)!r} ({error.strerror or error}): make room there"
            ) from error
        return path

    def _make_room(self, wanted_bytes: int) -> None:
        # One process writes at a time, that with the lease: what is half written was left behind by
        # one that was ended (a link that broke ends it at once).
        for part in self._folder.glob(f"*{_PART}"):
            part.unlink()
        files = [p for p in self._folder.iterdir() if NAME.fullmatch(p.name)]
        files.sort(key=lambda p: p.stat().st_mtime)
        held = sum(p.stat().st_size for p in files)
        while files and held + wanted_bytes > self._budget_bytes:
            oldest = files.pop(0)
            held -= oldest.stat().st_size
            oldest.unlink()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
