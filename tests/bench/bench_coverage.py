"""How often does the 95 % interval hold what it is an interval for?

    python -m tests.bench.bench_coverage [--out F.jsonl] [--also F2.jsonl]… [--max-time 10m] [--quick]

The interval's stated target (:mod:`hwprof.measure.level`) is the time of a call that nothing
disturbs, in the lower quartile of the workers, whatever the session.
Fresh runs of the 0.5 ms block and the 10 ms network, quick and standard preset, take turns in
random order. A run's truth is the same lower quartile over the workers of all *other* runs of
that workload and preset, pooled: data independent of the run's own, from many times as many
workers. A run counts as covered if its ``ci95_s`` holds that; the bar is 93 to 97 %.
Intervals of the coverage are 95 % by Clopper and Pearson; the truths of two runs share most of
their workers, so that these are a little too narrow.

Should the machine itself change over the session, the pool of all runs is not what a run could
have seen: the second coverage takes the truth from the 10 runs nearest in time, 5 on each side.
It errs towards missing, for so few workers leave the truth itself uncertain. The drift of the
level over the session (Theil and Sen's slope from first to last run, Kendall's p) tells whether
the two differ for a reason.

What sessions differ by is learned as for any user (:mod:`hwprof.measure.session_spread`): from the
benchmark's own earlier sessions, beginning with none. *Machine known* are the runs of which the
evidence does not say that it hardly is.

``--also`` takes in hwprof's quiet runs of ``bench_repeatability`` and ``bench_verdicts`` files of
the same machine and engine; as many runs fewer are measured. About 30 minutes without any.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from hwprof.measure.session_spread import FEW_SESSIONS
from hwprof.protocols import SessionHistory
from tests.bench import common, otherwork
from tests.bench.common import Cell, Cells, Job

RUNS = {"quick": 100, "standard": 40}
EXPECTED_S = {"quick": 5.5, "standard": 6.5}
NEAREST = 5
"""Runs on each side that make the truth near in time."""


def pooled_floor_s(runs: Sequence[Cell]) -> float:
    """Return the lower quartile over all workers of ``runs``."""
    return float(np.quantile(np.concatenate([c["worker_levels_s"] for c in runs]), 0.25))


def others(runs: Sequence[Cell], i: int, reach: int | None = None) -> list[Cell]:
    """Return all runs but run ``i``, or those at most ``reach`` places before and after it."""
    low, high = (0, len(runs)) if reach is None else (max(0, i - reach), i + reach + 1)
    return [*runs[low:i], *runs[i + 1 : high]]


def is_held(run: Cell, truth_s: float) -> bool:
    """Return whether the run's interval holds the truth."""
    low, high = run["ci95_s"]
    return bool(low <= truth_s <= high)


def row(workload: str, preset: str, runs: Sequence[Cell]) -> dict[str, Any]:
    """Return coverage and width over ``runs``, in order of time."""
    n = len(runs)
    held = [is_held(run, pooled_floor_s(others(runs, i))) for i, run in enumerate(runs)]
    near = [is_held(run, pooled_floor_s(others(runs, i, NEAREST))) for i, run in enumerate(runs)]
    known = [
        h for h, run in zip(held, runs, strict=True) if (run["sessions_known"] or 0) >= FEW_SESSIONS
    ]
    clean = [h for h, run in zip(held, runs, strict=True) if run["verdict"] == "clean"]
    levels = np.array([c["level_s"] for c in runs])
    widths = [(c["ci95_s"][1] - c["ci95_s"][0]) / c["level_s"] for c in runs]
    order = np.arange(n)
    return {
        "workload": workload,
        "preset": preset,
        "runs": n,
        "held, %": common.share_pct(sum(held), n),
        "held, near in time, %": common.share_pct(sum(near), n),
        "runs, machine known": len(known),
        "held, machine known, %": common.share_pct(sum(known), len(known)),
        "held where clean, %": common.share_pct(sum(clean), len(clean)),
        "clean runs": len(clean),
        "half-width, %": 50 * float(np.median(widths)),
        "CV, %": float(common.cv_pct(levels)),
        "drift, %": 100
        * float(stats.theilslopes(levels / np.median(levels), order).slope)
        * (n - 1),
        "p of drift": float(stats.kendalltau(order, levels).pvalue),
        "quiet runs": sum(map(otherwork.is_quiet, runs)),
    }


def measured(key: Mapping[str, Any], seed: int, history: SessionHistory) -> Cell:
    """Measure one run."""
    return common.engine_run(
        common.WORKLOADS[key["workload"]](),
        key["device"],
        key["preset"],
        1000 + seed + key["run"],
        history=history,
    )


def jobs(
    counts: dict[tuple[str, str], int], device: str, seed: int, history: SessionHistory
) -> list[Job]:
    """Return every run, in random order."""
    keys = [
        {"workload": w, "device": device, "preset": p, "run": i}
        for (w, p), n in counts.items()
        for i in range(n)
    ]
    order = np.random.default_rng(seed).permutation(len(keys))
    return [
        Job(
            key=keys[i],
            run=partial(measured, keys[i], seed, history),
            expected_s=EXPECTED_S[keys[i]["preset"]],
        )
        for i in order
    ]


def main() -> None:
    """Measure what is missing; print the summary."""
    parser = common.parser(__doc__, "coverage")
    parser.add_argument(
        "--also", type=Path, action="append", default=[], help="cells of another benchmark"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=RUNS["quick"], help="at the quick preset")
    parser.add_argument("--standard-runs", type=int, default=RUNS["standard"])
    options = parser.parse_args()
    deadline_s = time.monotonic() + options.max_time
    n_runs = {"quick": options.runs, "standard": options.standard_runs}
    if options.quick:
        n_runs = {"quick": 4, "standard": 2}
    cells = Cells.open(options.out)
    groups = list(itertools.product(common.WORKLOADS, n_runs))
    borrowed: dict[tuple[str, str], list[Cell]] = {group: [] for group in groups}
    for path in options.also:
        kept = Cells.open(path).select(load="quiet")
        for cell in kept if options.device == "cpu" else ():
            key = cell["key"]
            if key.get("device", "cpu") == "cpu" and key.get("method", "hwprof") == "hwprof":
                borrowed[key["workload"], key.get("preset", "standard")].append(cell)
    counts = {(w, p): max(0, n_runs[p] - len(borrowed[w, p])) for w, p in groups}
    due = jobs(counts, options.device, options.seed, cells.history)
    common.measure_missing(cells, due, deadline_s)
    rows = []
    for name, preset in groups:
        own = cells.select(workload=name, device=options.device, preset=preset)
        runs = sorted([*own, *borrowed[name, preset]], key=lambda c: c["at_s"])
        if len(runs) > 1:
            rows.append(row(name, preset, runs))
    common.finish(options.out, cells, {"Coverage of the 95 % interval": rows})


if __name__ == "__main__":
    main()
