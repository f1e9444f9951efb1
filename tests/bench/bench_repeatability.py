"""Does the same workload give the same number again, and does anybody else's method?

    python -m tests.bench.bench_repeatability [--out F.jsonl] [--max-time 10m] [--quick]

Coefficient of variation of the level over 20 fresh runs (new workers, another order of bursts,
the same weights) at one preset, of a 0.5 ms block and a 10 ms network, on ``cpu`` and
``cpu-torch``, quiet and beside a process that keeps a core busy. The bar is 1 %; 2 % for a
network beside the busy process; 3 % on torch.

Beside it, out of the same bursts: the level from the bursts' tenth percentiles, and the median of
all calls. And, each in a fresh process that ends when as many seconds have passed, its start included,
as hwprof's last run took: of one plain loop the median, the mean (what onnxruntime_perf_test and
its like report) and the tenth percentile; ``torch.utils.benchmark``'s ``blocked_autorange`` and
``adaptive_autorange`` (which ends earlier by its own rule). The runs of all methods take turns in
random order, one repetition after the other, so that all meet the same weather, and a run that is
cut short has as many of each. Intervals are 95 %, BCa bootstrap.

On ``cpu-torch`` the others have the system's malloc, as whoever writes such a loop has, and
hwprof's workers one that keeps its memory: what lies between them is method and allocator together.
Only the rows out of hwprof's own bursts compare methods alone.

All of it takes three hours or more at the standard preset, 80 minutes with ``--preset quick``.
With ``--others 8``, 8 repetitions of the other methods spread over hwprof's 20, it is less;
``--devices``, ``--loads``, ``--workloads`` and ``--repetitions`` choose less too.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tests.bench import common, otherwork
from tests.bench.common import Cell, Cells, Job

METHODS = ("hwprof", "loop", "blocked", "adaptive")
FIGURES = (
    ("hwprof", "hwprof", "level_s"),
    ("hwprof's bursts, tenth percentiles", "hwprof", "tenths_s"),
    ("hwprof's bursts, median of all calls", "hwprof", "median_s"),
    ("loop, median", "loop", "median_s"),
    ("loop, mean", "loop", "mean_s"),
    ("loop, p10", "loop", "p10_s"),
    ("torch blocked_autorange", "blocked", "median_s"),
    ("torch adaptive_autorange", "adaptive", "median_s"),
)
EXPECTED_S = {
    ("block", "cpu"): 7.0,
    ("network", "cpu"): 8.0,
    ("block", "cpu-torch"): 24.0,
    ("network", "cpu-torch"): 50.0,
}
"""Of a run at the standard preset."""
FIRST_S = 8.0
"""What a plain loop gets where hwprof has no run to be compared with."""


class Group(NamedTuple):
    """What the runs of one coefficient of variation have in common."""

    workload: str
    device: str
    load: str
    preset: str

    @property
    def bar_pct(self) -> float:
        """The largest coefficient of variation that is good enough."""
        if self.device == "cpu-torch":
            return 3.0
        return 2.0 if (self.workload, self.load) == ("network", "busy") else 1.0

    @property
    def expected_s(self) -> float:
        """What a run takes, about."""
        return EXPECTED_S[self.workload, self.device] * (0.3 if self.preset == "quick" else 1.0)


def measured(cells: Cells, group: Group, method: str, seed: int) -> Cell:
    """Measure one cell."""
    workload = common.WORKLOADS[group.workload]()
    with otherwork.competitor(group.load) as beside:
        if method == "hwprof":
            return common.engine_run(
                workload, group.device, group.preset, seed, beside, cells.history
            )
        runs = cells.select(**group._asdict(), method="hwprof")
        seconds = runs[-1]["seconds"] if runs else FIRST_S
        return common.plain_run(workload, group.device, method, seconds, beside)


def jobs(cells: Cells, groups: Sequence[Group], counts: Mapping[str, int], seed: int) -> list[Job]:
    """Return every cell, repetition by repetition, in random order within one.

    ``counts`` are each method's repetitions; the fewer ones are spread over all.
    """
    found = []
    n = max(counts.values())
    for repetition in range(n):
        rng = np.random.default_rng([seed, repetition])
        due = [m for m, k in counts.items() if (repetition + 1) * k // n > repetition * k // n]
        pairs = list(itertools.product(groups, due))
        order = [pairs[i] for i in rng.permutation(len(pairs))]
        if repetition == 0:  # hwprof first: the others get the seconds that it took
            order.sort(key=lambda pair: pair[1] != "hwprof")
        found += [
            Job(
                key={**group._asdict(), "method": method, "repetition": repetition},
                run=partial(measured, cells, group, method, seed + repetition),
                expected_s=3.0 if method == "adaptive" else group.expected_s,
            )
            for group, method in order
        ]
    return found


def rows(cells: Cells, group: Group, seed: int) -> list[dict[str, Any]]:
    """Return what each method's runs say of the group."""
    base = [c["level_s"] for c in cells.select(**group._asdict(), method="hwprof")]
    found = []
    for label, method, field in FIGURES:
        values = [c[field] for c in cells.select(**group._asdict(), method=method)]
        if len(values) < 2 or len(base) < 2:
            continue
        cv = common.bootstrap(common.cv_pct, values, seed=seed)
        found.append(
            {
                **group._asdict(),
                "method": label,
                "runs": len(values),
                "mean, ms": 1e3 * float(np.mean(values)),
                "CV, %": cv,
                "CV / hwprof's": "1"
                if field == "level_s"
                else common.bootstrap(common.cv_ratio, values, base, seed=seed),
                "bar, %": group.bar_pct,
                "within": "yes" if cv.value <= group.bar_pct else "no",
            }
        )
    return found


