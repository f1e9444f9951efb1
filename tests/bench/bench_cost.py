"""What does a measurement cost, and what does the host itself use meanwhile?

    python -m tests.bench.bench_cost [--campaign] [--out F.jsonl] [--max-time 10m] [--quick]

100 blocks under 10 ms, drawn from the distinct blocks of the spaces, measured in one campaign on
``cpu``: seconds a block, start of the workers and everything else included, at the quick preset
(bar 1.5 s) and the standard one (5 s).

*Host*: CPU time of the engine's process alone, its workers apart, from the first timed burst of
the campaign to the last, over the wall time between them; the bar is 2 % of a core.

``--campaign`` adds ``hwprof profile`` of all distinct blocks of ``proxylessnas`` at 224 px
(isolated, hot, quick preset) into a run folder; bar 8 minutes on two cores. Its host use, from its
first round to its last, includes the run folder's writing.

Each campaign is one cell: about 2 minutes at quick, 6 at standard, 2 for ``--campaign``.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from hwprof import api
from hwprof.campaign import isolated_workloads
from hwprof.devices import device_ref
from hwprof.measure.engine import measure
from hwprof.measure.records import (
    DeviceOptions,
    Failure,
    Fingerprint,
    LabelledBurst,
    Measurement,
    plan_for,
)
from hwprof.progress import Progress
from hwprof.space import get_space
from hwprof.workload import Workload
from tests.bench import common, otherwork
from tests.bench.common import Cell, Cells, Job

SPACES = ("proxylessnas", "ofa-mbv3-w1.0", "ofa-resnet50", "nasbench201")
N_BLOCKS = 100
LONGEST_S = 10e-3
BARS_S = {"quick": 1.5, "standard": 5.0}
EXPECTED_S = {"quick": 1.2, "standard": 4.0}
"""A block."""
HOST_BAR_PCT = 2.0
CAMPAIGN_SPACE, CAMPAIGN_PX, CAMPAIGN_BAR_S = "proxylessnas", 224, 480.0


@dataclass(kw_only=True)
class HostUse:
    """When bursts came in and what CPU time was spent till then; a sink that keeps nothing else."""

    first: tuple[float, float] | None = None
    last: tuple[float, float] = (0.0, 0.0)

    def opened(self, fingerprint: Fingerprint) -> None:
        """Nothing to compare with."""

    def burst(self, workload: Workload, burst: LabelledBurst) -> None:
        """Note wall and CPU time."""
        if "first" not in burst.causes:
            self.note()

    def reference(self, beside: Workload, burst: LabelledBurst) -> None:
        """Nothing to note: the candidates' bursts stand around it."""

    def progressed(self, progress: Progress) -> None:
        """Note them behind a round of a campaign."""
        if progress.label.startswith("round"):
            self.note()

    def note(self) -> None:
        """Note wall and CPU time."""
        self.last = (time.monotonic(), time.process_time())
        if self.first is None:
            self.first = self.last

    def done(self, measurement: Measurement) -> None:
        """Nothing to keep."""

    def failed(self, failure: Failure) -> None:
        """Nothing to keep."""

    @property
    def share_pct(self) -> float:
        """CPU time over wall time from the first timed burst to the last, in percent."""
        assert self.first is not None
        wall_s, cpu_s = np.subtract(self.last, self.first).tolist()
        return float(100 * cpu_s / wall_s)


def blocks(n: int) -> list[Workload]:
    """Return ``n`` distinct blocks, drawn once and for all."""
    every = [w for name in SPACES for w in isolated_workloads(get_space(name))]
    distinct = list({w.key: w for w in every}.values())
    chosen = np.random.default_rng(0).choice(len(distinct), n, replace=False)
    return [distinct[i] for i in chosen]


