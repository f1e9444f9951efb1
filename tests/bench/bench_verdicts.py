"""Does the verdict tell runs beside other work from quiet ones?

    python -m tests.bench.bench_verdicts [--out F.jsonl] [--max-time 10m] [--quick]

Runs of the 0.5 ms block beside a process that keeps a core busy, beside one that streams through
memory, and quiet, in random order. *Flagged* are the verdicts that name a disturbed machine:
``unconfirmed``, ``drifting``, ``contaminated`` and ``throttled``; ``noisy`` says that the interval
is wider than asked, which a quiet machine may bring about too, and is counted apart. The bars: at
least 95 of 100 loaded runs flagged, at most 5 of 100 quiet ones.

Which runs were quiet says the benchmark's own monitor (foreign load under 0.05 of a core, steal
under 0.5 % of the CPU time, over the whole run). A run in which nothing was injected but the
machine was not quiet is drawn again; these are counted and shown in a row of their own. Intervals
are 95 % by Clopper and Pearson. About 25 minutes; ``--stream-runs`` chooses
fewer beside the stream.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from hwprof.measure.records import VERDICTS
from hwprof.protocols import SessionHistory
from tests.bench import common, otherwork
from tests.bench.common import Cell, Cells, Job

LOADS = ("quiet", "busy", "stream")
MOST_DRAWS = 3
"""Draws for each quiet run that is wanted."""
EXPECTED_S = {"quick": 5.5, "standard": 6.0}
LEAST_FLAGGED_PCT, MOST_FALSE_PCT = 95, 5


def measured(key: Mapping[str, Any], seed: int, history: SessionHistory) -> Cell:
    """Measure one run beside the load."""
    workload = common.WORKLOADS[key["workload"]]()
    with otherwork.competitor(key["load"]) as beside:
        return common.engine_run(
            workload, "cpu", key["preset"], 2000 + seed + key["draw"], beside, history
        )


def jobs(
    workload: str, preset: str, draws: dict[str, int], seed: int, history: SessionHistory
) -> list[Job]:
    """Return every draw of every load, in random order."""
    keys = [
        {"workload": workload, "preset": preset, "load": load, "draw": i}
        for load, n in draws.items()
        for i in range(n)
    ]
    order = np.random.default_rng(seed).permutation(len(keys))
    return [
        Job(
            key=keys[i],
            run=partial(measured, keys[i], seed, history),
            expected_s=EXPECTED_S[preset],
        )
        for i in order
    ]


def row(label: str, runs: Sequence[Cell], bar: str) -> dict[str, Any]:
    """Return how the runs of one kind were judged."""
    verdicts = Counter(c["verdict"] for c in runs)
    n = len(runs)
    return {
        "load": label,
        "runs": n,
        "flagged, %": common.share_pct(n - verdicts["clean"] - verdicts["noisy"], n),
        "bar": bar,
        "not clean, %": common.share_pct(n - verdicts["clean"], n),
        **{verdict: verdicts[verdict] for verdict in VERDICTS},
        "foreign cores": float(np.median([c["foreign_cores"] for c in runs])),
        "steal, %": 100 * float(np.median([c["steal_share"] for c in runs])),
    }


def main() -> None:
    """Measure what is missing; print the summary."""
    parser = common.parser(__doc__, "verdicts")
    parser.add_argument("--runs", type=int, default=100, help="of each kind")
    parser.add_argument("--stream-runs", type=int, help="beside the stream; as many by default")
    parser.add_argument("--preset", default="standard", choices=EXPECTED_S)
    parser.add_argument("--workload", default="block", choices=common.WORKLOADS)
    options = parser.parse_args()
    deadline_s = time.monotonic() + options.max_time
    wanted = 2 if options.quick else options.runs
    cells = Cells.open(options.out)
    which = {"workload": options.workload, "preset": options.preset}

    def drawn(load: str) -> list[Cell]:
        return cells.select(**which, load=load)

    while True:
        unquiet = sum(not otherwork.is_quiet(c) for c in drawn("quiet"))
        draws = dict.fromkeys(LOADS, wanted)
        if options.stream_runs is not None:
            draws["stream"] = options.stream_runs
        draws["quiet"] = min(wanted + unquiet, MOST_DRAWS * wanted)
        planned = jobs(options.workload, options.preset, draws, options.seed, cells.history)
        more = len(drawn("quiet")) < draws["quiet"]
        if not common.measure_missing(cells, planned, deadline_s) or not more:
            break

    nothing = drawn("quiet")
    groups = (
        ("none", [c for c in nothing if otherwork.is_quiet(c)], f"at most {MOST_FALSE_PCT}"),
        ("none, but others worked", [c for c in nothing if not otherwork.is_quiet(c)], "–"),
        ("busy process", drawn("busy"), f"at least {LEAST_FLAGGED_PCT}"),
        ("memory stream", drawn("stream"), f"at least {LEAST_FLAGGED_PCT}"),
    )
    rows = [row(label, runs, bar) for label, runs, bar in groups if runs]
    common.finish(options.out, cells, {f"Verdicts, {options.preset} preset": rows})


if __name__ == "__main__":
    main()