def conditions(cells: Cells, group: Group) -> dict[str, Any]:
    """Return under what conditions hwprof's runs stood, and what it said of them."""
    runs = cells.select(**group._asdict(), method="hwprof")
    verdicts = Counter(c["verdict"] for c in runs)
    return {
        **group._asdict(),
        "runs": len(runs),
        "seconds": float(np.median([c["seconds"] for c in runs])),
        "foreign cores": float(np.median([c["foreign_cores"] for c in runs])),
        "steal, %": 100 * float(np.median([c["steal_share"] for c in runs])),
        **(_clockwise(runs) if len(runs) > 2 else {}),
        "quiet runs": sum(map(otherwork.is_quiet, runs)),
        "verdicts": ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common()),
    }


def _clockwise(runs: Sequence[Cell]) -> dict[str, float]:
    """Return how levels go with the clock probe's time (fixed work without memory) over the runs."""
    level, clock, reference = (
        np.array([c[field] for c in runs]) for field in ("level_s", "probe_s", "reference_level_s")
    )
    return {
        "CV of level / clock, %": common.cv_pct(level / clock),
        "CV of clock, %": common.cv_pct(clock),
        "CV of reference block, %": common.cv_pct(reference),
        "r with clock": float(np.corrcoef(np.log(clock), np.log(level))[0, 1]),
        "% for 1 % of clock": float(np.polyfit(np.log(clock), np.log(level), 1)[0]),
    }


def main() -> None:
    """Measure what is missing; print the summary."""
    parser = common.parser(__doc__, "repeatability")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--others", type=int, help="repetitions of other methods; by default all")
    parser.add_argument("--workloads", default="block,network")
    parser.add_argument("--devices", default="cpu,cpu-torch")
    parser.add_argument("--loads", default="quiet,busy")
    parser.add_argument("--preset", default="standard", choices=("quick", "standard", "strict"))
    options = parser.parse_args()
    deadline_s = time.monotonic() + options.max_time
    chosen = (options.workloads, options.devices, options.loads, options.preset)
    groups = [Group(*each) for each in itertools.product(*(text.split(",") for text in chosen))]
    if options.quick:
        groups, options.repetitions, options.others = groups[:1], 2, 2
    others = options.repetitions if options.others is None else options.others
    counts = {m: options.repetitions if m == "hwprof" else others for m in METHODS}
    cells = Cells.open(options.out)
    common.measure_missing(cells, jobs(cells, groups, counts, options.seed), deadline_s)
    begun = [g for g in groups if cells.select(**g._asdict(), method="hwprof")]
    tables = {
        "Repeatability": [row for g in begun for row in rows(cells, g, options.seed)],
        "Conditions of hwprof's runs": [conditions(cells, g) for g in begun],
    }
    common.finish(options.out, cells, tables)


if __name__ == "__main__":
    main()
