"""What the benchmark of the gate counts, and what of its work is still to be done."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter

import numpy as np
import pytest

from hwprof.regression.records import CompareResult, Comparison
from tests.bench import bench_gate, bench_upgrade


def options(**changed: object) -> Namespace:
    asked = {"competing": False, "device": "cpu", "same": 400, "slowed": 40, "environments": 40}
    return Namespace(**{**asked, **changed})


def test_every_comparison_is_asked_for_once() -> None:
    found = bench_gate.groups(options())
    totals: Counter[str] = Counter()
    for key, n in found:
        totals[f"{key['part']} {key['workload']} {key['injection']}"] += n
    assert totals == {
        "same block delay": 360,
        "same network delay": 40,
        "slowed block delay": 40,
        "slowed block work": 40,
        "slowed network delay": 40,
        "slowed network work": 40,
        "environments block delay": 40,
    }
    keys = [tuple(key.items()) for key, _ in found]
    assert len(set(keys)) == len(keys)
    assert {key["load"] for key, _ in found} == {"quiet"}


def test_half_the_groups_are_about_half_of_every_part() -> None:
    found = bench_gate.groups(options())
    half = Counter(key["part"] for key, _ in found[: len(found) // 2])
    whole = Counter(key["part"] for key, _ in found)
    assert all(abs(half[part] - n / 2) <= 2 for part, n in whole.items())


@pytest.mark.parametrize(
    ("shift", "called"),
    [
        (0.0, {"mean:5%": False, "Mann-Whitney": False}),
        (0.04, {"mean:5%": False, "Mann-Whitney": True}),
        (0.06, {"mean:5%": True, "Mann-Whitney": True}),
        (-0.06, {"mean:5%": False, "Mann-Whitney": False}),
    ],
)
def test_the_other_rules(shift: float, called: dict[str, bool]) -> None:
    base = np.linspace(1e-3, 1.019e-3, 20)
    new = np.linspace((1 + shift) * 1e-3, (1 + shift) * 1.019e-3, 20)
    assert bench_gate.other_rules(base, new) == called


def test_the_mean_rule_holds_the_mean_not_the_median() -> None:
    base = np.full(10, 1e-3)
    spiked = base.copy()
    spiked[0] = 2e-3  # the mean by 10 %
    assert bench_gate.other_rules(base, spiked)["mean:5%"]


def trial(verdict: str, **more: object) -> dict[str, object]:
    rules = dict.fromkeys(bench_gate.RULES, False)
    return {"verdict": verdict, "seconds": 2.0, "side by side": rules, "stored": None, **more}


def test_a_row_counts_alarms_with_their_interval() -> None:
    stored = {"mean:5%": True, "Mann-Whitney": False}
    trials = [trial("regressed"), *[trial("equivalent", stored=stored)] * 19]
    row = bench_gate.row("quiet", "block", [{"trials": trials, "foreign_cores": 0.01}], "")
    assert (row["n"], row["equivalent"]) == (20, 19)
    rate = row["hwprof: slower, %"]
    # Clopper and Pearson for 1 of 20: their table gives 0.1 to 24.9 %.
    assert (rate.value, rate.lo, rate.hi) == pytest.approx((5.0, 0.1265, 24.87), abs=0.01)
    # The first had nothing earlier to be held against, and is not counted.
    assert row["mean:5%, stored, %"].value == 100.0
    assert row["Mann-Whitney, stored, %"].value == 0.0


def test_an_upgrade_in_words() -> None:
    rows = tuple(
        Comparison(workload=w, verdict=v, reason="", method="paired", shift=s)  # type: ignore[arg-type]
        for w, v, s in (("a", "IMPROVED", -0.1), ("b", "REGRESSED", 0.25), ("c", "EQUIVALENT", 0.0))
    )
    # (0.9 · 1.25 · 1)^(1/3) = 1.0400.
    assert bench_upgrade.changes(CompareResult(rows=rows)) == (
        "1 of 3 slower: b (+25.0%). 1 of 3 faster: a (-10.0%). "
        "Geometric mean of all 3 shifts: +4.0%."
    )
    failed = Comparison(workload="d", verdict="NOT_COMPARABLE", reason="", method="paired")
    assert bench_upgrade.changes(CompareResult(rows=(failed,))) == (
        "0 of 1 slower. 0 of 1 faster. 1 of 1 not comparable."
    )
