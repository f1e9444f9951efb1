"""Do the traced parts of a network add up to the whole, and do three ways to price a block agree?

    python tests/bench/bench_parts.py [--networks 6] [--preset standard] [--spaces A,B] [--json F]
    python tests/bench/bench_parts.py --isolated          # also each block alone and left out

For random networks of each space: the level of the whole (the measuring engine's), the sum of
the parts (operator trace, the tracer's cost removed by a calibration that never sees the
network's latency), and their distance in percent, beside that of the traced call as it is. The
bar is 3 %.
``against plain`` compares with calls without tracer in the traced processes, in turn with the
traced ones: where it is small and the distance from the level is not, the machine changed
between the two.

With ``--isolated``, over all blocks: the traced time over the isolated one (the changes of layout
that the block alone needs taken off), the time by leaving the block out over the traced one,
and Pearson's correlation of each pair.

Run it on an otherwise idle machine; a network takes about half a minute at ``standard``.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwprof.api import bench_parts
from hwprof.parts.records import RECONCILED_PCT, PartsResult, PartTime
from hwprof.space import get_space

SPACES = "proxylessnas,ofa-mbv3-w1.0"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network: how far sums are from the whole, in percent of its level."""

    network: str
    level_s: float
    verdict: str
    n_ops: int
    residual_pct: float
    against_plain_pct: float
    """Of the calls without tracer in the traced processes."""
    uncorrected_pct: float
    slowdown: float
    removed_per_op_s: float
    layout_pct: float
    overhead_pct: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two ways to price blocks: median ratio with its quartiles, and their correlation."""

    what: str
    n_blocks: int
    ratio: float
    quartiles: tuple[float, float]
    correlation: float


def row(name: str, found: PartsResult) -> Row:
    """Return the figures of one network."""
    level_s = found.measurement.level_s
    n_ops = sum(part.n_ops for part in found.parts)
    return Row(
        network=name,
        level_s=level_s,
        verdict=found.measurement.verdict,
        n_ops=n_ops,
        residual_pct=found.residual_pct,
        against_plain_pct=found.residual_untraced_pct,
        uncorrected_pct=100 * (found.traced_s / level_s - 1),
        slowdown=found.slowdown,
        removed_per_op_s=found.removed_per_op_s,
        layout_pct=100 * found.time_of("layout") / found.sum_s,
        overhead_pct=100 * found.time_of("overhead") / found.sum_s,
    )


def agreement(what: str, pairs: Sequence[tuple[float, float]]) -> Agreement:
    """Compare the second figure of every pair with the first."""
    first, second = np.array(pairs).T
    ratio = second / first
    low, middle, high = np.percentile(ratio, [25, 50, 75])
    return Agreement(
        what=what,
        n_blocks=len(pairs),
        ratio=float(middle),
        quartiles=(float(low), float(high)),
        correlation=float(np.corrcoef(first, second)[0, 1]),
    )


def agreements(parts: Sequence[PartTime]) -> list[Agreement]:
    """Compare traced, isolated and differential times of blocks that have all that is compared."""
    alone = [
        (p.isolated_hot_s.value - p.isolated_layout_s, p.traced_s)
        for p in parts
        if p.isolated_hot_s is not None and p.isolated_layout_s is not None
    ]
    left_out = [(p.traced_s, p.differential_s.value) for p in parts if p.differential_s]
    named = (("traced / isolated", alone), ("differential / traced", left_out))
    return [agreement(what, pairs) for what, pairs in named if len(pairs) > 1]


def summary(rows: Sequence[Row]) -> dict[str, float]:
    """Return how far the sums are from the whole over all networks."""
    found = np.abs([r.residual_pct for r in rows])
    return {
        "n_networks": len(rows),
        "median_abs_pct": float(np.median(found)),
        "worst_abs_pct": float(found.max()),
        "within_bar": float(np.mean(found <= RECONCILED_PCT)),
        "median_against_plain_abs_pct": float(
            np.median(np.abs([r.against_plain_pct for r in rows]))
        ),
        "median_uncorrected_pct": float(np.median([r.uncorrected_pct for r in rows])),
    }


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out for reading."""
    header = (
        "network", "level ms", "verdict", "ops", "sum %", "against plain %", "uncorrected %",
        "slowdown", "µs/op removed", "layout %", "call %",
    )  # fmt: skip
    lines = [header] + [
        (
            r.network,
            f"{1e3 * r.level_s:.3f}",
            r.verdict,
            str(r.n_ops),
            f"{r.residual_pct:+.2f}",
            f"{r.against_plain_pct:+.2f}",
            f"{r.uncorrected_pct:+.1f}",
            f"{r.slowdown:.3f}",
            f"{1e6 * r.removed_per_op_s:.2f}",
            f"{r.layout_pct:.1f}",
            f"{r.overhead_pct:.1f}",
        )
        for r in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--networks", type=int, default=6, help="of each space")
    parser.add_argument("--spaces", default=SPACES)
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--isolated", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    parts: list[PartTime] = []
    fingerprint: dict[str, Any] = {}
    for name in options.spaces.split(","):
        rng = np.random.default_rng(options.seed)
        space = get_space(name)
        for number in range(options.networks):
            found = bench_parts(space.sample(rng), preset=options.preset, isolated=options.isolated)
            rows.append(row(f"{name} {number}", found))
            parts += found.parts
            fingerprint = found.measurement.fingerprint.to_json()
            print(table(rows[-1:]).splitlines()[1], flush=True)
    compared = agreements(parts)
    print(f"\n{table(rows)}\n\n{json.dumps(summary(rows), indent=2)}")
    for a in compared:
        print(
            f"{a.what}: {a.ratio:.3f} [{a.quartiles[0]:.3f}, {a.quartiles[1]:.3f}], "
            f"correlation {a.correlation:.3f}, {a.n_blocks} blocks"
        )
    if options.json:
        data = {
            "fingerprint": fingerprint,
            "python": platform.python_version(),
            "preset": options.preset,
            "rows": [asdict(r) for r in rows],
            "summary": summary(rows),
            "agreements": [asdict(a) for a in compared],
        }
        options.json.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
