"""Checks 5 and 6: does the gate stay silent on equals, and find what is 5 % slower?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from hwprof.checks.records import CannotCheckError, CheckResult, CheckSpec
from hwprof.checks.rig import Rig
from hwprof.checks.workloads import BLOCK, copies
from hwprof.measure.paired import PairedResult, judge_pairs, log_ratios
from hwprof.measure.records import plan_for
from hwprof.workload import Workload

N_SAME = 40
N_SLOWED = 20
SLOWDOWN = 0.05
PAIRS_AT_ONCE = 10
"""Few, so that the two of a pair stay close in time; several, to start fewer workers."""

SAME = CheckSpec(
    check=5,
    name="same against same",
    limit=2,
    unit="alarms in 40",
    advice="changes are reported where there is none: measure when the machine is quieter, and "
    "believe no comparison made here",
)
SLOWED = CheckSpec(
    check=6,
    name="slowed by 5 %",
    limit=17,
    unit="found of 20",
    bound="at least",
    advice="a slowdown of 5 % goes unseen: measure when the machine is quieter, or longer "
    "(--preset strict)",
)

PLAN = plan_for("standard", looks=(12,), burst_s=0.01, warmup_s=0.02)
"""Many short bursts: what disturbs lasts longer than one, so pairs gain more than samples do."""


def same_against_same(rig: Rig, seed: int = 0) -> CheckResult:
    """Check 5: of 40 comparisons of a block with itself at most 2 claim a change.

    Raises:
        CannotCheckError: the device does not take the block, or several threads are asked for.
        MeasurementError: it fails there.
    """
    ours = copies(N_SAME, "block", 1000)
    theirs = copies(N_SAME, "same", 2000)
    results = list(_compare(rig, ours, theirs, 0.0, seed))
    claims = [r for r in results if r.verdict in ("regressed", "improved")]
    shifts = np.array([r.shift for r in results])
    return SAME.result(
        len(claims),
        f"{len(claims)} of {len(results)} comparisons of equals claim a change",
        figures={"largest_shift_pct": 100 * float(np.abs(shifts).max())},
    )


def slowed_by_5pct(rig: Rig, seed: int = 0) -> CheckResult:
    """Check 6: of 20 comparisons with a block slowed by 5 % at least 17 find a regression.

    The delay is real: a busy wait behind every call, as long as 5 % of the block's level.

    Raises:
        CannotCheckError: no delay can be put into the device's calls.
        MeasurementError: the block fails there.
    """
    level_s = rig.measure([BLOCK], plan_for("quick", seed=seed))[BLOCK.label].level_s
    ours = copies(N_SLOWED, "block", 1000)
    slowed = copies(N_SLOWED, "slowed", 3000)
    results = list(_compare(rig, ours, slowed, SLOWDOWN * level_s, seed))
    n_found = sum(r.verdict == "regressed" for r in results)
    median_pct = 100 * float(np.median([r.shift for r in results]))
    detectable = [r.detectable for r in results if math.isfinite(r.detectable)]
    return SLOWED.result(
        n_found,
        f"{n_found} of {len(results)} slowdowns of 5 % are found; their median shift is "
        f"{median_pct:+.1f} %",
        figures={
            "median_shift_pct": median_pct,
            **({"detectable_pct": 100 * float(np.median(detectable))} if detectable else {}),
        },
    )


def _compare(
    rig: Rig, ours: Sequence[Workload], theirs: Sequence[Workload], delay_s: float, seed: int
) -> Iterator[PairedResult]:
    """Yield what the gate says of each pair, ``theirs`` slower by ``delay_s`` a call."""
    if rig.threads != 1:
        raise CannotCheckError("a pair shares its workers with one thread only: use --threads 1")
    for start in range(0, len(ours), PAIRS_AT_ONCE):
        pairs = list(zip(ours, theirs, strict=True))[start : start + PAIRS_AT_ONCE]
        delays_s = {b.label: delay_s for _, b in pairs} if delay_s else None
        plan = replace(PLAN, seed=seed + start)
        found = rig.measure([w for pair in pairs for w in pair], plan, delays_s=delays_s)
        for a, b in pairs:
            bursts = found[a.label].bursts, found[b.label].bursts
            yield judge_pairs(log_ratios(*bursts, threads=rig.threads))
