"""Frames survive the trip; anything else is a typed error, whatever the bytes are."""

from __future__ import annotations

import contextlib
import io
import json
import struct
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwprof.measure import wire
from hwprof.measure.framing import MAGIC
from hwprof.measure.records import Burst, DeviceOptions, DeviceRef, MeasurePlan, plan_for
from hwprof.protocols import Disturbance, ForeignProcess


def reader(data: bytes) -> Callable[[int], bytes]:
    stream = io.BytesIO(data)

    def read_exactly(size: int) -> bytes:
        part = stream.read(size)
        if len(part) < size:
            raise wire.StreamClosedError("the end")
        return part

    return read_exactly


def raw(header: bytes, body: bytes = b"", magic: bytes = MAGIC) -> bytes:
    return struct.pack(">4sIQ", magic, len(header), len(body)) + header + body


def make_burst(**changes: object) -> Burst:
    fields = {
        "start_ns": np.array([0, 20]),
        "duration_ns": np.array([10, 12]),
        "wait_ns": np.array([0, 3]),
        "calls_per_sample": 2,
        "involuntary_switches": 1,
        "page_faults": 4,
        "cpu_ns": 22,
        "probe_ns": 99,
        **changes,
    }
    return Burst(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("wait", [np.array([0, 3]), None])
@pytest.mark.parametrize("probe", [99, None])
def test_bursts_survive_the_trip(wait: np.ndarray | None, probe: int | None) -> None:
    sent = make_burst(wait_ns=wait, probe_ns=probe)
    frame = wire.decode(reader(wire.encode(wire.burst_frame(sent, {"disturbance": None}))))
    got = wire.burst_from(frame)
    assert got.duration_ns.dtype == np.int64
    np.testing.assert_array_equal(got.start_ns, sent.start_ns)
    np.testing.assert_array_equal(got.duration_ns, sent.duration_ns)
    if wait is None:
        assert got.wait_ns is None
    else:
        np.testing.assert_array_equal(got.wait_ns, wait)
    assert (got.calls_per_sample, got.page_faults, got.probe_ns) == (2, 4, probe)
    assert frame.header["disturbance"] is None


def test_two_frames_follow_each_other() -> None:
    read = reader(
        wire.encode(wire.Frame(header={"op": "a"})) + wire.encode(wire.Frame(header={"op": "b"}))
    )
    assert [wire.decode(read).header["op"] for _ in range(2)] == ["a", "b"]
    with pytest.raises(wire.StreamClosedError):
        wire.decode(read)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"Loading model, please wait...", "expected a frame"),
        (raw(b"{}", magic=b"hwp9"), "expected a frame"),
        (raw(b"not json"), "no JSON"),
        (raw(b"\xff\xfe"), "no JSON"),
        (raw(b"[1]"), "not an object"),
        (raw(b"{}"), "lists no arrays"),
        (raw(b'{"arrays": [["x", 2]]}', b"12345678"), "past the frame's end"),
        (raw(b'{"arrays": []}', b"12345678"), "belong to no array"),
        (raw(b'{"arrays": [["x", -1]]}'), "expected \\[name, size\\]"),
        (raw(b'{"arrays": [7]}'), "expected \\[name, size\\]"),
        (struct.pack(">4sIQ", MAGIC, 2**32 - 1, 0), "beyond the limit"),
        (struct.pack(">4sIQ", MAGIC, 2, 2**63), "beyond the limit"),
    ],
)
def test_garbage_is_a_typed_error(data: bytes, words: str) -> None:
    with pytest.raises(wire.WireError, match=words):
        wire.decode(reader(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_give_a_frame_or_a_wire_error(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.burst_from(wire.decode(reader(MAGIC + data)))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_frame_never_escapes_the_error_type(place: int, value: int) -> None:
    data = bytearray(wire.encode(wire.burst_frame(make_burst(), {})))
    data[place % len(data)] = value
    with contextlib.suppress(wire.WireError):
        wire.burst_from(wire.decode(reader(bytes(data))))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"duration_ns": np.array([10, 0])}, "took 0 ns"),
        ({"duration_ns": np.array([10, -5])}, "took -5 ns"),
        ({"duration_ns": np.array([10])}, "2 starts and 1 durations"),
        ({"start_ns": np.array([], int), "duration_ns": np.array([], int)}, "0 starts"),
        ({"wait_ns": np.array([0])}, "1 waits for 2"),
        ({"wait_ns": np.array([0, 13])}, "longer than it took"),
        ({"wait_ns": np.array([-1, 0])}, "less than 0"),
        ({"calls_per_sample": 0}, "0 calls a sample"),
        ({"page_faults": -1}, "whole numbers"),
        ({"cpu_ns": 1.5}, "whole numbers"),
        ({"probe_ns": "fast"}, "whole numbers"),
    ],
)
def test_impossible_bursts_are_refused(changes: dict[str, object], words: str) -> None:
    frame = wire.decode(reader(wire.encode(wire.burst_frame(make_burst(**changes), {}))))
    with pytest.raises(wire.WireError, match=words):
        wire.burst_from(frame)


def test_nan_never_leaves() -> None:
    with pytest.raises(ValueError, match="JSON"):
        wire.encode(wire.Frame(header={"x": float("nan")}))


def test_references_and_plans_survive_json() -> None:
    ref = DeviceRef(name="null", factory="a:B", options=DeviceOptions(threads=2, script="{}"))
    assert wire.device_from(json.loads(json.dumps(asdict(ref)))) == ref
    plan = plan_for("standard", target_rel=0.03)
    assert MeasurePlan.from_json(json.loads(json.dumps(asdict(plan)))) == plan


def test_a_disturbance_comes_back_as_it_was() -> None:
    """Of a device that tells of other processes, and of an adapter that knows no such thing."""
    other = ForeignProcess(pid=7, name="python", memory_bytes=2**20)
    sent = Disturbance(throttled=True, foreign_processes=(other,), readings={"sm_mhz": 1980.0})
    assert wire.disturbance_from(json.loads(json.dumps(asdict(sent)))) == sent
    assert wire.disturbance_from({"foreign_cores": 0.5}) == Disturbance(foreign_cores=0.5)
    with pytest.raises(TypeError):
        wire.disturbance_from({"foreign_processes": [{"name": "no pid"}]})
