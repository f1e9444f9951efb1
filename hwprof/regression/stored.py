"""Stored measurements against stored ones, where the old code cannot run any more.

Nothing stands side by side here, so a level may move with the machine. How much it moves is
taken from the base's own sessions: σ, the standard deviation of ln(level) from session to session,
steadied by those of the other workloads of the list (:mod:`hwprof.regression.moderation`).
With m base and n new sessions a shift must exceed max(2 %, k·σ·√(1/n + 1/m)). k is 3, or Student's
t of the list's common rate of 1 % (Bonferroni) where that is larger, so that no call stands beside
a 99 % interval that holds 0: few sessions know σ badly. The workers' levels must agree on the
shift too (one-sided Mann–Whitney, Holm over the workloads); alone they would say little, since
workers of one session share what the machine did in it. A reference block that moved by more than
1.5 %, or a key that differs, ends the comparison: never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwprof.measure.paired import SIGNIFICANCE
from hwprof.measure.records import Measurement, differing
from hwprof.regression.gate import rejected
from hwprof.regression.moderation import moderated
from hwprof.regression.records import Comparison, Method, Verdict

SMALLEST_STORED_SHIFT = 0.02
ONE_SESSION_SHIFT = 0.10
"""What one session a side can show: levels move by a few per cent from session to session."""
FEWEST_SESSIONS = 3
_MORE: Mapping[Method, str] = {
    "stored": "measure with --preset standard (preset: standard in a suite), or more sessions",
    "pytest-benchmark": "compare fewer benchmarks together, or the models side by side",
}
"""What helps where too few levels were kept."""
REFERENCE_MOVED = 0.015
SIGMAS = 3.0


@dataclass(frozen=True, kw_only=True)
class Session:
    """One visit to the machine.

    ``units_s`` are what the rank test compares: a level for every worker, or, out of a foreign
    file, the raw samples of its one process. Empty where a file has no raw data.
    """

    level_s: float
    units_s: tuple[float, ...]
    reference_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Everything stored of one workload under one key."""

    label: str
    match: str
    """What pairs base and new: equal on both sides."""
    facts: Mapping[str, object]
    sessions: tuple[Session, ...]
    method: Method = "stored"
    caveat: str = ""
    """What numbers of this kind cannot support, in words."""
    note: str = ""
    """What was left out, in words."""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A workload that should be there and is not: its model is gone, or it failed."""

    label: str
    match: str
    reason: str


def session_of(measurement: Measurement) -> Session:
    """Return what a stored comparison needs of a measurement."""
    return Session(
        level_s=measurement.level_s,
        units_s=tuple(measurement.telemetry["worker_levels_s"].values()),
        reference_s=measurement.telemetry.get("reference_level_s"),
    )


@dataclass(frozen=True, kw_only=True)
class _Question:
    """Two stored workloads that may be compared, with the numbers of the rule."""

    base: Stored
    new: Stored
    shift_log: float
    sd_log: float | None
    """Between the base's sessions; None with too few to know."""
    p_slower: float
    p_faster: float
    p_least: float
    n_levels: tuple[int, int]
    """How many the ranks are of: base, new."""


@dataclass(frozen=True, kw_only=True)
class _Limit:
    """From which shift on something is called, and why."""

    shift: float
    error_log: float | None = None
    """Standard error of the shift between sessions; None with too few to know."""
    student: float = math.inf
    """Student's t of the 99 % interval."""


def compare_stored(
    base: Sequence[Stored | Missing], new: Sequence[Stored | Missing], threshold: float
) -> tuple[Comparison, ...]:
    """Compare all that is stored on either side, judged together; what has no partner is named."""
    theirs = {n.match: n for n in new}
    ours = {b.match: b for b in base}
    asked = [_asked(ours.get(m), theirs.get(m)) for m in dict.fromkeys([*ours, *theirs])]
    questions = [q for q in asked if isinstance(q, _Question)]
    threshold = max(SMALLEST_STORED_SHIFT, threshold)
    slower = rejected([q.p_slower for q in questions])
    faster = rejected([q.p_faster for q in questions])
    limits = _limits(questions, threshold)
    judged = iter(
        _judged(q, limit, s, f, len(questions), threshold)
        for q, limit, s, f in zip(questions, limits, slower, faster, strict=True)
    )
    return tuple(next(judged) if isinstance(q, _Question) else q for q in asked)


