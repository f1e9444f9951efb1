"""Is a block's friendliness a matter of the chip or of the runtime? The same blocks, one CPU.

    python -m tests.bench.bench_runtimes --out FOLDER [--spaces mobile-mini proxylessnas]
        [--devices cpu tflite openvino] [--preset quick] [--slice 45] [--rounds N]

Times every distinct block of the spaces alone, caches hot, one thread, on each runtime:
about 110 blocks a runtime, some ten minutes in all at the quick preset. The runtimes take
turns, a slice of seconds each, so that what slows the machine for minutes slows all of them.
Stopped and called again it goes on; ``--rounds`` ends it after so many turns, and 0 only makes
the tables of what is there.

FOLDER holds the runs (``runs/SPACE-DEVICE``) and, made from them each time: ``runtimes.md`` with
all tables, ``blocks.csv`` with every latency, ``pairs.csv`` with the pairs of blocks whose order
flips, ``summary.json``, ``effects.png``.

*Effects* and *verdicts* are those of ``runtime_effects.py``. ``skip`` is left out: it costs nothing
anywhere.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import hwprof
from hwprof.isolated import isolated_table
from hwprof.store import Run
from tests.bench.common import markdown
from tests.bench.runtime_effects import (
    Levels,
    agreements,
    effects,
    flipped_pairs,
    overall,
    price_steps,
    verdict,
)

SPACES = ("mobile-mini", "proxylessnas")
DEVICES = ("cpu", "tflite", "openvino")


def measure(options: argparse.Namespace) -> None:
    """Let the runtimes take turns until nothing is left."""
    left = {(space, device): -1 for space in options.spaces for device in options.devices}
    turn = 0
    while any(left.values()) and turn != options.rounds:
        turn += 1
        for (space, device), n_left in left.items():
            if n_left == 0:
                continue
            done = hwprof.profile(
                space=space,
                device=device,
                out=run_path(options.out, space, device),
                networks=0,
                preset=options.preset,
                max_time_s=options.slice,
            )
            left[space, device] = done.n_left
            print(f"turn {turn}: {space} on {device}: {done.n_done} done, {done.n_left} left")


def run_path(out: Path, space: str, device: str) -> Path:
    """Return the run folder of one space on one device."""
    return out / "runs" / f"{space}-{device}"


def read_levels(options: argparse.Namespace, space: str) -> Levels:
    """Return the latency of every block that all runtimes have measured."""
    found = {}
    for device in options.devices:
        with Run.open(run_path(options.out, space, device)) as run:
            rows = isolated_table(run, hwprof.get_space(space))
        found[device] = {
            (row.slot, row.block): row.beside_s
            for row in rows
            if row.slot is not None and row.block != "skip"
        }
    common = set.intersection(*(set(levels) for levels in found.values()))
    return {d: {key: levels[key] for key in sorted(common)} for d, levels in found.items()}


def ratios(levels: Levels) -> list[dict[str, Any]]:
    """Return latency over that of the first device, by (kernel, expansion): mean and range."""
    base, *others = levels
    rows = []
    blocks = sorted({block for _, block in levels[base]})
    for block in [*blocks, "all blocks"]:
        keys = [k for k in levels[base] if block in (k[1], "all blocks")]
        row: dict[str, Any] = {"block": block, "n": len(keys)}
        for device in others:
            found = np.array([levels[device][k].value / levels[base][k].value for k in keys])
            row[f"{device} / {base}"] = (
                f"{np.exp(np.log(found).mean()):.2f} ({found.min():.2f} to {found.max():.2f})"
            )
        rows.append(row)
    return rows


def facts(options: argparse.Namespace, space: str) -> Iterator[dict[str, Any]]:
    """Yield for every device what ran, and how far its numbers can be trusted."""
    for device in options.devices:
        with Run.open(run_path(options.out, space, device)) as run:
            measured, stable = run.measurements(), run.fingerprint.stable
            n_failed = len(run.failures())
        yield {
            "space": space,
            "device": device,
            "runtime": f"{stable['runtime']} {stable['runtime_version']}",
            "n_measured": len(measured),
            "n_failed": n_failed,
            "verdicts": _counted(m.verdict for m in measured),
            "providers": _counted(m.telemetry["provider"] for m in measured),
            "outside": _counted(op for m in measured for op in m.telemetry["outside_ops"]),
        }


def _counted(values: Iterator[str]) -> str:
    return ", ".join(f"{n} {value}" for value, n in Counter(values).most_common()) or "-"


def draw(found: Mapping[str, Levels], path: Path) -> None:
    """Draw the effects of every two runtimes against each other, one row a space."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    pairs = list(combinations(next(iter(found.values())), 2))
    figure, axes = plt.subplots(
        len(found), len(pairs), squeeze=False, figsize=(4 * len(pairs), 3.8 * len(found))
    )
    for row, (space, levels) in zip(axes, found.items(), strict=True):
        shown = {device: effects(rows) for device, rows in levels.items()}
        for axis, (a, b) in zip(row, pairs, strict=True):
            for block in sorted({block for _, block in shown[a]}):
                keys = [k for k in shown[a] if k[1] == block]
                axis.scatter(
                    [100 * shown[a][k].value for k in keys],
                    [100 * shown[b][k].value for k in keys],
                    s=14,
                    label=block,
                )
            axis.axline((0, 0), slope=1, color="0.7", linewidth=0.8, zorder=0)
            axis.axhline(0, color="0.85", linewidth=0.8, zorder=0)
            axis.axvline(0, color="0.85", linewidth=0.8, zorder=0)
            axis.set(xlabel=f"effect on {a} (%)", ylabel=f"effect on {b} (%)", title=space)
        row[-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def write(options: argparse.Namespace) -> None:
    """Make tables, files and the figure from the runs."""
    found = {space: read_levels(options, space) for space in options.spaces}
    agreed = [a for space, levels in found.items() for a in agreements(space, levels)]
    trust = [row for space in options.spaces for row in facts(options, space)]
    pairs = [row for space, levels in found.items() for row in flipped_pairs(space, levels)]
    pd.DataFrame(_block_rows(found)).to_csv(options.out / "blocks.csv", index=False)
    pd.DataFrame(pairs).to_csv(options.out / "pairs.csv", index=False)
    steps = {space: price_steps(levels) for space, levels in found.items()}
    summary = {
        "agreement": [asdict(a) for a in agreed],
        "facts": trust,
        "price_of_a_step": steps,
    }
    (options.out / "summary.json").write_text(json.dumps(summary, indent=2))
    parts = ["# The same blocks on one CPU, by runtime", "## What ran", markdown(trust)]
    parts += ["## Agreement", markdown([asdict(a) for a in agreed])]
    for space, levels in found.items():
        means = {device: overall(effects(rows)) for device, rows in levels.items()}
        verdicts = [
            {"block": block}
            | {d: f"{100 * m[block].value:+.0f} % {verdict(m[block])}" for d, m in means.items()}
            for block in means[options.devices[0]]
        ]
        parts += [f"## {space}: mean effect and verdict", markdown(verdicts)]
        parts += [f"## {space}: latency over {options.devices[0]}'s", markdown(ratios(levels))]
        by_device = steps[space]
        priced = [
            {"step": step} | {d: prices[step] for d, prices in by_device.items()}
            for step in by_device[options.devices[0]]
        ]
        parts += [f"## {space}: what a larger kernel or expansion costs", markdown(priced)]
    parts += ["![effects](effects.png)"]
    (options.out / "runtimes.md").write_text("\n\n".join(parts) + "\n")
    draw(found, options.out / "effects.png")
    print(f"wrote {options.out / 'runtimes.md'}")


def _block_rows(found: Mapping[str, Levels]) -> Iterator[dict[str, Any]]:
    for space, levels in found.items():
        for device, rows in levels.items():
            shares = effects(rows)
            for (slot, block), level in rows.items():
                share = shares.get((slot, block))
                yield {
                    "space": space,
                    "device": device,
                    "unit": slot.unit,
                    "layer": slot.layer,
                    "block": block,
                    "latency_s": level.value,
                    "latency_lo_s": level.lo,
                    "latency_hi_s": level.hi,
                    "effect": share.value if share else None,
                    "verdict": verdict(share) if share else None,
                }


def main() -> None:
    """Read the options, measure what is left, write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and tables")
    parser.add_argument("--spaces", nargs="+", default=SPACES)
    parser.add_argument("--devices", nargs="+", default=DEVICES)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--slice", type=float, default=45.0, help="seconds of a turn")
    parser.add_argument("--rounds", type=int, default=-1, help="stop after so many turns")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    measure(options)
    write(options)


if __name__ == "__main__":
    main()
