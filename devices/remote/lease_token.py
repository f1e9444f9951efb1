"""What proves to a device that a command is the campaign that holds its lease.

Where a link breaks half open, the device goes on believing in a campaign that is gone, for hours.
So the token is kept: a command that is started again by the same user on the same computer shows
it once more and takes the lease over. While a process uses it, its file is locked, and a second
process gets a token of its own, which the device refuses.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from hwprof.devices.remote.address import Address
from hwprof.devices.remote.remembered import config_path

_TOKEN = re.compile(rb"[0-9a-f]{32}")


class LeaseToken:
    """A token, held until it is released or this process ends, however it ends.

    Args:
        address: of the device; its options do not matter.
    """

    def __init__(self, address: Address) -> None:
        self.text = secrets.token_hex(16)
        self._fd = _locked(token_path(address))
        if self._fd is None:
            return
        kept = os.pread(self._fd, 64, 0)
        if _TOKEN.fullmatch(kept):
            self.text = kept.decode()
            return
        with suppress(OSError):  # a full disk: the device can be measured all the same
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, self.text.encode(), 0)

    def release(self) -> None:
        """Let the next process have it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def token_path(address: Address) -> Path:
    """Return the file that keeps the token for a device, beside the devices' names."""
    # A home may be shared by computers between which locks do not work.
    place = (socket.gethostname(), *address.place)
    digest = hashlib.sha256(repr(place).encode()).hexdigest()
    return config_path().parent / "leases" / digest[:16]


def _locked(path: Path) -> int | None:
    """Return what holds the file's lock; None where another has it, or none can be had."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd
