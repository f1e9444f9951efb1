"""How often does the 95 % interval hold what it is an interval for?

    python -m tests.bench.bench_coverage [--out F.jsonl] [--also F2.jsonl]… [--max-time 10m] [--quick]

The interval's stated target is what other sessions find: the median of their levels.
Fresh runs of the 0.5 ms block and the 10 ms network, quick and standard preset, take turns in
random order. A run's truth is the median level of all *other* runs of that workload and preset: data
independent of the run's own. A run counts as covered if its ``ci95_s`` holds that; the bar is 93 to
97 %. Intervals of the coverage are 95 % by Clopper and Pearson; the truths of two runs share most of
their runs, so that these are a little too narrow.

Beside it stands the *pooled* level, the lower quartile over the workers of all other runs. Where
sessions hardly differ it is the same; where they do, the fast quarter of the workers is that of the fast
sessions, and lies below what a typical one finds.

Should the machine itself change over the hours, all runs together are not what a run could have
seen: *near in time* takes the truth from the 10 runs nearest in time, 5 on each side. It errs towards
missing, for so few leave the truth itself uncertain. The drift of the level over the runs (Theil and
Sen's slope from first to last run, Kendall's p) tells whether the two differ for a reason.

What sessions differ by is learned as for any user (:mod:`hwprof.measure.session_spread`): from the
benchmark's own earlier sessions, beginning with none. *Machine known* are the runs whose evidence
does not say that this is mostly assumed; *by the constant alone* is what the same runs would hold if nothing
were learned, and the protocol's constant were all that sessions may differ by.

``--also`` takes in hwprof's quiet runs of ``bench_repeatability`` and ``bench_verdicts`` files of
the same machine and engine; as many runs fewer are measured. About 30 minutes without any.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from hwprof.interval import NORMAL_975
from hwprof.measure.floor import SESSION_SD, interval_s
from hwprof.measure.session_spread import FEW_SESSIONS
from hwprof.protocols import SessionHistory
from tests.bench import common, otherwork
from tests.bench.common import Cell, Cells, Job

RUNS = {"quick": 100, "standard": 40}
EXPECTED_S = {"quick": 5.5, "standard": 6.5}
NEAREST = 5
"""Runs on each side that make the truth near in time."""


def typical_level_s(runs: Sequence[Cell]) -> float:
    """Return the median level of ``runs``."""
    return float(np.median([c["level_s"] for c in runs]))


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


def unlearned(run: Cell) -> Cell:
    """Return the run as if nothing were known of earlier sessions."""
    within = math.sqrt(_half_log(run) ** 2 - (NORMAL_975 * run["session_sd"]) ** 2)
    return {**run, "ci95_s": interval_s(run["level_s"], within, SESSION_SD)}


def _half_log(run: Cell) -> float:
    low, high = run["ci95_s"]
    return 0.5 * math.log(high / low)


def outcomes(runs: Sequence[Cell]) -> dict[str, list[bool]]:
    """Return, by what is asked, whether each run's interval holds its truth."""
    truths_s = [typical_level_s(others(runs, i)) for i in range(len(runs))]
    pairs = list(zip(runs, truths_s, strict=True))
    return {
        "held": [is_held(run, s) for run, s in pairs],
        "held, machine known": [
            is_held(run, s) for run, s in pairs if (run["sessions_known"] or 0) >= FEW_SESSIONS
        ],
        "held by the constant alone": [is_held(unlearned(run), s) for run, s in pairs],
        "held, near in time": [
            is_held(run, typical_level_s(others(runs, i, NEAREST))) for i, run in enumerate(runs)
        ],
        "held the pooled level": [
            is_held(run, pooled_floor_s(others(runs, i))) for i, run in enumerate(runs)
        ],
    }


def row(workload: str, preset: str, runs: Sequence[Cell]) -> dict[str, Any]:
    """Return coverage and width over ``runs``, in order of time."""
    levels = np.array([c["level_s"] for c in runs])
    widths = [(c["ci95_s"][1] - c["ci95_s"][0]) / c["level_s"] for c in runs]
    order = np.arange(len(runs))
    slope = stats.theilslopes(levels / np.median(levels), order).slope
    return {
        "workload": workload,
        "preset": preset,
        "runs": len(runs),
        **shares(outcomes(runs)),
        "half-width, %": 50 * float(np.median(widths)),
        "CV, %": float(common.cv_pct(levels)),
        "drift, %": 100 * float(slope) * (len(runs) - 1),
        "p of drift": float(stats.kendalltau(order, levels).pvalue),
        "quiet runs": sum(map(otherwork.is_quiet, runs)),
    }


def shares(found: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    """Return every outcome as a share with its interval."""
    return {f"{name}, %": common.share_pct(sum(held), len(held)) for name, held in found.items()}


def together(groups: Sequence[Sequence[Cell]]) -> list[dict[str, Any]]:
    """Return the outcomes of all workloads and presets as one row."""
    found: dict[str, list[bool]] = {}
    for runs in groups:
        for name, held in outcomes(runs).items():
            found.setdefault(name, []).extend(held)
    counts = {f"{name}, n": f"{sum(held)} of {len(held)}" for name, held in found.items()}
    return [{**shares(found), **counts}] if found else []


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
    measured_runs = {}
    for name, preset in groups:
        own = cells.select(workload=name, device=options.device, preset=preset)
        runs = sorted([*own, *borrowed[name, preset]], key=lambda c: c["at_s"])
        if len(runs) > 1:
            measured_runs[name, preset] = runs
    tables = {
        "Coverage of the 95 % interval": [
            row(*group, runs) for group, runs in measured_runs.items()
        ],
        "All of them": together(list(measured_runs.values())),
    }
    common.finish(options.out, cells, tables)


if __name__ == "__main__":
    main()
