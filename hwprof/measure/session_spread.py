"""How far sessions on a machine lie apart: learned from what every session times.

On a quiet machine two sessions differ by a few tenths of a percent; on a virtual one whose host
moves the clock, or whose neighbours fill the caches, by several times as much, and none of them
can see that within itself. But every session times the same references
(:mod:`hwprof.measure.references`), so those of the past tell how far the next one may lie from
others.

Model: ln(reference level) of a session = that of its setting + a difference between sessions +
what the session does not know about itself. The variance of the second is what is left of the
observed one without the third. Few sessions know it badly: it begins from the protocol's constant,
leaves it as sessions come to be known (the mean of a scaled inverse χ² prior and the observed sum of
squares), and is widened by Student's t.

Sources: Gelman et al., Bayesian Data Analysis, 3rd edition, §2.6, for the combination and its t;
Satterthwaite (1946) for its degrees of freedom where the constant, which is exact, is most of it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hwprof.interval import NORMAL_975
from hwprof.measure.floor import SESSION_SD, SLOW_MODE

PRIOR_SESSIONS = 2
"""How many sessions the protocol's constant weighs as much as."""
FEW_SESSIONS = 5
"""With fewer a spread says more of the protocol's constant than of the machine."""
Kind = Literal["block", "network"]
"""What fits into a core's own caches and moves with its clock; what does not, and moves with the
memory that it shares with others."""
KINDS: tuple[Kind, ...] = get_args(Kind)
LARGE_BYTES = 4 * 2**20
"""A model of so much does not fit into a core's own caches: it moves as networks do."""


def session_name(telemetry: Mapping[str, Any]) -> str | None:
    """Return what names a measurement's session among those of its run; None without workers.

    It is the first of a group's workers, which has timed all of its members: one that took a dead
    one's place has not.
    """
    workers = telemetry.get("worker_levels_s", ())
    return min(workers, key=lambda label: (len(label), label), default=None)


@dataclass(frozen=True, kw_only=True)
class SessionLevel:
    """What a reference took in one session."""

    kind: Kind
    setting: str
    """What must be equal for two levels to be comparable: the fingerprint, cache mode, load."""
    level_s: float
    se: float
    """Standard error of ln(level) within the session."""


@dataclass(frozen=True, kw_only=True)
class SessionSpread:
    """Standard deviation of ln(level) from session to session."""

    sd: float
    """With which an interval of 1.96 of them holds 95 %: wider while few sessions are known."""
    n_known: int
    """Sessions that it is learned from: one alone in its setting has nothing to differ from."""


def session_spread(known: Iterable[SessionLevel], kind: Kind) -> SessionSpread:
    """Return how far sessions lie apart for a kind of work, never less than the constant.

    Settings have levels of their own; what sessions of one differ by is taken together. A session
    further from its setting's median than a slow mode counts as that far: one bad hour must not
    widen all that follows.

    Args:
        known: sessions of one machine, in any settings; those of other kinds are left out.
        kind: of the work that is measured.
    """
    from scipy.special import stdtrit

    by_setting: dict[str, list[SessionLevel]] = {}
    for session in known:
        if session.kind == kind:
            by_setting.setdefault(session.setting, []).append(session)
    observed = max(0.0, math.fsum(_between(sessions) for sessions in by_setting.values()))
    n_free = sum(len(s) - 1 for s in by_setting.values())
    n_known = sum(len(s) for s in by_setting.values() if len(s) > 1)
    if observed == 0.0:
        return SessionSpread(sd=SESSION_SD, n_known=n_known)
    all_free = PRIOR_SESSIONS + n_free
    variance = (PRIOR_SESSIONS * SESSION_SD**2 + observed) / all_free
    freedom = max(all_free, variance**2 * n_free / (observed / all_free) ** 2)
    sd = math.sqrt(variance) * float(stdtrit(freedom, 0.975)) / NORMAL_975
    return SessionSpread(sd=max(SESSION_SD, sd), n_known=n_known)


def _between(sessions: Sequence[SessionLevel]) -> float:
    """Return the sum of squares over one setting, without what sessions do not know themselves."""
    logs = [math.log(s.level_s) for s in sessions]
    middle, most = statistics.median(logs), math.log(SLOW_MODE)
    logs = [min(max(x, middle - most), middle + most) for x in logs]
    mean = statistics.fmean(logs)
    observed = math.fsum((x - mean) ** 2 for x in logs)
    own = math.fsum(s.se**2 for s in sessions) * (len(sessions) - 1) / len(sessions)
    return observed - own
