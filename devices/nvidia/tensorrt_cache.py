"""Engines and tactic timings of TensorRT on disk: files that can tell whether they are whole.

A campaign builds thousands of engines, so the folder has a limit; the least recently used go.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hwprof.devices.model_source import Source
from hwprof.files import PARTIAL, write_whole
from hwprof.workload import model_files

FOLDER_VARIABLE = "HWPROF_TENSORRT_CACHE"
MOST_BYTES = 8 * 2**30
"""A network's engine has some 10 to 100 MB."""

_MAGIC = b"hwprof-tensorrt 1\n"
_SUFFIX = ".trt"
_LONGEST_WRITE_S = 3600.0
"""What is half written for longer was left behind by a process that was ended."""


class DamagedEntryError(Exception):
    """A file of the cache is torn, edited or no such file at all; it is made again."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one file holds, and how long TensorRT took to make it."""

    content: bytes
    build_s: float


def default_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder that ``HWPROF_TENSORRT_CACHE`` names, else one in the user's cache."""
    if named := environment.get(FOLDER_VARIABLE):
        return Path(named)
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hwprof" / "tensorrt"


def digest_of(facts: Mapping[str, object]) -> str:
    """Return the name of what depends on ``facts`` and on nothing else."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class DiskCache:
    """Entries by name in one folder; several processes may use it at once.

    Args:
        folder: made when the first entry is kept.
        most_bytes: what all entries may take together.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._most_bytes = folder, most_bytes

    def path(self, name: str) -> Path:
        """Return where an entry is kept."""
        return self._folder / f"{name}{_SUFFIX}"

    def load(self, name: str) -> Entry | None:
        """Return an entry, None where there is none.

        Raises:
            DamagedEntryError: there is a file, but not as it was written.
        """
        path = self.path(name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedEntryError(f"cannot read {str(path)!r}: {error.strerror}") from error
        entry = _decode(data, path)
        # What was used last is dropped last. A folder that only others may write is still read.
        with suppress(OSError):
            os.utime(path)
        return entry

    def store(self, name: str, entry: Entry) -> None:
        """Keep an entry, in place of an earlier one; then drop what is too much.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _encode(entry))
        self._trim(kept=path)

    def _trim(self, kept: Path) -> None:
        oldest_s = time.time() - _LONGEST_WRITE_S
        for part in self._folder.glob(f"*{PARTIAL}"):
            with suppress(FileNotFoundError):  # another process was faster
                if part.stat().st_mtime < oldest_s:
                    part.unlink()
        sizes: list[tuple[float, int, Path]] = []
        for path in self._folder.glob(f"*{_SUFFIX}"):
            try:
                found = path.stat()
            except FileNotFoundError:  # another process was faster
                continue
            sizes.append((found.st_mtime, found.st_size, path))
        excess = sum(size for _, size, _ in sizes) - self._most_bytes
        for _, size, path in sorted(sizes):
            if excess <= 0:
                return
            if path != kept:
                path.unlink(missing_ok=True)
                excess -= size


def _encode(entry: Entry) -> bytes:
    digest = hashlib.sha256(entry.content).hexdigest()
    header = json.dumps({"sha256": digest, "build_s": entry.build_s})
    return _MAGIC + header.encode() + b"\n" + entry.content


def _decode(data: bytes, path: Path) -> Entry:
    if not data.startswith(_MAGIC):
        raise DamagedEntryError(f"{str(path)!r} is none of hwprof's files")
    line, _, content = data[len(_MAGIC) :].partition(b"\n")
    try:
        header = json.loads(line)
        digest, build_s = str(header["sha256"]), float(header["build_s"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedEntryError(f"the header of {str(path)!r} is damaged") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise DamagedEntryError(f"{str(path)!r} is damaged: its content is not what was written")
    return Entry(content=content, build_s=build_s)


def model_digest(source: Source) -> str:
    """Return the hash of a model, of weights that it keeps in files of their own as well."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    digest = hashlib.sha256()
    for path in model_files(source):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