def _asked(base: Stored | Missing | None, new: Stored | Missing | None) -> _Question | Comparison:
    for side, here in (("base", base), ("new", new)):
        if isinstance(here, Missing):
            return _refused(here.label, "stored", f"{side}: {here.reason}")
    if base is None or new is None:
        there = base or new
        assert isinstance(there, Stored)
        side = "base" if new is None else "new"
        return _refused(
            there.label, there.method, f"only the {side} has it: measure the same on both sides"
        )
    assert isinstance(base, Stored)
    assert isinstance(new, Stored)
    if found := differing(base.facts, new.facts):
        named = "; ".join(f"{k} {a!r}, now {b!r}" for k, (a, b) in found.items())
        reason = f"{named}: measure both side by side, or make a new baseline"
        return _refused(new.label, new.method, reason, found)
    moved = reference_shift(base.sessions, new.sessions)
    if moved is not None and abs(moved) > REFERENCE_MOVED:
        reason = (
            f"the reference block, which never changes, moved by {moved:+.1%}: the machine is not "
            "what it was; measure both side by side, or make a new baseline"
        )
        return _refused(new.label, new.method, reason)
    return _question(base, new)


def _refused(
    label: str,
    method: Method,
    reason: str,
    differences: Mapping[str, tuple[object, object]] | None = None,
) -> Comparison:
    return Comparison(
        workload=label,
        verdict="NOT_COMPARABLE",
        method=method,
        reason=reason,
        differences=differences or {},
    )


def reference_shift(before: Sequence[Session], after: Sequence[Session]) -> float | None:
    """Return how far the reference block moved; None where one side did not measure it."""
    levels_s = [
        [s.reference_s for s in side if s.reference_s is not None] for side in (before, after)
    ]
    if not all(levels_s):
        return None
    return typical_s(levels_s[1]) / typical_s(levels_s[0]) - 1.0


def typical_s(levels_s: Sequence[float]) -> float:
    """Return the geometric mean of levels."""
    return math.exp(float(np.mean(np.log(levels_s))))


def _question(base: Stored, new: Stored) -> _Question:
    before = np.log([s.level_s for s in base.sessions])
    after = np.log([s.level_s for s in new.sessions])
    a = np.array([u for s in base.sessions for u in s.units_s])
    b = np.array([u for s in new.sessions for u in s.units_s])
    p_slower, p_faster = _rank_p(a, b)
    return _Question(
        base=base,
        new=new,
        shift_log=float(after.mean() - before.mean()),
        sd_log=float(before.std(ddof=1)) if before.size >= FEWEST_SESSIONS else None,
        p_slower=p_slower,
        p_faster=p_faster,
        p_least=_least_p(a.size, b.size),
        n_levels=(a.size, b.size),
    )


def _limits(questions: Sequence[_Question], threshold: float) -> list[_Limit]:
    """Return the limit of every workload of a list, whose false-alarm rates share one percent.

    A workload's σ is steadied by those of the others.
    """
    known = [q for q in questions if q.sd_log is not None]
    sds, dfs = moderated(
        [q.sd_log for q in known if q.sd_log is not None], [len(q.base.sessions) - 1 for q in known]
    )
    steadied = iter(zip(sds, dfs, strict=True))
    limits = []
    for q in questions:
        if q.sd_log is None:
            limits.append(_Limit(shift=max(ONE_SESSION_SHIFT, threshold)))
            continue
        sd, df = next(steadied)
        error = sd * math.sqrt(1 / len(q.new.sessions) + 1 / len(q.base.sessions))
        called = math.expm1(max(SIGMAS, _student(df, len(questions))) * error)
        limits.append(
            _Limit(shift=max(threshold, called), error_log=error, student=_student(df, 1))
        )
    return limits


