"""``run.json``: what a run was asked, and whether a new request may go on with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hwprof.errors import FormatVersionError, IncompatibleRunError, StoreError
from hwprof.files import write_whole
from hwprof.store.schema import explained

RUN_FORMAT = 1
RUN_FILE = "run.json"

MOST_TOLD = 5
"""How many differences of two requests a message names."""
GROWING = ("networks", "isolated")
"""What of a request may change from call to call: more networks, or the blocks as well."""


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """The content of ``run.json``."""

    kind: str
    request: Mapping[str, Any]
    created: str
    """UTC, ISO 8601."""

    @classmethod
    def new(cls, kind: str, request: Mapping[str, Any]) -> RunFile:
        """Describe a run that begins now; ``request`` is plain data."""
        plain = json.loads(json.dumps(dict(request)))
        return cls(
            kind=kind, request=plain, created=datetime.now(UTC).isoformat(timespec="milliseconds")
        )

    def write(self, folder: Path) -> None:
        """Write the file whole or not at all.

        Raises:
            StoreError: the folder is read-only or full.
        """
        data = {
            "format": RUN_FORMAT,
            "kind": self.kind,
            "created": self.created,
            "request": self.request,
        }
        with explained(folder):
            write_whole(folder / RUN_FILE, f"{json.dumps(data, indent=1)}\n".encode(), alone=True)

    @classmethod
    def read(cls, folder: Path) -> RunFile:
        """Read the ``run.json`` of ``folder``.

        Raises:
            StoreError: it is no run folder, or the file is damaged.
            FormatVersionError: another version wrote it.
        """
        path = folder / RUN_FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(
                f"{str(folder)!r} is not a run folder (it has no {RUN_FILE}); "
                f"expected the --out of `hwprof profile` or `hwprof import`"
            ) from error
        except OSError as error:
            raise StoreError(
                f"cannot read {str(path)!r}: {error.strerror or error}; check its permissions"
            ) from error
        except (ValueError, RecursionError) as error:
            raise damaged(path, str(error)) from error
        if not isinstance(data, dict) or "format" not in data:
            raise damaged(path, 'it has no "format"')
        if data["format"] != RUN_FORMAT:
            raise FormatVersionError(
                f"{str(path)!r} has format {data['format']!r}; this version of hwprof reads "
                f"{RUN_FORMAT}: open it with the version that wrote it"
            )
        try:
            return cls(kind=data["kind"], request=dict(data["request"]), created=data["created"])
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(path, f"{error} is missing or of the wrong type") from error

    def grown(self, folder: Path, kind: str, request: Mapping[str, Any]) -> RunFile:
        """Return this run with the counts of ``request`` where those are larger.

        Raises:
            IncompatibleRunError: ``request`` differs in anything else; it names what, with
                both values.
        """
        new = RunFile.new(kind, request)
        if new.kind != self.kind:
            raise IncompatibleRunError(
                f"{str(folder)!r} is a run of {self.kind!r}, not of {kind!r}; name another --out"
            )
        fixed_old = {k: v for k, v in self.request.items() if k not in GROWING}
        fixed_new = {k: v for k, v in new.request.items() if k not in GROWING}
        found = list(differences(fixed_old, fixed_new))
        if found:
            raise IncompatibleRunError(
                f"{str(folder)!r} was made with {_told(found)}: ask for the same, or name another "
                "--out"
            )
        merged = dict(self.request)
        for name in GROWING:
            if name in new.request:
                merged[name] = max(new.request[name], self.request.get(name, new.request[name]))
        return RunFile(kind=self.kind, request=merged, created=self.created)


def differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield every place where two pieces of plain data differ: dotted name, old, new."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, old, new


def _told(found: list[tuple[str, Any, Any]]) -> str:
    """Name a few differences: another space comes first, for it brings dozens of its own."""
    found = sorted(found, key=lambda difference: (difference[0] != "space", "." in difference[0]))
    told = [f"{name} {_short(old)}, not {_short(new)}" for name, old, new in found[:MOST_TOLD]]
    if (n_more := len(found) - len(told)) > 0:
        told.append(f"and {n_more} more")
    return "; ".join(told)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def damaged(path: Path, why: str) -> StoreError:
    """Return the error that says that the file ``path`` of a run is damaged."""
    return StoreError(
        f"{str(path)!r} is damaged: {why}; restore it from a copy, or use another folder"
    )
