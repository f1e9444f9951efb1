"""How far apart are sessions on this machine, and do the references tell?

    python -m tests.bench.bench_session_spread [--out F.jsonl] [--max-time 10m] [--quick]

Fresh sessions at the quick preset, each with the same blocks and networks side by side. For each of
them: the coefficient of variation of its level over the sessions; what a session does not know
about the level itself (the standard error of its workers and rounds, root of the mean square);
what is left is how far sessions lie apart (*apart*). Every session times hwprof's own references too,
a block and a network; an interval is widened by how far sessions lie apart for the one of its kind,
so that workloads should go with that one: *over the block's* and *over the network's*, and how ln(level)
correlates with each over the sessions. Intervals are 95 %, BCa bootstrap over sessions. About 14
seconds a session.

Would longer sessions agree? The second table takes the mean ln(level) of so many sessions in a row:
were they independent, its coefficient of variation would fall with the root of their number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
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
IN_A_ROW = (1, 2, 4, 8)
EXPECTED_S = 14.0
REFERENCES = ("reference block", "reference network")
BLOCKS = (("ofa-mbv3-w1.2", 40), ("ofa-resnet50", 12), ("nasbench201", 3))
SAMPLED = ("ofa-mbv3-w1.0", "proxylessnas")


def workloads() -> list[Workload]:
    """Return short blocks of three spaces and networks of 3 to 10 ms."""
    blocks = []
    for name, place in BLOCKS:
        block = isolated_workloads(get_space(name))[place]
        blocks.append(replace(block, label=f"{block.label} of {name}"))
    rng = np.random.default_rng(3)
    networks = [Workload.network(get_space(n).sample(rng), f"a network of {n}") for n in SAMPLED]
    return [common.block(), *blocks, common.network(), *networks]


def measured(seed: int) -> Cell:
    """Measure one session."""
    plan, references = plan_for("quick", seed=seed), _References()
    levels: dict[str, list[float]] = {}
    for result in measure(
        workloads(), device_ref("cpu", DeviceOptions()), plan, history=references
    ):
        found = raise_failure(result)
        se = within_session(floor_table(used_bursts(found.bursts), threads=1).floors_s).se
        levels[found.workload.label] = [found.level_s, se]
    return {"at_s": time.time(), "levels": {**references.levels, **levels}}


class _References:
    """A history that knows nothing and keeps what the session says of the references."""

    def __init__(self) -> None:
        self.levels: dict[str, list[float]] = {}

    def known(self, fingerprint: Fingerprint) -> Sequence[SessionLevel]:
        return ()

    def add(self, fingerprint: Fingerprint, session: SessionLevel) -> None:
        self.levels[f"reference {session.kind}"] = [session.level_s, session.se]


def apart_pct(log_levels: Floats, own_variance: float, axis: int = -1) -> Floats:
    """Return what sessions differ by beyond what they do not know themselves, in percent."""
    left = log_levels.var(axis=axis, ddof=1) - own_variance
    found: Floats = 100 * np.sqrt(np.maximum(left, 0.0))
    return found


def rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return one row a workload, the references first."""
    logs = {name: np.log([c["levels"][name][0] for c in cells]) for name in cells[0]["levels"]}
    own = {n: float(np.mean([c["levels"][n][1] ** 2 for c in cells])) for n in logs}
    apart = {
        name: common.bootstrap(partial(apart_pct, own_variance=own[name]), values)
        for name, values in logs.items()
    }
    return [
        {
            "workload": name,
            "level, ms": 1e3 * float(np.exp(values.mean())),
            "sessions": values.size,
            "CV, %": 100 * float(values.std(ddof=1)),
            "own error, %": 100 * math.sqrt(own[name]),
            "apart, %": apart[name],
            **{
                f"over {ref.removeprefix('reference ')}'s": apart[name].value / apart[ref].value
                if apart[ref].value
                else np.nan
                for ref in REFERENCES
            },
            **{
                f"r with {ref.removeprefix('reference ')}": float(
                    np.corrcoef(values, logs[ref])[0, 1]
                )
                for ref in REFERENCES
            },
        }
        for name, values in logs.items()
    ]


def longer(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return the coefficient of variation of every workload over means of sessions in a row."""
    ordered = sorted(cells, key=lambda c: c["at_s"])
    counts = [k for k in IN_A_ROW if len(ordered) >= 3 * k]
    found = []
    for name in ordered[0]["levels"]:
        logs = np.log([c["levels"][name][0] for c in ordered])
        means = {k: logs[: logs.size // k * k].reshape(-1, k).mean(axis=1) for k in counts}
        cvs = {f"{k} in a row, CV, %": 100 * float(m.std(ddof=1)) for k, m in means.items()}
        found.append({"workload": name, **cvs})
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
    tables = {"Sessions apart": rows(kept), "Longer sessions": longer(kept)} if kept[2:] else {}
    common.finish(options.out, cells, tables)


if __name__ == "__main__":
    main()
