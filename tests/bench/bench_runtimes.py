"""Is a block's friendliness a matter of the chip or of the runtime? The same blocks, one CPU.

    python tests/bench/bench_runtimes.py --out FOLDER [--spaces mobile-mini proxylessnas]
        [--devices cpu tflite openvino] [--preset quick] [--slice 45] [--rounds N]

Times every distinct block of the spaces alone, caches hot, one thread, on each runtime:
about 110 blocks a runtime, some ten minutes in all at the quick preset. The runtimes take
turns, a slice of seconds each, so that what slows the machine for minutes slows all of them.
Stopped and called again it goes on; ``--rounds`` ends it after so many turns, and 0 only makes
the tables of what is there.

FOLDER holds the runs (``runs/SPACE-DEVICE``) and, made from them each time: ``runtimes.md`` with
all tables, ``blocks.csv`` with every latency, ``pairs.csv`` with the pairs of blocks whose order
flips, ``summary.json``, ``effects.png``.

An *effect* is a block's latency less the mean of its slot's blocks, as a share of that mean, so
that neither a runtime's speed nor a slot's size matters. ``skip`` is left out: it costs nothing
anywhere. A *verdict* is ``cheap`` or ``dear`` where the 95 % interval excludes zero.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, permutations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

import hwprof
from hwprof.estimate.crossval import spearman
from hwprof.isolated import isolated_table
from hwprof.reports.contexts import centred
from hwprof.results import Interval
from hwprof.space import Slot
from hwprof.store import Run

SPACES = ("mobile-mini", "proxylessnas")
DEVICES = ("cpu", "tflite", "openvino")
MBCONV = re.compile(r"mbconv_k(\d+)_e(\d+)")
N_BOOTSTRAP = 2000

Levels = Mapping[str, Mapping[tuple[Slot, str], Interval]]
"""Isolated latency (s) by device, slot and block; the same slots and blocks for all devices."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two runtimes on one space."""

    space: str
    a: str
    b: str
    n_effects: int
    spearman: float
    spearman_lo: float
    spearman_hi: float
    n_pairs_decided: int
    """Pairs of blocks of one slot whose order both runtimes tell."""
    n_pairs_flipped: int
    n_verdicts_decided: int
    """(kernel, expansion) whose mean effect over the slots differs from zero on both."""
    verdicts_flipped: tuple[str, ...]


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
            (row.slot, row.block): row.isolated_hot_s
            for row in rows
            if row.slot is not None and row.block != "skip"
        }
    common = set.intersection(*(set(levels) for levels in found.values()))
    return {d: {key: levels[key] for key in sorted(common)} for d, levels in found.items()}


def effects(levels: Mapping[tuple[Slot, str], Interval]) -> dict[tuple[Slot, str], Interval]:
    """Return every block's effect at its slot, as a share of the slot's mean."""
    slots: dict[Slot, dict[str, Interval]] = {}
    for (slot, block), level in levels.items():
        slots.setdefault(slot, {})[block] = level
    out = {}
    for slot, times in slots.items():
        if len(times) > 1:
            mean_s = fmean(time.value for time in times.values())
            for block, effect in centred(times).items():
                out[slot, block] = Interval(*(v / mean_s for v in effect))
    return out


def overall(found: Mapping[tuple[Slot, str], Interval]) -> dict[str, Interval]:
    """Return the mean effect over the slots of every (kernel, expansion), with its interval.

    The interval is that of the measurement: the slots are all there are, not a sample.
    """
    by_block: dict[str, list[Interval]] = {}
    for (_, block), effect in found.items():
        if MBCONV.fullmatch(block):
            by_block.setdefault(block, []).append(effect)
    out = {}
    for block, members in sorted(by_block.items()):
        value = fmean(m.value for m in members)
        half = math.hypot(*(m.half_width for m in members)) / len(members)
        out[block] = Interval(value, value - half, value + half)
    return out


def verdict(effect: Interval) -> str:
    """Return ``cheap``, ``dear`` or ``open``."""
    if not effect.excludes_zero:
        return "open"
    return "cheap" if effect.value < 0 else "dear"


def pair_orders(levels: Mapping[tuple[Slot, str], Interval]) -> dict[tuple[Slot, str, str], int]:
    """Return the sign of the difference of every two blocks of a slot, 0 where it is open."""
    signs = {}
    for (slot, a), (other, b) in combinations(levels, 2):
        if slot == other:
            first, second = levels[slot, a], levels[slot, b]
            difference = first.value - second.value
            decided = abs(difference) > math.hypot(first.half_width, second.half_width)
            signs[slot, a, b] = int(np.sign(difference)) if decided else 0
    return signs