def measured(preset: str, n: int, seed: int) -> Cell:
    """Measure ``n`` blocks in one campaign."""
    todo, host, watch = blocks(n), HostUse(), otherwork.Watch()
    plan = plan_for(preset, seed=seed)
    results = list(measure(todo, device_ref("cpu", DeviceOptions()), plan, sink=host))
    load = watch.load()
    found = [r for r in results if isinstance(r, Measurement)]
    return {
        "n": len(todo),
        "n_failed": len(results) - len(found),
        "n_longer": sum(m.level_s >= LONGEST_S for m in found),
        "verdicts": Counter(m.verdict for m in found),
        "level_s": float(np.median([m.level_s for m in found])),
        "host_pct": host.share_pct,
        **asdict(load),
    }


def campaign(seed: int) -> Cell:
    """Profile the space's blocks alone, as a user does."""
    host, watch = HostUse(), otherwork.Watch()
    with tempfile.TemporaryDirectory() as folder:
        found = api.profile(
            space=CAMPAIGN_SPACE,
            resolution_px=CAMPAIGN_PX,
            out=f"{folder}/run",
            networks=0,
            preset="quick",
            seed=seed,
            progress=host.progressed,
        )
        load = watch.load()
        frame = found.to_frame()
    return {
        "n": found.n_done + found.n_failed,
        "n_failed": found.n_failed,
        "n_longer": int((frame["level_s"] >= LONGEST_S).sum()),
        "verdicts": Counter(frame["verdict"]),
        "level_s": float(frame["level_s"].median()),
        "host_pct": host.share_pct,
        **asdict(load),
    }


def rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return what every campaign cost."""
    found = []
    for c in cells:
        what, preset = c["key"]["what"], c["key"]["preset"]
        each_s = c["seconds"] / c["n"]
        whole = what == CAMPAIGN_SPACE
        within = c["seconds"] <= CAMPAIGN_BAR_S if whole else each_s <= BARS_S[preset]
        found.append(
            {
                "campaign": what,
                "preset": preset,
                "blocks": c["n"],
                "failed": c["n_failed"],
                "over 10 ms": c["n_longer"],
                "verdicts": ", ".join(f"{n} {verdict}" for verdict, n in c["verdicts"].items()),
                "median level, ms": 1e3 * c["level_s"],
                "seconds": f"{c['seconds']:.0f}",
                "a block, s": each_s,
                "bar, s": f"{CAMPAIGN_BAR_S:g} in all" if whole else f"{BARS_S[preset]:g} a block",
                "within": "yes" if within else "no",
                "host, % of a core": c["host_pct"],
                "host within 2 %": "yes" if c["host_pct"] <= HOST_BAR_PCT else "no",
                "foreign cores": c["foreign_cores"],
                "steal, %": 100 * c["steal_share"],
            }
        )
    return found


def main() -> None:
    """Measure what is missing; print the summary."""
    parser = common.parser(__doc__, "cost")
    parser.add_argument("--presets", default="quick,standard")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--campaign", action="store_true", help=f"also {CAMPAIGN_SPACE}, whole")
    options = parser.parse_args()
    deadline_s = time.monotonic() + options.max_time
    n = 4 if options.quick else N_BLOCKS
    cells = Cells.open(options.out)
    jobs = [
        Job(
            key={"what": f"{n} blocks", "preset": preset, "repeat": i},
            run=partial(measured, preset, n, options.seed + i),
            expected_s=n * EXPECTED_S[preset],
        )
        for i in range(options.repeats)
        for preset in options.presets.split(",")
    ]
    if options.campaign:
        jobs += [
            Job(
                key={"what": CAMPAIGN_SPACE, "preset": "quick", "repeat": i},
                run=partial(campaign, options.seed + i),
                expected_s=69 * EXPECTED_S["quick"],
            )
            for i in range(options.repeats)
        ]
    common.measure_missing(cells, jobs, deadline_s)
    common.finish(options.out, cells, {"Cost": rows(cells.select())})


if __name__ == "__main__":
    main()
