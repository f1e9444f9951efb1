"""Raw samples as compact bytes, and bursts as database rows."""

from __future__ import annotations

import json
import sqlite3
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.errors import StoreError
from hwprof.measure.records import Burst, LabelledBurst

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENCODING = "i8-delta-zlib-1"
"""First value and differences as little-endian int64, deflated. Stored beside every burst."""

BURST_COLUMNS = (
    "worker",
    "round_index",
    "causes",
    "steal_share",
    "foreign_cores",
    "calls_per_sample",
    "involuntary_switches",
    "page_faults",
    "cpu_ns",
    "probe_ns",
    "n_samples",
    "encoding",
    "start_ns",
    "duration_ns",
    "wait_ns",
    "enqueue_ns",
    "end_to_end_ns",
)


def encode(values: NDArray[np.int64]) -> bytes:
    """Return ``int64[n]`` as bytes; neighbouring samples are alike, so differences deflate well."""
    deltas = values.astype("<i8")
    deltas[1:] -= values[:-1]
    return zlib.compress(deltas.tobytes(), level=1)


def decode(data: bytes, encoding: str, n_samples: int) -> NDArray[np.int64]:
    """Return the ``int64[n_samples]`` that :func:`encode` was given.

    Raises:
        StoreError: the encoding is unknown, or the bytes are damaged.
    """
    if encoding != ENCODING:
        raise StoreError(
            f"raw samples are encoded as {encoding!r}; this version reads {ENCODING!r}: "
            "open the run with the version of hwprof that wrote it"
        )
    inflater = zlib.decompressobj()
    try:
        # No more than one beyond what was written: a few damaged bytes may inflate to gigabytes.
        deltas = np.frombuffer(inflater.decompress(data, 8 * n_samples + 8), dtype="<i8")
    except (zlib.error, ValueError) as error:
        raise StoreError(
            f"raw samples of a burst are damaged ({error}); measure again into another folder"
        ) from error
    if deltas.size != n_samples or not inflater.eof:
        raise StoreError(
            f"a burst does not hold the {n_samples} raw samples that were written; measure again "
            "into another folder"
        )
    return np.cumsum(deltas, dtype=np.int64)


def _encoded(values: NDArray[np.int64] | None) -> bytes | None:
    return None if values is None else encode(values)


def burst_row(labelled: LabelledBurst) -> tuple[Any, ...]:
    """Return the values of :data:`BURST_COLUMNS`."""
    burst = labelled.burst
    return (
        labelled.worker,
        labelled.round_index,
        json.dumps(list(labelled.causes)),
        labelled.steal_share,
        labelled.foreign_cores,
        burst.calls_per_sample,
        burst.involuntary_switches,
        burst.page_faults,
        burst.cpu_ns,
        burst.probe_ns,
        burst.n_samples,
        ENCODING,
        encode(burst.start_ns),
        encode(burst.duration_ns),
        *(_encoded(a) for a in (burst.wait_ns, burst.enqueue_ns, burst.end_to_end_ns)),
    )


def burst_from_row(row: sqlite3.Row, causes: tuple[str, ...] | None = None) -> LabelledBurst:
    """Rebuild a burst; ``causes`` replaces the labels it had when it was taken."""
    n_samples, encoding = row["n_samples"], row["encoding"]
    known = row.keys()

    def optional(name: str) -> NDArray[np.int64] | None:
        # Runs that were written before a column existed lack it.
        data = row[name] if name in known else None
        return None if data is None else decode(data, encoding, n_samples)

    burst = Burst(
        start_ns=decode(row["start_ns"], encoding, n_samples),
        duration_ns=decode(row["duration_ns"], encoding, n_samples),
        wait_ns=optional("wait_ns"),
        calls_per_sample=row["calls_per_sample"],
        involuntary_switches=row["involuntary_switches"],
        page_faults=row["page_faults"],
        cpu_ns=row["cpu_ns"],
        probe_ns=row["probe_ns"],
        enqueue_ns=optional("enqueue_ns"),
        end_to_end_ns=optional("end_to_end_ns"),
    )
    return LabelledBurst(
        burst=burst,
        worker=row["worker"],
        round_index=row["round_index"],
        causes=tuple(json.loads(row["causes"])) if causes is None else causes,
        steal_share=row["steal_share"],
        foreign_cores=row["foreign_cores"],
    )
