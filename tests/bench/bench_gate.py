"""False alarms and power of `hwprof compare`, beside two rules that many use. Resumable.

    python tests/bench/bench_gate.py --out gate.jsonl --same 400               # as found: let it be quiet
    python tests/bench/bench_gate.py --out gate.jsonl --same 400 --competing   # a busy process
    python tests/bench/bench_gate.py --out gate.jsonl --slowed 40 [--competing]
    python tests/bench/bench_gate.py --out gate.jsonl --summary

Every comparison is a line of the file; called again with the same file the script goes on where
it was, so a study may take several runs. ``--same`` compares a block and a network of some
milliseconds with themselves, half of them each; ``--slowed`` slows them by 1, 2, 3, 5 and 10 %,
with a busy wait and with real work.

The other two rules judge the very same raw calls, so they get the same seconds, and what is more,
interleaved ones: pytest-benchmark's ``--benchmark-compare-fail=mean:5%`` (mean of the new over
mean of the base above 1.05), and Mann-Whitney's test on raw calls, one-sided p < 0.05.

``foreign cores`` tells how busy others kept the machine, so that a noisy study shows as one.

The bars: at most 1 % false alarms over 400 comparisons; at least 95 % of +3 % on the block and of
+5 % on the network found, within 60 s each. Run it on a machine with two cores or more.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest, mannwhitneyu

from hwprof.checks.workloads import BLOCK, network
from hwprof.devices import device_ref
from hwprof.measure.records import DeviceOptions, DeviceRef, LabelledBurst, concatenate
from hwprof.regression.injection import KINDS, SIZES, Trial, floor_s, run_trial
from hwprof.regression.side_by_side import CAP_S

Row = dict[str, Any]
Cell = tuple[str, str, str, float, int]
"""Regime, workload, injection, size, number of the trial."""


def cells(args: argparse.Namespace) -> list[Cell]:
    """Return every comparison that is asked for, in an order that mixes sizes and workloads."""
    regime = "competing" if args.competing else "as found"
    names = ("block", "network")
    if args.same:
        return [(regime, names[i % 2], "delay", 0.0, i // 2) for i in range(args.same)]
    kinds = KINDS[:1] if args.device == "null" else KINDS
    return [
        (regime, name, kind, size, i)
        for i in range(args.slowed)
        for name, kind, size in itertools.product(names, kinds, SIZES[1:])
    ]


def judged(trial: Trial, cell: Cell) -> Row:
    """Return a comparison as a line: the gate's verdict and the other rules'."""
    base, new = (concatenate(b) for b in (trial.timed.base_bursts, trial.timed.new_bursts))
    regime, workload, kind, size, number = cell
    return {
        "regime": regime,
        "workload": workload,
        "injection": kind,
        "size": size,
        "number": number,
        "verdict": trial.verdict,
        "shift": trial.shift,
        "seconds": trial.seconds,
        "n_calls": int(base.size + new.size),
        "foreign_cores": _foreign(trial.timed.base_bursts),
        **other_rules(base, new),
    }


def other_rules(base: np.ndarray, new: np.ndarray) -> Row:
    """Return what the mean rule and Mann-Whitney on raw calls say of seconds ``float64[n]``."""
    return {
        "mean_5pct": bool(new.mean() > 1.05 * base.mean()),
        "mann_whitney": bool(mannwhitneyu(new, base, alternative="greater").pvalue < 0.05),
    }


def _foreign(bursts: Sequence[LabelledBurst]) -> float:
    return float(np.mean([b.foreign_cores for b in bursts]))


@contextmanager
def competing_process() -> Iterator[None]:
    """Keep a core busy from another process."""
    busy = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def read(file: Path) -> list[Row]:
    """Return the lines so far; a line that a killed run left unfinished is left out."""
    if not file.exists():
        return []
    *whole, _ = file.read_text().split("\n")
    return [json.loads(line) for line in whole]


def append(file: Path, row: Row) -> None:
    """Add a whole line."""
    with file.open("a") as out:
        out.write(json.dumps(row) + "\n")


def mend(file: Path) -> None:
    """Cut off a line that a killed run left unfinished."""
    if file.exists():
        text = file.read_text()
        file.write_text(text[: text.rfind("\n") + 1])


def run(args: argparse.Namespace, ref: DeviceRef) -> None:
    """Do what is not done yet, a line at a time."""
    mend(args.out)
    done = {
        (r["regime"], r["workload"], r["injection"], r["size"], r["number"]) for r in read(args.out)
    }
    todo = [cell for cell in cells(args) if cell not in done]
    workloads = {"block": BLOCK, "network": network()}
    levels = {name: floor_s(w, ref) for name, w in workloads.items()} if todo else {}
    with competing_process() if args.competing else nullcontext():
        for index, cell in enumerate(todo):
            _, name, kind, size, number = cell
            trial = run_trial(
                workloads[name],
                ref,
                kind="work" if kind == "work" else "delay",
                size=size,
                level_s=levels[name],
                seed=number,
                cap_s=args.cap_s,
            )
            append(args.out, judged(trial, cell))
            print(f"{index + 1} of {len(todo)}: {cell} {trial.verdict}", file=sys.stderr)


def summary(rows: Sequence[Row]) -> str:
    """Return a table: how often each rule alarms, by regime, workload, injection and size."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (row["regime"], row["workload"], row["injection"], row["size"])
        groups.setdefault(key, []).append(row)
    heads = (
        *("machine", "workload", "injection", "slowdown", "n", "hwprof", "95 % interval"),
        *("any change called", "mean:5%", "Mann-Whitney", "median s", "longest s", "foreign cores"),
    )
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for (regime, workload, kind, size), found in sorted(groups.items()):
        n = len(found)
        alarms = sum(r["verdict"] == "regressed" for r in found)
        called = sum(r["verdict"] in ("regressed", "improved") for r in found)
        low, high = binomtest(alarms, n).proportion_ci(0.95)
        seconds = [r["seconds"] for r in found]
        others = (sum(r[name] for r in found) / n for name in ("mean_5pct", "mann_whitney"))
        cells_ = [
            *(regime, workload, kind if size else "none", f"+{size:.0%}", str(n)),
            *(f"{alarms / n:.1%}", f"{low:.1%} to {high:.1%}", f"{called / n:.1%}"),
            *(f"{share:.1%}" for share in others),
            *(f"{np.median(seconds):.1f}", f"{max(seconds):.1f}"),
            f"{np.median([r['foreign_cores'] for r in found]):.1f}",
        ]
        lines.append("| " + " | ".join(cells_) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="file of lines; made or gone on with"
    )
    parser.add_argument("--same", type=int, default=0, help="comparisons of equals")
    parser.add_argument("--slowed", type=int, default=0, help="comparisons of every size and kind")
    parser.add_argument("--competing", action="store_true", help="beside a busy process")
    parser.add_argument("--summary", action="store_true", help="only print the table")
    parser.add_argument("--cap-s", type=float, default=CAP_S, help="longest for one comparison")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.same and args.slowed:
        parser.error("--same and --slowed are two studies: one a call")
    if not args.summary:
        run(args, device_ref(args.device, DeviceOptions()))
    print(summary(read(args.out)))


if __name__ == "__main__":
    main()
