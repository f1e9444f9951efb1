"""The rule for stored baselines, its limits worked out by hand, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from hwprof.regression.records import CompareResult, Comparison, Tail
from hwprof.regression.stored import Missing, Session, Stored, compare_stored


def session(level: float, *, workers: int = 5, reference: float | None = 1.0) -> Session:
    """Return a session whose workers lie within 0.04 % of its level."""
    units = tuple(level * (1 + 1e-4 * i) for i in range(workers))
    return Session(level_s=level, units_s=units, reference_s=reference)


def stored(*levels: float, workers: int = 5, **facts: object) -> Stored:
    return Stored(
        label="net",
        match="k",
        facts={"hardware": "x", **facts},
        sessions=tuple(session(v, workers=workers) for v in levels),
    )


def one(base: Stored | Missing, new: Stored | Missing, threshold: float = 0.01) -> Comparison:
    (row,) = compare_stored([base], [new], threshold)
    return row


BASE = stored(math.exp(-0.01), 1.0, math.exp(0.01))
# ln levels −0.01, 0, 0.01: sd 0.01; one new session: 0.01·√(1 + 1/3) = 0.011547 from session to
# session. Student's t of 2 degrees of freedom at 0.995 is 9.924843: 0.114602, that is 12.143 %.
ERROR = 0.01 * math.sqrt(1 + 1 / 3)
HALF = 9.924843 * ERROR


class TestRule:
    def test_of_few_sessions_the_limit_is_where_their_interval_leaves_zero(self) -> None:
        limit = math.expm1(HALF)
        above, below = one(BASE, stored(1.001 + limit)), one(BASE, stored(0.999 + limit))
        assert (above.verdict, below.verdict) == ("REGRESSED", "INCONCLUSIVE")
        assert above.detectable == pytest.approx(limit + 0.84 * ERROR, rel=1e-6)
        assert above.shift_ci99 is not None
        low, high = (math.log1p(v) for v in above.shift_ci99)
        assert low == pytest.approx(math.log(1.001 + limit) - HALF, rel=1e-4)
        assert high == pytest.approx(math.log(1.001 + limit) + HALF, rel=1e-6)

    def test_nothing_is_called_whose_interval_holds_zero(self) -> None:
        # Twice the 3.5 % of three standard errors, and every worker agrees.
        row = one(BASE, stored(1.07))
        assert row.shift_ci99 is not None
        assert row.shift_ci99[0] < 0 < row.shift_ci99[1]
        assert row.verdict == "INCONCLUSIVE"
        assert "allow calls above 12.1%" in row.reason
        assert "the 99 % interval between sessions holds 0" in row.reason

    def test_faster_mirrors_slower(self) -> None:
        row = one(BASE, stored(1 / (1.001 + math.expm1(HALF))))
        assert row.verdict == "IMPROVED"
        assert row.shift_ci99 is not None
        assert row.shift_ci99[1] < 0
        assert "holds 0" not in row.reason

    def test_of_many_sessions_the_limit_is_three_sigma(self) -> None:
        # Eight at −0.01 and eight at 0.01: sd 0.01·√(16/15), times √(1 + 1/16): 0.01·√(17/15).
        # Student's t of 15 degrees of freedom is 2.95, below 3.
        base = stored(*[math.exp(-0.01), math.exp(0.01)] * 8)
        limit = math.expm1(3 * 0.01 * math.sqrt(17 / 15))
        above, below = one(base, stored(1.001 + limit)), one(base, stored(0.999 + limit))
        assert (above.verdict, below.verdict) == ("REGRESSED", "INCONCLUSIVE")
        assert above.shift_ci99 is not None
        assert above.shift_ci99[0] > 0

    def test_two_percent_is_the_least(self) -> None:
        steady = stored(1.0, 1.0, 1.0)
        assert one(steady, stored(1.021)).verdict == "REGRESSED"
        assert one(steady, stored(1.019)).verdict == "EQUIVALENT"
        assert one(steady, stored(0.979)).verdict == "IMPROVED"

    def test_the_users_threshold_counts_above_it(self) -> None:
        assert one(stored(1.0, 1.0, 1.0), stored(1.04), threshold=0.05).verdict == "EQUIVALENT"

    def test_one_session_calls_nothing_below_ten_percent_and_nothing_equal(self) -> None:
        base = stored(1.0)
        assert one(base, stored(1.0)).verdict == "INCONCLUSIVE"
        assert one(base, stored(1.09)).verdict == "INCONCLUSIVE"
        assert one(base, stored(1.11)).verdict == "REGRESSED"
        assert "3 base sessions" in one(base, stored(1.0)).reason

    def test_fewer_workers_than_needed_are_named_and_never_pass(self) -> None:
        # Three against three: p is at least 1/20.
        row = one(stored(1.0, workers=3), stored(1.5, workers=3))
        assert row.verdict == "INCONCLUSIVE"
        assert "fewer workers than needed" in row.reason
        assert row.detectable == math.inf
        assert row.to_row()["detectable"] is None

    def test_workers_must_agree(self) -> None:
        mixed = Session(level_s=1.2, units_s=(0.9, 0.95, 1.2, 1.2, 1.2), reference_s=1.0)
        assert one(BASE, replace(stored(1.0), sessions=(mixed,))).verdict == "INCONCLUSIVE"

    def test_what_the_test_cannot_reach_is_said_though_the_orders_would_allow_it(self) -> None:
        # Nine against nine have 48620 orders, 1/48620 < 0.01/60; but of more than eight a side the
        # test takes the normal distribution: z = (40.5 - 0.5)/sqrt(128.25), p = 2.1e-4 > 1.7e-4.
        def side(*levels: float) -> list[Stored]:
            found = stored(*levels, workers=3)
            return [replace(found, label=str(i), match=str(i)) for i in range(60)]

        for row in compare_stored(side(1.0, 1.001, 1.002), side(1.5, 1.501, 1.502), 0.01):
            assert row.verdict == "INCONCLUSIVE"
            assert row.detectable == math.inf
            assert "9 levels against 9 cannot reach p < 0.00017; measure with" in row.reason

    def test_more_benchmarks_than_their_workers_can_tell_is_said_with_what_helps(self) -> None:
        def side(level: float) -> list[Stored]:
            found = replace(stored(level), method="pytest-benchmark")
            return [replace(found, label=str(i), match=str(i)) for i in range(3)]

        for row in compare_stored(side(1.0), side(2.0), 0.01):
            assert row.verdict == "INCONCLUSIVE"
            assert "5 levels against 5 cannot reach p < 0.0033; compare fewer bench" in row.reason

    def test_the_rate_is_shared_among_the_workloads_of_a_list(self) -> None:
        # Student's t of 2 degrees of freedom at 1 - 0.005/2 is 14.089047; two workloads are too
        # few to steady each other's σ.
        limit = math.expm1(14.089047 * ERROR)
        base, new = ([replace(s, match=m) for m in "ab"] for s in (BASE, stored(0.999 + limit)))
        for row in compare_stored(base, new, 0.01):
            assert row.verdict == "INCONCLUSIVE"
            assert row.detectable == pytest.approx(limit + 0.84 * ERROR, rel=1e-6)

    def test_holm_over_a_suite(self) -> None:
        # Five against five gives p = 1/252 at best: enough alone, not among three.
        base = [replace(stored(1.0), label=str(i), match=str(i)) for i in range(3)]
        new = [replace(stored(1.5), label=str(i), match=str(i)) for i in range(3)]
        assert [r.verdict for r in compare_stored(base[:1], new[:1], 0.01)] == ["REGRESSED"]
        assert {r.verdict for r in compare_stored(base, new, 0.01)} == {"INCONCLUSIVE"}


class TestLists:
    """The rate is one for the whole list, and σ is known by all of it."""

    def lists(self, rng: np.random.Generator, shift: float) -> tuple[list[Stored], list[Stored]]:
        def side(sessions: int, by: float) -> list[Stored]:
            return [
                replace(
                    stored(*np.exp(by + 0.01 * rng.standard_normal(sessions)).tolist(), workers=9),
                    label=str(i),
                    match=str(i),
                )
                for i in range(30)
            ]

        return side(3, 0.0), side(3, shift)

    def test_lists_of_equals_hardly_ever_alarm(self) -> None:
        rng = np.random.default_rng(5)
        alarms = 0
        for _ in range(100):
            rows = compare_stored(*self.lists(rng, 0.0), 0.01)
            alarms += any(r.verdict == "REGRESSED" for r in rows)
        # 0.5 % are stated; of 100 lists 4 or more would come by chance once in 600.
        assert alarms <= 3

    def test_what_three_sessions_alone_could_not_call_a_list_can(self) -> None:
        # σ of 1 %: alone 9.9 · 1 % · √(2/3) = 8.1 % is the least that is called.
        rng = np.random.default_rng(6)
        rows = compare_stored(*self.lists(rng, 0.06), 0.01)
        assert np.mean([r.verdict == "REGRESSED" for r in rows]) > 0.8


class TestRefusals:
    def test_every_fact_is_named_with_both_values(self) -> None:
        row = one(
            stored(1.0, runtime_version="1.20"), stored(2.0, runtime_version="1.32", kernel="6.1")
        )
        assert row.verdict == "NOT_COMPARABLE"
        assert "runtime_version '1.20', now '1.32'" in row.reason
        assert row.differences["kernel"] == (None, "6.1")
        assert row.shift is None

    def test_a_moved_reference_ends_it(self) -> None:
        moved = replace(stored(1.0), sessions=(session(1.0, reference=1.016),))
        still = replace(stored(1.0), sessions=(session(1.0, reference=1.014),))
        assert one(BASE, moved).verdict == "NOT_COMPARABLE"
        assert "moved by +1.6%" in one(BASE, moved).reason
        assert one(BASE, still).verdict != "NOT_COMPARABLE"

    def test_what_has_no_partner_is_named(self) -> None:
        (row,) = compare_stored([BASE], [], 0.01)
        assert row.verdict == "NOT_COMPARABLE"
        assert row.reason == "only the base has it: measure the same on both sides"

    def test_what_is_gone_on_either_side_is_named(self) -> None:
        gone = Missing(label="net", match="k", reason="cannot read the model 'net.onnx'")
        for row in (one(BASE, gone), one(gone, BASE)):
            assert row.verdict == "NOT_COMPARABLE"
            assert "net.onnx" in row.reason


def row(verdict: str, tail: Tail | None = None) -> Comparison:
    return Comparison(workload="w", verdict=verdict, reason="", method="paired", tail=tail)  # type: ignore[arg-type]


class TestExitCode:
    @pytest.mark.parametrize(
        ("verdicts", "code"),
        [
            (["EQUIVALENT", "IMPROVED"], 0),
            (["EQUIVALENT", "REGRESSED", "NOT_COMPARABLE", "INCONCLUSIVE"], 1),
            (["INCONCLUSIVE", "EQUIVALENT"], 4),
            (["NOT_COMPARABLE", "INCONCLUSIVE"], 5),
            ([], 5),
        ],
    )
    def test_the_worst_counts(self, verdicts: list[str], code: int) -> None:
        assert CompareResult(rows=tuple(map(row, verdicts))).exit_code() == code

    def test_only_what_is_open_can_be_allowed(self) -> None:
        assert CompareResult(rows=(row("INCONCLUSIVE"),)).exit_code({"inconclusive"}) == 0
        assert CompareResult(rows=(row("NOT_COMPARABLE"),)).exit_code({"inconclusive"}) == 5

    def test_a_slower_tail_is_a_regression(self) -> None:
        tail = Tail(verdict="REGRESSED", shift=0.2, shift_ci99=(0.1, 0.3))
        assert CompareResult(rows=(row("EQUIVALENT", tail),)).exit_code() == 1
        as_before = Tail(verdict="EQUIVALENT", shift=0.0, shift_ci99=(-0.1, 0.05))
        assert CompareResult(rows=(row("EQUIVALENT", as_before),)).exit_code() == 0