def _least_p(m: int, n: int) -> float:
    """Return the smallest p that the ranks of m against n can give.

    It is asked of the test itself, which for more than eight on both sides takes the normal
    distribution: that cannot give as small a p as the number of orders allows.
    """
    return _rank_p(np.arange(float(m)), np.arange(float(n)) + m)[0]


def _rank_p(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Return Mann–Whitney's one-sided p that ``b`` is larger than ``a``, and smaller."""
    from scipy.stats import mannwhitneyu

    if not (a.size and b.size):
        return 1.0, 1.0
    return (
        float(mannwhitneyu(b, a, alternative="greater").pvalue),
        float(mannwhitneyu(b, a, alternative="less").pvalue),
    )


def _judged(
    question: _Question,
    limit: _Limit,
    slower: bool,
    faster: bool,
    family: int,
    threshold: float,
) -> Comparison:
    q = question
    shift, error = math.expm1(q.shift_log), limit.error_log
    interval: tuple[float, float] | None = None
    detectable = limit.shift
    if error is not None:
        half = limit.student * error
        interval = (math.expm1(q.shift_log - half), math.expm1(q.shift_log + half))
        detectable = limit.shift + 0.84 * error
    if q.p_least >= SIGNIFICANCE / family:
        # The ranks cannot agree on any slowdown, however large.
        detectable = math.inf
    verdict: Verdict = "INCONCLUSIVE"
    if slower and shift > limit.shift:
        verdict = "REGRESSED"
    elif faster and math.expm1(-q.shift_log) > limit.shift:
        verdict = "IMPROVED"
    elif interval is not None and interval[1] < threshold:
        verdict = "EQUIVALENT"
    holds_zero = interval is not None and interval[0] <= 0.0 <= interval[1]
    return Comparison(
        workload=q.new.label,
        verdict=verdict,
        method=q.new.method,
        reason=_reason(q, limit, family, is_unclear=verdict == "INCONCLUSIVE" and holds_zero),
        shift=shift,
        shift_ci99=interval,
        detectable=detectable,
        base_s=typical_s([s.level_s for s in q.base.sessions]),
        new_s=typical_s([s.level_s for s in q.new.sessions]),
    )


def _student(df: float, family: int) -> float:
    """Return Student's t of a 99 % interval, or of as many as ``family`` that hold together."""
    from scipy.special import stdtrit

    return float(stdtrit(min(df, 1e6), 1.0 - 0.005 / family))


def _reason(q: _Question, limit: _Limit, family: int, *, is_unclear: bool) -> str:
    """Return what a verdict rests on; ``is_unclear``: it is open, and the interval holds 0."""
    m, n = len(q.base.sessions), len(q.new.sessions)
    parts = [f"{n} against {m} stored session{'s' if m > 1 else ''}"]
    if limit.error_log is None:
        parts.append(
            f"without {FEWEST_SESSIONS} base sessions nothing below {limit.shift:.0%} can be called "
            "and nothing is equivalent"
        )
    else:
        parts.append(f"the base's sessions allow calls above {limit.shift:.1%}")
    parts += [side.note for side in (q.base, q.new) if side.note]
    if is_unclear:
        parts.append("the 99 % interval between sessions holds 0, and more sessions narrow it")
    if caveat := q.new.caveat or q.base.caveat:
        parts.append(caveat)
    elif q.p_least >= SIGNIFICANCE / family:
        parts.append(
            f"fewer workers than needed: {q.n_levels[1]} levels against {q.n_levels[0]} cannot "
            f"reach p < {SIGNIFICANCE / family:.2g}; {_MORE[q.new.method]}"
        )
    return "; ".join(parts)
