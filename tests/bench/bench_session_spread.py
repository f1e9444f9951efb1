"""How far apart are sessions on this machine, and does the reference block tell?

    python -m tests.bench.bench_session_spread [--out F.jsonl] [--max-time 10m] [--quick]

Fresh sessions at the quick preset, each with the same blocks and networks side by side. For each of
them: the coefficient of variation of its level over the sessions; what a session does not know
about the level itself (the standard error of its workers and rounds, root of the mean square);
what is left is how far sessions lie apart. A session's interval is widened by what is left for the
reference block (*over the reference's*), by ``LONG_CALLS`` times that for calls over 3 ms. Intervals
are 95 %, BCa bootstrap over sessions. About 14 seconds a session.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from hwprof.api.models import raise_failure
from hwprof.campaign import isolated_workloads
from hwprof.devices import device_ref
from hwprof.measure.engine import measure
from hwprof.measure.floor import within_session
from hwprof.measure.level import floor_table, used_bursts
from hwprof.measure.records import DeviceOptions, Fingerprint, plan_for
from hwprof.measure.session_spread import SessionLevel
from hwprof.space import get_space
from hwprof.workload import Workload
from tests.bench import common
from tests.bench.common import Cell, Cells, Floats, Job

SESSIONS = 60
EXPECTED_S = 14.0
REFERENCE = "reference block"
SAMPLED = ("ofa-mbv3-w1.0", "proxylessnas")


def workloads() -> list[Workload]:
    """Return short blocks of three spaces and networks of 3 to 10 ms."""
    blocks = [
        isolated_workloads(get_space(name))[place]
        for name, place in (("ofa-mbv3-w1.2", 40), ("ofa-resnet50", 12), ("nasbench201", 3))
    ]
    rng = np.random.default_rng(3)
    networks = [Workload.network(get_space(n).sample(rng), f"a network of {n}") for n in SAMPLED]
    return [common.block(), *blocks, common.network(), *networks]


def measured(seed: int) -> Cell:
    """Measure one session."""
    plan, reference = plan_for("quick", seed=seed), _Reference()
    levels: dict[str, list[float]] = {}
    for result in measure(workloads(), device_ref("cpu", DeviceOptions()), plan, history=reference):
        found = raise_failure(result)
        se = within_session(floor_table(used_bursts(found.bursts), threads=1).floors_s).se
        levels[found.workload.label] = [found.level_s, se]
    assert reference.session is not None
    first = {REFERENCE: [reference.session.level_s, reference.session.se]}
    return {"at_s": time.time(), "levels": {**first, **levels}}


class _Reference:
    """A history that knows nothing and keeps what the session says of the reference block."""

    session: SessionLevel | None = None

    def known(self, fingerprint: Fingerprint) -> Sequence[SessionLevel]:
        return ()

    def add(self, fingerprint: Fingerprint, session: SessionLevel) -> None:
        self.session = session


def apart_pct(log_levels: Floats, own_variance: float, axis: int = -1) -> Floats:
    """Return what sessions differ by beyond what they do not know themselves, in percent."""
    left = log_levels.var(axis=axis, ddof=1) - own_variance
    found: Floats = 100 * np.sqrt(np.maximum(left, 0.0))
    return found


def rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return one row a workload, the reference block first."""
    found: list[dict[str, Any]] = []
    for name in cells[0]["levels"]:
        levels, se = np.array([c["levels"][name] for c in cells]).T
        logs, own_variance = np.log(levels), float(np.square(se).mean())
        apart = common.bootstrap(partial(apart_pct, own_variance=own_variance), logs)
        reference = found[0]["apart, %"].value if found else apart.value
        found.append(
            {
                "workload": name,
                "level, ms": 1e3 * float(np.exp(logs.mean())),
                "sessions": logs.size,
                "CV, %": 100 * float(logs.std(ddof=1)),
                "own error, %": 100 * math.sqrt(own_variance),
                "apart, %": apart,
                "over the reference's": apart.value / reference if reference else np.nan,
            }
        )
    return found


def main() -> None:
    """Measure what is missing; print the summary."""
    parser = common.parser(__doc__, "session-spread")
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    options = parser.parse_args()
    deadline_s = time.monotonic() + options.max_time
    cells = Cells.open(options.out)
    jobs = [
        Job(key={"session": i}, run=partial(measured, options.seed + i), expected_s=EXPECTED_S)
        for i in range(3 if options.quick else options.sessions)
    ]
    common.measure_missing(cells, jobs, deadline_s)
    kept = cells.select()
    common.finish(options.out, cells, {"Sessions apart": rows(kept) if len(kept) > 2 else []})


if __name__ == "__main__":
    main()
