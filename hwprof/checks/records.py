"""What a check says, and what they say together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hwprof.measure.session_spread import Kind, SessionSpread

if TYPE_CHECKING:
    import pandas as pd

Bound = Literal["at most", "at least"]
N_CHECKS = 12


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One golden check: what was found, what was allowed.

    ``passed`` is None for a check that could not be done here; ``detail`` then says why.
    ``value`` and ``limit`` are in ``unit``. A check of several cases shows the one nearest to
    its limit, and all of them in ``figures``.
    """

    check: int
    name: str
    value: float | None
    limit: float
    unit: str
    passed: bool | None
    detail: str
    bound: Bound = "at most"
    figures: Mapping[str, float] = field(default_factory=dict)
    advice: str = ""
    """What to do about it; empty unless it failed."""

    def to_row(self) -> dict[str, Any]:
        """Return the documented keys, and what stands beside them."""
        return {
            "check": self.check,
            "name": self.name,
            "value": self.value,
            "limit": self.limit,
            "bound": self.bound,
            "unit": self.unit,
            "passed": self.passed,
            "detail": self.detail,
            "advice": self.advice,
            "figures": dict(self.figures),
        }


@dataclass(frozen=True, kw_only=True)
class CheckSpec:
    """What is fixed about a check: its number in the protocol, its limit, what failing means."""

    check: int
    name: str
    limit: float
    unit: str
    advice: str
    bound: Bound = "at most"

    def result(
        self,
        value: float,
        detail: str,
        *,
        limit: float | None = None,
        holds: bool = True,
        figures: Mapping[str, float] | None = None,
    ) -> CheckResult:
        """Return the result of a check that was done.

        Args:
            value: what was found, in :attr:`unit`.
            detail: the same in words.
            limit: where it depends on the case, else the check's own.
            holds: whether everything holds that is asked beside the limit.
            figures: all that was found, by name.
        """
        allowed = self.limit if limit is None else limit
        within = value <= allowed if self.bound == "at most" else value >= allowed
        passed = bool(within and holds)
        return self._with(value, allowed, passed, detail, figures or {})

    def skipped(self, reason: str) -> CheckResult:
        """Return the result of a check that cannot be done here."""
        return self._with(None, self.limit, None, f"not done: {reason}", {})

    def broken(self, message: str) -> CheckResult:
        """Return the result of a check that gave no value although it should have."""
        return self._with(None, self.limit, False, message, {})

    def _with(
        self,
        value: float | None,
        limit: float,
        passed: bool | None,
        detail: str,
        figures: Mapping[str, float],
    ) -> CheckResult:
        return CheckResult(
            check=self.check,
            name=self.name,
            value=value,
            limit=limit,
            unit=self.unit,
            passed=passed,
            detail=detail,
            bound=self.bound,
            figures=figures,
            advice=self.advice if passed is False else "",
        )


class CannotCheckError(Exception):
    """The device or the machine cannot do what a check asks; the message says why."""


@dataclass(frozen=True, kw_only=True)
class SelftestResult:
    """Every check in order, and whether the machine is fit.

    ``fit`` is False where a check failed, True where none did, None where none could be done.
    """

    device: str
    checks: tuple[CheckResult, ...]
    seconds: float
    sessions: Mapping[Kind, SessionSpread] = field(default_factory=dict)
    """How far sessions on this machine lie apart, those of the checks included, by kind of work;
    empty for a device that follows a script."""

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that were done and did not pass."""
        return tuple(c for c in self.checks if c.passed is False)

    @property
    def skipped(self) -> tuple[CheckResult, ...]:
        """The checks that could not be done."""
        return tuple(c for c in self.checks if c.passed is None)

    @property
    def fit(self) -> bool | None:
        """Whether every check that could be done passed."""
        if self.failed:
            return False
        return True if any(c.passed for c in self.checks) else None

    @property
    def verdict(self) -> str:
        """The result in one plain sentence."""
        n_passed = sum(c.passed is True for c in self.checks)
        score = f"{n_passed} of {len(self.checks)} checks passed"
        if len(self.checks) < N_CHECKS:
            score += f", of {N_CHECKS} there are"
        if self.skipped:
            score += f"; not done: {', '.join(str(c.check) for c in self.skipped)}"
        if self.failed:
            causes = "; ".join(f"check {c.check} ({c.name}): {c.advice}" for c in self.failed)
            return f"this machine is unfit for measuring on {self.device} ({score}). {causes}"
        if not n_passed:
            return f"whether this machine is fit for measuring on {self.device} is open ({score})"
        return f"this machine is fit for measuring on {self.device} ({score})"

    def to_json(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof selftest --json``."""
        return {
            "device": self.device,
            "fit": self.fit,
            "verdict": self.verdict,
            "seconds": self.seconds,
            "sessions": {kind: asdict(spread) for kind, spread in self.sessions.items()},
            "checks": [c.to_row() for c in self.checks],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row a check."""
        import pandas as pd

        return pd.DataFrame([c.to_row() for c in self.checks])

    def _repr_html_(self) -> str:
        html: str = self.to_frame().drop(columns=["figures"]).to_html(index=False)
        return html


class Case(NamedTuple):
    """One of several cases of a check: a value and the most it may be."""

    label: str
    value: float
    limit: float


def worst(cases: Iterable[Case]) -> Case:
    """Return the case that comes nearest to its limit, or exceeds it most."""
    return max(cases, key=lambda c: c.value / c.limit)
