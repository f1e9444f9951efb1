"""Earlier sessions on a machine, kept from one command to the next.

One file a machine, below the user's state folder (``$XDG_STATE_HOME/hwprof/sessions``), a line for
every session and reference: what it took, and when. It widens the intervals of the next
sessions by what sessions differ by (:mod:`hwprof.measure.session_spread`) and does nothing else:
with the file gone, hwprof learns anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hwprof.measure.records import Fingerprint
from hwprof.measure.session_spread import KINDS, SessionLevel

logger = logging.getLogger(__name__)

MOST_KNOWN = 200
"""Latest lines that count: what a machine did a year ago says little of today."""
MACHINE_FACTS = (
    "device",
    "hardware",
    "machine",
    "cores",
    "usable_cores",
    "memory_gib",
    "hypervisor",
    "power_mode",
    "threads",
)
"""What makes a machine, of a fingerprint's stable facts. Versions of runtimes and the like have
levels of their own, and differ as much from session to session."""


def state_folder() -> Path:
    """Return where hwprof keeps what it learns of machines.

    Raises:
        RuntimeError: the user has no home.
    """
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "hwprof"


class SessionFile:
    """The files of one folder. What cannot be read or written is told once, and measuring goes on.

    Args:
        folder: where they are; by default below the user's state folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._told: set[str] = set()

    def path(self, fingerprint: Fingerprint) -> Path:
        """Return the file of the fingerprint's machine.

        Raises:
            RuntimeError: the user has no home.
        """
        facts = {name: fingerprint.stable.get(name) for name in MACHINE_FACTS}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        folder = state_folder() / "sessions" if self._folder is None else self._folder
        return folder / f"{digest[:16]}.jsonl"

    def known(self, fingerprint: Fingerprint) -> Sequence[SessionLevel]:
        """Return the latest sessions on the fingerprint's machine, oldest first."""
        try:
            text = self.path(fingerprint).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ()
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            self._tell(f"cannot read what is known of earlier sessions: {error}")
            return ()
        found, n_damaged = [], 0
        for line in text.splitlines()[-MOST_KNOWN:]:
            try:
                found.append(_session(json.loads(line)))
            except (ValueError, KeyError, TypeError):
                n_damaged += 1
        if n_damaged:
            self._tell(
                f"{n_damaged} damaged lines in {str(self.path(fingerprint))!r} are left out; remove "
                "the file to learn anew"
            )
        return found

    def add(self, fingerprint: Fingerprint, session: SessionLevel) -> None:
        """Keep a session, at once and whole: one write, so that processes may share the file."""
        row = {
            "kind": session.kind,
            "setting": session.setting,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "level_s": session.level_s,
            "se": session.se,
            "device": fingerprint.stable.get("device"),
            "hardware": fingerprint.stable.get("hardware"),
        }
        try:
            path = self.path(fingerprint)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except (OSError, RuntimeError) as error:
            self._tell(
                f"cannot keep what this session says of the machine ({error}): set XDG_STATE_HOME to "
                "a folder that you may write, so that intervals know how far sessions lie apart"
            )

    def _tell(self, message: str) -> None:
        """Warn, of the same thing once a campaign."""
        if message not in self._told:
            self._told.add(message)
            logger.warning(message)


def _session(row: dict[str, object]) -> SessionLevel:
    level_s, se = float(str(row["level_s"])), float(str(row["se"]))
    if not (0.0 < level_s < float("inf") and 0.0 <= se < float("inf")):
        raise ValueError(f"level {level_s}, se {se}")
    kind = next((known for known in KINDS if known == row["kind"]), None)
    if kind is None:
        raise ValueError(f"kind {row['kind']!r}")
    return SessionLevel(kind=kind, setting=str(row["setting"]), level_s=level_s, se=se)
