"""False alarms and power of `hwprof compare`, beside two rules that many use.

    python -m tests.bench.bench_gate [--out F.jsonl] [--max-time 30m] [--quick]
    python -m tests.bench.bench_gate --competing [--out F.jsonl] ...

Parts, and about how many minutes they should take on two quiet cores; each says what is left as it
goes, may be stopped by ``--max-time``, and goes on with the same command:

========================================================================  =====  =============
part                                                                      quiet  ``--competing``
========================================================================  =====  =============
``same``: 400 comparisons of equals, 360 of a 0.5 ms block, 40 of a 9 ms     15             22
network
``slowed``: block +3 %, network +5 %, by a busy wait and by real work;       10              8
40 comparisons of each (20 with ``--competing``)
``environments``: 40 of the block with itself on the same ONNX Runtime in     4              –
two virtual environments (``--base-python``)
========================================================================  =====  =============

With ``--competing`` a process keeps a core busy meanwhile.

Ten comparisons take turns on one set of five workers, which saves nine starts; each compiles both
sides anew, from weights of its own, and may end at its first look. A group's workers are fresh.
``environments`` shares nothing, because there the processes themselves are compared. The seconds of
a comparison include the start of its workers, shared or not.

The other rules judge the same raw calls: pytest-benchmark's own ``--benchmark-compare-fail=mean:5%``
(its class, called as it calls it) and Mann-Whitney on raw calls, one-sided p < 0.05. *Side by side*
they get the very calls that hwprof judged, which is more than they ask for; *stored* they hold the
new side against the base of an earlier group, minutes before in other processes, as
``--benchmark-compare`` does.

The bars: at most 1 % of equals called slower; at least 95 % of the slowdowns found, within 60 s each.
Intervals are 95 % by Clopper and Pearson. ``foreign cores`` is what others kept busy, by a monitor
of its own; more than 0.05 was no quiet machine.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from pytest_benchmark.utils import PercentageRegressionCheck
from scipy.stats import mannwhitneyu

from hwprof.devices import device_ref, registrations
from hwprof.measure.process import Interpreter
from hwprof.measure.records import DeviceOptions, DeviceRef, LabelledBurst
from hwprof.regression.environments import interpreter_of
from hwprof.regression.injection import (
    KINDS,
    Kind,
    Slowdown,
    Trial,
    floor_s,
    run_trial,
)
from hwprof.regression.side_by_side import CAP_S, running_workers
from tests.bench import common, otherwork
from tests.bench.common import Cell, Cells, Floats, Job
from tests.bench.environments import environment, installed

GROUP = 10
"""Comparisons on one set of workers."""
SHARES = {"block": 0.9, "network": 0.1}
SIZES = {"block": 0.03, "network": 0.05}
EXPECTED_S = {"block": 1.5, "network": 6.0, "environments": 5.0}
"""A comparison, and its share of starting workers."""
MEAN_5PCT = PercentageRegressionCheck("mean", 5.0)
RULES = ("mean:5%", "Mann-Whitney")
MOST_FALSE_PCT, LEAST_FOUND_PCT = 1, 95


@dataclass(kw_only=True)
class Study:
    """What the groups share: the device, levels that slowdowns are shares of, earlier raw calls."""

    device: str
    seed: int
    cap_s: float
    levels_s: dict[str, float] = field(default_factory=dict)
    earlier: dict[tuple[str, str], list[Floats]] = field(default_factory=dict)
    """Raw calls of the base, of the last group of a part and workload."""
    interpreter: Interpreter | None = None

    @property
    def ref(self) -> DeviceRef:
        """Where everything is measured."""
        return device_ref(self.device, DeviceOptions())

    def level_s(self, workload: str) -> float:
        """Return a workload's floor, measured once a call."""
        if workload not in self.levels_s:
            self.levels_s[workload] = floor_s(common.WORKLOADS[workload](), self.ref, self.seed)
        return self.levels_s[workload]


