"""What a search leaves in its folder, so that it can be killed at any time and go on.

``events.jsonl`` is the truth: everything that was judged, in order. ``checkpoint.json`` is
written whole or not at all after each request; it holds the strategy's state, the ledger, and up
to which byte the log belongs to it. What a killed search logged after its last checkpoint is cut
off and done again, with the same outcome.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from filelock import FileLock, Timeout

from hwprof.errors import FormatVersionError, IncompatibleRunError, StoreError, next_step
from hwprof.files import write_whole
from hwprof.results import Trial
from hwprof.search.events import ArchRefused, Event
from hwprof.search.strategy import Refusal

CHECKPOINT_FORMAT = 1
CHECKPOINT_FILE = "checkpoint.json"
EVENTS_FILE = "events.jsonl"
LOCK_FILE = "search.lock"


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """Where an interrupted search stands."""

    strategy: Mapping[str, Any]
    ledger: Mapping[str, Any]
    outcomes: tuple[Trial | Refusal, ...]


class Journal:
    """Event log and checkpoint of one search; use as a context manager.

    Args:
        folder: where they lie; None keeps nothing.
        request: what identifies the search, as plain data.

    Raises:
        StoreError: the folder cannot be used, or another search is writing there.
        FormatVersionError: the checkpoint is of another version.
        IncompatibleRunError: the folder holds a search that was asked something else.
    """

    def __init__(self, folder: Path | None, request: Mapping[str, Any]) -> None:
        self._folder = folder
        self._request = _plain(request)
        self._lock: FileLock | None = None
        self._events: IO[bytes] | None = None
        self._n_events = 0
        self.resumed: Resumed | None = None
        """What to go on from; None for a search that begins."""

    def __enter__(self) -> Self:
        if self._folder is not None:
            try:
                with usable(self._folder):
                    self._open(self._folder)
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._folder is not None:
            with usable(self._folder):
                self._close()

    def record(self, event: Event, time_s: float) -> None:
        """Append an event that happened ``time_s`` seconds into the search."""
        if self._folder is None or self._events is None:
            return
        line = {
            "seq": self._n_events,
            "time_s": round(time_s, 6),
            "event": type(event).__name__,
            **event.to_json(),
        }
        with usable(self._folder):
            self._events.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._n_events += 1

    def checkpoint(self, strategy: Mapping[str, Any], ledger: Mapping[str, float]) -> None:
        """Make everything recorded so far, and these states, what a killed search goes on from."""
        if self._folder is None or self._events is None:
            return
        with usable(self._folder):
            self._events.flush()
            os.fsync(self._events.fileno())
            data = {
                "format": CHECKPOINT_FORMAT,
                "request": self._request,
                "n_events": self._n_events,
                "events_bytes": self._events.tell(),
                "ledger": dict(ledger),
                "strategy": dict(strategy),
            }
            write_whole(self._folder / CHECKPOINT_FILE, json.dumps(data).encode(), alone=True)

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise StoreError(
                f"another search is writing in {str(folder)!r}; wait for it or name another folder"
            ) from error
        self._lock = lock
        known = _read_checkpoint(folder, self._request)
        length = int(known["events_bytes"]) if known else 0
        self._events = (folder / EVENTS_FILE).open("ab")
        if self._events.tell() < length:
            raise _damaged(folder / EVENTS_FILE, "it ends too early")
        self._events.truncate(length)
        # Where a checkpoint says that the log ends, also if nothing is logged before it.
        self._events.seek(length)
        if known:
            self._n_events = int(known["n_events"])
            self.resumed = Resumed(
                strategy=known["strategy"],
                ledger=known["ledger"],
                outcomes=_read_outcomes(folder / EVENTS_FILE),
            )

    def _close(self) -> None:
        events, self._events = self._events, None
        lock, self._lock = self._lock, None
        try:
            if events is not None:
                events.close()
        finally:
            if lock is not None:
                lock.release()


def require_same_search(folder: Path, request: Mapping[str, Any]) -> None:
    """Check that a search in ``folder``, if there is one, was asked the same.

    For what has to be done, at a price, before the search itself begins.

    Args:
        folder: where log and checkpoint lie, or will.
        request: what is known of the search already; nothing else is compared.

    Raises:
        StoreError: the checkpoint is damaged or cannot be read.
        FormatVersionError: the checkpoint is of another version.
        IncompatibleRunError: the folder holds a search that was asked something else.
    """
    with usable(folder):
        _read_checkpoint(folder, _plain(request))


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Turn what the system says about the folder of a search into one line that helps.

    Raises:
        StoreError: instead of ``OSError``.
    """
    try:
        yield
    except OSError as error:
        step = next_step(error, "name one that you may write")
        raise StoreError(
            f"cannot use the folder {str(folder)!r} for a search: {error.strerror or error}; {step}"
        ) from error


def _plain(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request as it is read back."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(request)))
    return plain


def _read_checkpoint(folder: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the checkpoint of the search that ``request`` asks for; None where there is none."""
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(data, dict):
        raise _damaged(path, f"it holds {type(data).__name__}")
    if data.get("format") != CHECKPOINT_FORMAT:
        raise FormatVersionError(
            f"{str(path)!r} has format {data.get('format')!r}; this version goes on with "
            f"format {CHECKPOINT_FORMAT}: name another folder"
        )
    for part in ("request", "strategy", "ledger", "n_events", "events_bytes"):
        if part not in data:
            raise _damaged(path, f"it lacks {part!r}")
    for name, asked in request.items():
        if data["request"].get(name) != asked:
            raise IncompatibleRunError(
                f"{str(folder)!r} holds a search with {name} {data['request'].get(name)!r}, "
                f"not {asked!r}; name another folder, or ask for the same"
            )
    return data


def _read_outcomes(path: Path) -> tuple[Trial | Refusal, ...]:
    outcomes: list[Trial | Refusal] = []
    try:
        for line in path.read_bytes().splitlines():
            event = json.loads(line)
            if event["event"] == "ArchEvaluated":
                outcomes.append(Trial.from_row(event["trial"]))
            elif event["event"] == "ArchRefused":
                outcomes.append(ArchRefused.from_json(event).refusal)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    return tuple(outcomes)


def _damaged(path: Path, why: str) -> StoreError:
    return StoreError(f"{str(path)!r} is damaged ({why}); name another folder to search afresh")
