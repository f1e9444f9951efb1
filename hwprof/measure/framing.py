"""The outer form of a frame, for processes that pass frames on without reading them.

    4 bytes   magic: b"hwp1" (for a worker), b"hwpc" (for the one that supervises it)
    4 bytes   length of the header, big endian
    8 bytes   length of the body, big endian

Only the standard library: a supervisor on a small board imports nothing else.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hwprof.errors import MeasurementError

MAGIC = b"hwp1"
CONTROL_MAGIC = b"hwpc"
MAX_HEADER_BYTES = 16 * 2**20
MAX_BODY_BYTES = 2**30

_PREFIX = struct.Struct(">4sIQ")
_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class WireError(MeasurementError):
    """What came over the wire is no frame, or not the one that was expected."""


class StreamClosedError(WireError):
    """The other side is gone."""


@dataclass(frozen=True, kw_only=True)
class RawFrame:
    """A frame whose header is still text."""

    magic: bytes
    header: bytes
    body: bytes

    def pack(self) -> bytes:
        """Return the frame as bytes."""
        return _PREFIX.pack(self.magic, len(self.header), len(self.body)) + self.header + self.body


def pack(header: Mapping[str, Any], body: bytes = b"", magic: bytes = MAGIC) -> bytes:
    """Return a frame as bytes.

    Raises:
        ValueError: the header holds a NaN or something that JSON has not.
    """
    text = _JSON.encode(header).encode()
    return RawFrame(magic=magic, header=text, body=body).pack()


def read_frame(
    read_exactly: Callable[[int], bytes], magics: tuple[bytes, ...] = (MAGIC,)
) -> RawFrame:
    """Read one frame.

    Args:
        read_exactly: returns exactly as many bytes as asked, or raises
            :class:`StreamClosedError`.
        magics: what a frame may begin with.

    Raises:
        WireError: the bytes are no frame.
    """
    magic, header_bytes, body_bytes = _PREFIX.unpack(read_exactly(_PREFIX.size))
    if magic not in magics:
        raise WireError(f"expected a frame that begins with {magics[0]!r}, got {magic!r}")
    if header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
        raise WireError(f"a frame of {header_bytes} + {body_bytes} bytes is beyond the limit")
    return RawFrame(magic=magic, header=read_exactly(header_bytes), body=read_exactly(body_bytes))


def read_from(fd: int, size: int) -> bytes:
    """Read exactly ``size`` bytes, however long it takes.

    Raises:
        StreamClosedError: the other side closed the stream.
    """
    parts = []
    while size > 0:
        part = os.read(fd, size)
        if not part:
            raise StreamClosedError("the other side is gone")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data`` to a pipe."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