def measured(study: Study, key: Mapping[str, Any], n: int) -> Cell:
    """Make the comparisons of one group."""
    size = float(key["size"])
    slowdown = Slowdown(
        kind=key["injection"],
        size=size,
        level_s=study.level_s(key["workload"]) if size else 0.0,
    )
    apart = key["part"] == "environments"
    with ExitStack() as stack:
        beside = stack.enter_context(otherwork.competitor(key["load"]))
        watch = otherwork.Watch(beside)
        workers = None
        if not apart:
            workers = stack.enter_context(running_workers(slowdown.put_into(study.ref)))
        trials = [
            run_trial(
                common.WORKLOADS[key["workload"]](),
                study.ref,
                slowdown,
                seed=study.seed + GROUP * key["group"] + i,
                cap_s=study.cap_s,
                workers=workers,
                base_python=study.interpreter if apart else None,
            )
            for i in range(n)
        ]
        load = watch.load()
    return {"trials": _judged(study, key, trials), "at_s": time.time(), **asdict(load)}


def _wall_s(bursts: Sequence[LabelledBurst]) -> Floats:
    """Return the wall time per call of every sample."""
    return 1e-9 * np.concatenate([b.burst.duration_ns / b.burst.calls_per_sample for b in bursts])


def _judged(study: Study, key: Mapping[str, Any], trials: Sequence[Trial]) -> list[Cell]:
    """Return what every rule says of every comparison."""
    which = (str(key["load"]), str(key["workload"]))
    earlier: Sequence[Floats | None] = study.earlier.get(which, [])
    bases = [_wall_s(t.timed.base_bursts) for t in trials]
    found = []
    for trial, base, before in itertools.zip_longest(
        trials, bases, earlier[: len(trials)], fillvalue=None
    ):
        assert trial is not None
        assert base is not None
        new = _wall_s(trial.timed.new_bursts)
        found.append(
            {
                "verdict": trial.verdict,
                "shift": trial.shift,
                "detectable": trial.detectable,
                "rounds": trial.timed.rounds,
                "seconds": trial.seconds,
                "n_calls": int(base.size + new.size),
                "side by side": other_rules(base, new),
                "stored": None if before is None else other_rules(before, new),
            }
        )
    study.earlier[which] = bases
    return found


def other_rules(base: Floats, new: Floats) -> dict[str, bool]:
    """Return whether the two other rules call ``new`` slower; seconds a call, ``float64[n]``."""
    means = ({"mean": float(new.mean())}, {"mean": float(base.mean())})
    p = float(mannwhitneyu(new, base, alternative="greater").pvalue)
    return dict(zip(RULES, (bool(MEAN_5PCT.fails(*means)), p < 0.05), strict=True))


# What there is to do


def groups(options: Any) -> list[tuple[dict[str, Any], int]]:
    """Return the key and the number of comparisons of every group.

    The parts are mixed, so that whenever the time is up, each has had its share.
    """
    load = "busy" if options.competing else "quiet"
    kinds: Sequence[Kind] = KINDS[:1] if options.device == "null" else KINDS
    asked: list[tuple[dict[str, Any], int]] = []
    for name, share in SHARES.items():
        asked.append((_key(load, "same", name), round(options.same * share)))
    for name, kind in itertools.product(SIZES, kinds):
        asked.append((_key(load, "slowed", name, kind, SIZES[name]), options.slowed))
    asked.append((_key(load, "environments", "block"), options.environments))
    placed = [(place, key, n) for key, total in asked for place, n, key in _split(key, total)]
    return [(key, n) for _, key, n in sorted(placed, key=lambda found: found[0])]


def _key(
    load: str, part: str, workload: str, kind: Kind = "delay", size: float = 0.0
) -> dict[str, Any]:
    return {"load": load, "part": part, "workload": workload, "injection": kind, "size": size}


def _split(key: dict[str, Any], total: int) -> Iterator[tuple[float, int, dict[str, Any]]]:
    """Yield how far through its part a group stands, its size and its key."""
    for group, first in enumerate(range(0, total, GROUP)):
        n = min(GROUP, total - first)
        yield first / total, n, {**key, "group": group, "n": n}


