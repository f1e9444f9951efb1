"""Frames between the engine and a worker: a JSON header and raw ``int64`` arrays.

    4 bytes   b"hwp1"
    4 bytes   length of the header, big endian
    8 bytes   length of the arrays, big endian
    header    JSON object; "arrays" lists [name, number of entries] in order
    arrays    little-endian int64, one after another

Nothing that comes from a device is ever unpickled or evaluated. A frame that does not hold to
this form is a :class:`WireError`, whatever the bytes were.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwprof.measure.framing import StreamClosedError, WireError, pack, read_frame
from hwprof.measure.records import Burst, DeviceOptions, DeviceRef
from hwprof.protocols import Disturbance, ForeignProcess

__all__ = ["Frame", "StreamClosedError", "WireError", "decode", "encode", "plain"]

_INT64 = np.dtype("<i8")
_HOST_TIMES = ("enqueue_ns", "end_to_end_ns")
_COUNTERS = ("calls_per_sample", "involuntary_switches", "page_faults", "cpu_ns")

Int64 = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A header and its arrays."""

    header: Mapping[str, Any]
    arrays: Mapping[str, Int64] = field(default_factory=dict)


def encode(frame: Frame) -> bytes:
    """Return the frame as bytes.

    Raises:
        ValueError: the header holds a NaN or something that JSON has not.
    """
    header = {**frame.header, "arrays": [[n, int(a.size)] for n, a in frame.arrays.items()]}
    parts = (np.ascontiguousarray(a, dtype=_INT64).tobytes() for a in frame.arrays.values())
    return pack(header, b"".join(parts))


def decode(read_exactly: Callable[[int], bytes]) -> Frame:
    """Read one frame.

    Args:
        read_exactly: returns exactly as many bytes as asked, or raises
            :class:`StreamClosedError`.

    Raises:
        WireError: the bytes are no frame.
    """
    raw = read_frame(read_exactly)
    try:
        header = json.loads(raw.header.decode())
    except (ValueError, RecursionError) as error:
        raise WireError(f"the frame's header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise WireError(f"the frame's header is a {type(header).__name__}, not an object")
    return Frame(arrays=_split(header.pop("arrays", None), raw.body), header=header)


def plain(value: Any) -> Any:
    """Return JSON data whose texts hold no control characters: they may end on a terminal."""
    if isinstance(value, str):
        return (
            value if value.isprintable() else "".join(c if c.isprintable() else " " for c in value)
        )
    if isinstance(value, dict):
        return {plain(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return value


def _split(layout: object, body: bytes) -> dict[str, Int64]:
    if not isinstance(layout, list):
        raise WireError("the frame's header lists no arrays")
    n_whole = len(body) // _INT64.itemsize
    entries = np.frombuffer(body, dtype=_INT64, count=n_whole).astype(np.int64)
    arrays: dict[str, Int64] = {}
    offset = 0
    for entry in layout:
        match entry:
            case [str() as name, int() as size] if size >= 0:
                end = offset + size
            case _:
                raise WireError(f"an array is described as {entry!r}; expected [name, size]")
        if end > n_whole:
            raise WireError(f"the array {name!r} reaches past the frame's end")
        arrays[name] = entries[offset:end]
        offset = end
    if left := len(body) - offset * _INT64.itemsize:
        raise WireError(f"{left} bytes of the frame belong to no array")
    return arrays


def burst_frame(burst: Burst, extra: Mapping[str, Any]) -> Frame:
    """Return a burst as a frame; ``extra`` joins its header."""
    arrays = {"start_ns": burst.start_ns, "duration_ns": burst.duration_ns}
    if burst.wait_ns is not None:
        arrays["wait_ns"] = burst.wait_ns
    for name in _HOST_TIMES:
        if (values := getattr(burst, name)) is not None:
            arrays[name] = values
    counters = {name: getattr(burst, name) for name in _COUNTERS}
    return Frame(header={**extra, **counters, "probe_ns": burst.probe_ns}, arrays=arrays)


def burst_from(frame: Frame) -> Burst:
    """Read a burst and check that it can be one.

    Raises:
        WireError: lengths differ, a duration is not positive, or a counter is missing.
    """
    header, arrays = frame.header, frame.arrays
    try:
        start, duration = arrays["start_ns"], arrays["duration_ns"]
        counters = {name: header[name] for name in _COUNTERS}
    except KeyError as error:
        raise WireError(f"the burst lacks {error.args[0]!r}") from error
    wait = arrays.get("wait_ns")
    probe = header.get("probe_ns")
    numbers = [*counters.values(), *([] if probe is None else [probe])]
    if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in numbers):
        raise WireError(f"the burst's counters are {numbers}; expected whole numbers from 0 up")
    if counters["calls_per_sample"] < 1:
        raise WireError("the burst has 0 calls a sample; expected at least 1")
    if duration.size == 0 or duration.size != start.size:
        raise WireError(f"the burst has {start.size} starts and {duration.size} durations")
    if wait is not None and wait.size != duration.size:
        raise WireError(f"the burst has {wait.size} waits for {duration.size} durations")
    if (shortest := int(duration.min())) <= 0:
        raise WireError(f"a call took {shortest} ns; expected more than 0")
    # Without its sign a wait below 0 is longer than any call.
    if wait is not None and (wait.view(np.uint64) > duration.view(np.uint64)).any():
        raise WireError("a call waited for less than 0 ns or longer than it took")
    host = {name: arrays[name] for name in _HOST_TIMES if name in arrays}
    for name, values in host.items():
        if values.size != duration.size or int(values.min()) < 0:
            raise WireError(f"the burst's {name} are not one time from 0 up for every sample")
    return Burst(
        start_ns=start,
        duration_ns=duration,
        wait_ns=wait,
        probe_ns=probe,
        enqueue_ns=host.get("enqueue_ns"),
        end_to_end_ns=host.get("end_to_end_ns"),
        **counters,
    )


def disturbance_from(data: Mapping[str, Any]) -> Disturbance:
    """Read a disturbance from plain data.

    Raises:
        TypeError: it is none.
    """
    told = {"foreign_processes": (), **data}
    others = tuple(ForeignProcess(**process) for process in told["foreign_processes"])
    return Disturbance(**{**told, "foreign_processes": others})


def device_from(data: Mapping[str, Any]) -> DeviceRef:
    """Read what a worker needs of a device reference."""
    options = DeviceOptions(**data["options"])
    return DeviceRef(name=data["name"], factory=data["factory"], options=options)
