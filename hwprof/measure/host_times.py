"""What the host does beside a GPU's own time: enqueue and end to end, of the same bursts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwprof.measure.records import LabelledBurst


def host_times(used: Sequence[LabelledBurst]) -> dict[str, float]:
    """Return the medians of the three times of a call, in seconds; {} where the host's clock timed it.

    ``gpu_median_s`` is of the samples themselves. First samples stay out, as everywhere.
    """
    timed = [b.burst for b in used if b.burst.enqueue_ns is not None]
    if not timed:
        return {}
    gpu = [b.duration_ns[1:] / b.calls_per_sample for b in timed]
    enqueue = [b.enqueue_ns[1:] for b in timed if b.enqueue_ns is not None]
    end_to_end = [b.end_to_end_ns[1:] for b in timed if b.end_to_end_ns is not None]
    return {
        "gpu_median_s": _median_s(gpu),
        "enqueue_median_s": _median_s(enqueue),
        "end_to_end_median_s": _median_s(end_to_end),
    }


def _median_s(parts: Sequence[NDArray[np.generic]]) -> float:
    return 1e-9 * float(np.median(np.concatenate(parts)))