def agreements(space: str, levels: Levels) -> Iterator[Agreement]:
    """Yield how far every two runtimes agree."""
    found = {device: effects(rows) for device, rows in levels.items()}
    means = {device: overall(rows) for device, rows in found.items()}
    orders = {device: pair_orders(rows) for device, rows in levels.items()}
    for a, b in combinations(levels, 2):
        keys = list(found[a])
        low, high = _spearman_interval(keys, found[a], found[b])
        both = [k for k in orders[a] if orders[a][k] and orders[b][k]]
        decided = [
            block
            for block in means[a]
            if "open" not in (verdict(means[a][block]), verdict(means[b][block]))
        ]
        yield Agreement(
            space=space,
            a=a,
            b=b,
            n_effects=len(keys),
            spearman=_spearman(keys, found[a], found[b]),
            spearman_lo=low,
            spearman_hi=high,
            n_pairs_decided=len(both),
            n_pairs_flipped=sum(orders[a][k] != orders[b][k] for k in both),
            n_verdicts_decided=len(decided),
            verdicts_flipped=tuple(
                block for block in decided if verdict(means[a][block]) != verdict(means[b][block])
            ),
        )


def _spearman(
    keys: Sequence[tuple[Slot, str]],
    a: Mapping[tuple[Slot, str], Interval],
    b: Mapping[tuple[Slot, str], Interval],
) -> float:
    return spearman(np.array([a[k].value for k in keys]), np.array([b[k].value for k in keys]))


def _spearman_interval(
    keys: Sequence[tuple[Slot, str]],
    a: Mapping[tuple[Slot, str], Interval],
    b: Mapping[tuple[Slot, str], Interval],
) -> tuple[float, float]:
    """Return a 95 % interval by resampling whole slots: blocks of one slot hang together."""
    by_slot: dict[Slot, list[tuple[Slot, str]]] = {}
    for key in keys:
        by_slot.setdefault(key[0], []).append(key)
    slots = list(by_slot.values())
    rng = np.random.default_rng(0)
    draws = [
        _spearman(
            [key for i in rng.integers(len(slots), size=len(slots)) for key in slots[i]], a, b
        )
        for _ in range(N_BOOTSTRAP)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def flipped_pairs(space: str, levels: Levels) -> Iterator[dict[str, Any]]:
    """Yield the pairs of blocks whose order two runtimes tell differently."""
    orders = {device: pair_orders(rows) for device, rows in levels.items()}
    for a, b in combinations(levels, 2):
        for (slot, first, second), sign in orders[a].items():
            if sign * orders[b][slot, first, second] < 0:
                ratio = {
                    d: levels[d][slot, first].value / levels[d][slot, second].value for d in (a, b)
                }
                yield {
                    "space": space,
                    "unit": slot.unit,
                    "layer": slot.layer,
                    "block": first,
                    "other": second,
                    "a": a,
                    "b": b,
                    "ratio_on_a": ratio[a],
                    "ratio_on_b": ratio[b],
                }


def price_steps(levels: Levels) -> dict[str, dict[str, float]]:
    """Return by device what a larger kernel or expansion costs: geometric mean over the slots."""
    out: dict[str, dict[str, float]] = {}
    for device, rows in levels.items():
        logs: dict[str, list[float]] = {}
        for (slot, block), (other_slot, other) in permutations(rows, 2):
            if slot != other_slot or not (MBCONV.fullmatch(block) and MBCONV.fullmatch(other)):
                continue
            (k1, e1), (k2, e2) = (map(int, MBCONV.findall(b)[0]) for b in (block, other))
            step = ""
            if e1 == e2 and k1 < k2:
                step = f"k{k2} / k{k1}"
            elif k1 == k2 and e1 < e2:
                step = f"e{e2} / e{e1}"
            if step:
                log_ratio = math.log(rows[slot, other].value / rows[slot, block].value)
                logs.setdefault(step, []).append(log_ratio)
        out[device] = {step: math.exp(fmean(values)) for step, values in sorted(logs.items())}
    return out


def ratios(levels: Levels) -> pd.DataFrame:
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
    return pd.DataFrame(rows)


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


def table(frame: pd.DataFrame) -> str:
    """Return a frame as Markdown."""
    cells = [[str(name) for name in frame.columns]]
    cells += [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in frame.values]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(frame.columns), *lines[1:]])


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
    parts = ["# The same blocks on one CPU, by runtime", "## What ran", table(pd.DataFrame(trust))]
    parts += ["## Agreement", table(pd.DataFrame([asdict(a) for a in agreed]))]
    for space, levels in found.items():
        means = {device: overall(effects(rows)) for device, rows in levels.items()}
        verdicts = [
            {"block": block}
            | {d: f"{100 * m[block].value:+.0f} % {verdict(m[block])}" for d, m in means.items()}
            for block in means[options.devices[0]]
        ]
        parts += [f"## {space}: mean effect and verdict", table(pd.DataFrame(verdicts))]
        parts += [f"## {space}: latency over {options.devices[0]}'s", table(ratios(levels))]
        priced = pd.DataFrame(steps[space]).rename_axis("step").reset_index()
        parts += [f"## {space}: what a larger kernel or expansion costs", table(priced)]
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