def jobs(study: Study, options: Any) -> list[Job]:
    """Return every group that is asked for."""
    return [
        Job(
            key=key,
            run=partial(measured, study, key, n),
            expected_s=n
            * EXPECTED_S["environments" if key["part"] == "environments" else key["workload"]],
        )
        for key, n in groups(options)
    ]


# What is said


def false_alarms(cells: Cells) -> list[dict[str, Any]]:
    """Return a row for all equals of a regime, and for each workload."""
    rows = []
    for load in ("quiet", "busy"):
        everything = cells.select(load=load, part="same")
        rows.append(row(load, "all equals", everything, f"at most {MOST_FALSE_PCT}"))
        for name in SHARES:
            some = [c for c in everything if c["key"]["workload"] == name]
            rows.append(row(load, name, some, ""))
        others = cells.select(load=load, part="environments")
        rows.append(row(load, "block, two environments", others, f"at most {MOST_FALSE_PCT}"))
    return [r for r in rows if r["n"]]


def power(cells: Cells) -> list[dict[str, Any]]:
    """Return a row for every slowdown."""
    rows = []
    for load, (name, size), kind in itertools.product(("quiet", "busy"), SIZES.items(), KINDS):
        found = cells.select(load=load, part="slowed", workload=name, injection=kind, size=size)
        label = f"{name} +{size:.0%}, {'busy wait' if kind == 'delay' else 'real work'}"
        rows.append(row(load, label, found, f"at least {LEAST_FOUND_PCT}"))
    return [r for r in rows if r["n"]]


def row(load: str, label: str, found: Sequence[Cell], bar: str) -> dict[str, Any]:
    """Return how often each rule called the new side slower."""
    trials = [t for cell in found for t in cell["trials"]]
    n = len(trials)
    said = [t["verdict"] for t in trials]
    others = {
        f"{rule}, {how}, %": common.share_pct(
            sum(t[how][rule] for t in trials if t[how]), sum(t[how] is not None for t in trials)
        )
        for how in ("side by side", "stored")
        for rule in RULES
    }
    seconds = [t["seconds"] for t in trials] or [np.nan]
    return {
        "machine": {"quiet": "quiet", "busy": "a core busy"}[load],
        "what": label,
        "n": n,
        "hwprof: slower, %": common.share_pct(said.count("regressed"), n),
        "bar": bar or "–",
        "faster": said.count("improved"),
        "equivalent": said.count("equivalent"),
        "open": said.count("inconclusive"),
        **others,
        "median s": float(np.median(seconds)),
        "longest s": float(np.max(seconds)),
        "foreign cores": float(np.median([c["foreign_cores"] for c in found] or [np.nan])),
    }


def main() -> None:
    """Measure what is missing; print the summary."""
    parser = common.parser(__doc__, "gate")
    parser.add_argument("--competing", action="store_true", help="beside a busy process")
    parser.add_argument("--same", type=int, default=400, help="comparisons of equals")
    parser.add_argument("--slowed", type=int, help="of every slowdown and kind; 40, or 20")
    parser.add_argument("--environments", type=int, help="of two environments; 40, or none")
    parser.add_argument("--cap-s", type=float, default=CAP_S, help="longest for one comparison")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    deadline_s = time.monotonic() + options.max_time
    if options.slowed is None:
        options.slowed = 20 if options.competing else 40
    if options.environments is None:
        options.environments = 0 if options.competing else 40
    if options.quick:
        for name, few in (("same", 6), ("slowed", 1), ("environments", 1)):
            setattr(options, name, min(few, getattr(options, name)))
    cells = Cells.open(options.out)
    study = Study(device=options.device, seed=options.seed, cap_s=options.cap_s)
    planned = jobs(study, options)
    wanted = any(j.key["part"] == "environments" and cells.get(**j.key) is None for j in planned)
    with ExitStack() as stack:
        if wanted:
            packages = registrations()[options.device].packages
            python = stack.enter_context(environment(installed("onnxruntime"), installed("onnx")))
            study.interpreter = stack.enter_context(interpreter_of(python, packages))
        common.measure_missing(cells, planned, deadline_s)
    common.finish(
        options.out, cells, {"Equals called slower": false_alarms(cells), "Power": power(cells)}
    )


if __name__ == "__main__":
    main()
