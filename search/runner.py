"""Run a search: carry out a strategy's requests, keep the books, measure the finalists.

Predicted and measured networks never share a front. With a device to measure on, the front is of
the finalists as measured (``confirmed``); without one it is of all networks as predicted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hwprof.errors import DataError, IncompatibleRunError, PlanError
from hwprof.progress import Pace, Progress, ProgressCallback
from hwprof.protocols import AccuracySource
from hwprof.results import LatencySource, SearchResult, Trial
from hwprof.search.events import (
    ArchEvaluated,
    ArchRefused,
    Event,
    FinalistMeasured,
    IncumbentChanged,
    SearchFinished,
    SearchStarted,
)
from hwprof.search.finalists import Measure, choose_finalists, front_of, measured
from hwprof.search.journal import Journal
from hwprof.search.judging import Judge, Latency, Prediction
from hwprof.search.ledger import Ledger
from hwprof.search.strategy import Evaluated, Refusal, Strategy, UsesForesight
from hwprof.space import Architecture, DesignSpace

log = logging.getLogger(__name__)

BATCH = 8
"""Networks of one request: how much a killed search does again, how late a time limit is seen."""

PROPOSALS_PER_EVALUATION = 50
"""Bounds a search in which nearly every network is refused (a target out of reach, a table with
few networks), as refusals cost no evaluation."""


@runtime_checkable
class HasTestImages(Protocol):
    """An accuracy source that keeps images which neither training nor searching sees."""

    def test_score(self, archs: Sequence[Architecture]) -> list[float | None]:
        """Return top-1 on those images in percent for each architecture."""
        ...


def run_search(
    space: DesignSpace,
    strategy: Strategy,
    *,
    accuracy: AccuracySource,
    latency: Latency,
    max_evals: int,
    max_time_s: float | None = None,
    target_s: float | None = None,
    measure: Measure | None = None,
    n_finalists: int = 16,
    always: Sequence[Architecture] = (),
    seed: int = 0,
    device: str | None = None,
    latency_source: LatencySource = "predicted",
    progress: ProgressCallback | None = None,
    folder: Path | None = None,
    course: Sequence[Event] = (),
    training_s: float = 0.0,
) -> SearchResult:
    """Search ``space`` for the best trades of accuracy against latency.

    Args:
        space: where to search.
        strategy: decides what is judged next; made for the same space and target.
        accuracy: gives top-1 in percent; where it has a ``test_score``, finalists get that too.
        latency: predicts (latency, half-width of its 95 % interval) in seconds for each network.
        max_evals: distinct networks whose accuracy may be judged.
        max_time_s: judge no further once the search has lasted this long, interruptions and
            measuring apart.
        target_s: slower networks are not wanted.
        measure: measures the finalists; without it the front is unconfirmed.
        n_finalists: how many are measured at most.
        always: networks measured among them whatever beats them, the most wanted first.
        seed: of the strategy's generator; recorded, not used.
        device: the name to record.
        latency_source: how ``latency`` knows: from a model or from a table.
        progress: called after each request.
        folder: keeps log and checkpoint; called again, the search goes on where it stopped.
        course: what went before the networks that the strategy proposes, for the log.
        training_s: what that took, for the ledger.

    Raises:
        DataError: not one network could be judged.
        DeviceError: not one finalist could be measured.
        IncompatibleRunError: ``folder`` holds a search that was asked something else.
        PlanError: nothing may be judged, or nothing measured.
        StoreError: ``folder`` cannot be used.
    """
    for name, count in (("max_evals", max_evals), ("n_finalists", n_finalists)):
        if count < 1:
            raise PlanError(f"{name} is {count}; expected at least 1")
    ledger = Ledger(training_s=training_s)
    judge = Judge(
        space=space,
        accuracy=accuracy,
        latency=latency,
        latency_source=latency_source,
        target_s=target_s,
        ledger=ledger,
    )
    if isinstance(strategy, UsesForesight):
        strategy.foresee(judge.foresee)
    request = {
        **request_of(
            space,
            strategy=strategy.name,
            settings=strategy.settings,
            target_s=target_s,
            seed=seed,
        ),
        "accuracy": accuracy.digest,
    }
    with Journal(folder, request) as journal:
        search = _Search(strategy=strategy, judge=judge, journal=journal, progress=progress)
        search.begin(request, course)
        reason = search.judge_all(max_evals, max_time_s)
        if not search.trials:
            raise DataError(_nothing_judged(search.refusals, reason))
        finalists = search.confirm(measure, n_finalists, always)
        shown = [t for t in finalists if measure is None or t.latency_source == "measured"]
        front = front_of(shown, target_s)
        if not front:
            log.warning("no finalist is as fast as wanted: the front is empty")
        search.finish(reason, confirmed=measure is not None, n_front=len(front))
    return SearchResult(
        space=space.name,
        reduced=space.is_reduced,
        strategy=strategy.name,
        seed=seed,
        device=device,
        front=front,
        finalists=finalists,
        trials=tuple(search.trials),
        confirmed=measure is not None,
        ledger=ledger.to_json(),
        settings={
            **strategy.settings,
            "max_evals": max_evals,
            "target_s": target_s,
            "n_finalists": n_finalists,
            "ended_by": reason,
        },
    )


@dataclass(kw_only=True)
class _Search:
    """A search under way: what was judged, and the strategy that it steers."""

    strategy: Strategy
    judge: Judge
    journal: Journal
    progress: ProgressCallback | None
    trials: list[Trial] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    front: list[Trial] = field(default_factory=list)

    @property
    def ledger(self) -> Ledger:
        return self.judge.ledger

    def begin(self, request: Mapping[str, Any], course: Sequence[Event]) -> None:
        """Start afresh, or take up what an interrupted search left."""
        resumed = self.journal.resumed
        if resumed is None:
            for event in (SearchStarted(request=request), *course):
                self.journal.record(event, self.ledger.tick())
            return
        for name, value in resumed.ledger.items():
            setattr(self.ledger, name, value)
        self.strategy.load_state_dict(resumed.strategy)
        for outcome in resumed.outcomes:
            self._take(outcome)
        self._require_same_latency()

    def judge_all(self, max_evals: int, max_time_s: float | None) -> str:
        """Carry out requests until the budget is spent; return why it ended."""
        pace = Pace(total=max_evals, done_before=self.ledger.evaluations)
        while True:
            reason = self._ended(max_evals, max_time_s)
            if reason is not None:
                return reason
            request = self.strategy.ask(min(BATCH, max_evals - self.ledger.evaluations))
            outcome = self.judge.evaluate(request)
            self.strategy.tell(outcome)
            self._log(outcome)
            self._keep()
            self._show(max_evals, pace)

    def confirm(
        self, measure: Measure | None, n_finalists: int, always: Sequence[Architecture]
    ) -> tuple[Trial, ...]:
        """Choose the finalists, measure them, and score them on test images."""
        target_s = self.judge.target_s
        if measure is None:
            return self._tested(front_of(self.trials, target_s))
        finalists = choose_finalists(self.trials, n_finalists, target_s, always)
        started_s = time.monotonic()
        try:
            finalists = measured(finalists, measure)
        finally:
            self.ledger.measuring_s += time.monotonic() - started_s
            # What was measured is kept, and so is what it took. Nothing was logged in between:
            # the log of a search that goes on still ends with what was judged.
            self._keep()
        self.ledger.measured += sum(t.latency_source == "measured" for t in finalists)
        finalists = self._tested(finalists)
        for trial in finalists:
            self.journal.record(FinalistMeasured(trial=trial), self.ledger.tick())
        return finalists

    def finish(self, reason: str, *, confirmed: bool, n_front: int) -> None:
        """Close the books."""
        now_s = self.ledger.tick()
        event = SearchFinished(
            reason=reason, confirmed=confirmed, n_front=n_front, ledger=self.ledger.to_json()
        )
        self.journal.record(event, now_s)

    def _ended(self, max_evals: int, max_time_s: float | None) -> str | None:
        if self.ledger.evaluations >= max_evals:
            return "evaluations"
        if self.strategy.done:
            return "no new networks"
        # Finalists that were measured before the search was prolonged took no time from it.
        judging_s = self.ledger.tick() - self.ledger.measuring_s
        if max_time_s is not None and judging_s >= max_time_s:
            return "time"
        if self.ledger.proposals >= PROPOSALS_PER_EVALUATION * max_evals:
            return "proposals"
        return None

    def _keep(self) -> None:
        """Make what was judged and spent so far what a killed search goes on from."""
        self.ledger.tick()
        self.journal.checkpoint(self.strategy.state_dict(), self.ledger.to_json())

    def _take(self, outcome: Trial | Refusal) -> bool:
        """Keep an outcome; return whether it joined the front of trials."""
        if isinstance(outcome, Refusal):
            self.refusals.append(outcome)
            return False
        self.trials.append(outcome)
        self.front = list(front_of([*self.front, outcome], None))
        return any(t is outcome for t in self.front)

    def _log(self, outcome: Evaluated) -> None:
        now_s = self.ledger.tick()
        for judged in outcome.outcomes:
            joined = self._take(judged)
            if isinstance(judged, Refusal):
                self.journal.record(ArchRefused(refusal=judged), now_s)
                continue
            self.journal.record(ArchEvaluated(trial=judged), now_s)
            if joined:
                event = IncumbentChanged(arch_id=judged.arch.arch_id, n_front=len(self.front))
                self.journal.record(event, now_s)

    def _show(self, max_evals: int, pace: Pace) -> None:
        if self.progress is not None:
            self.progress(
                Progress(
                    stage="search",
                    done=self.ledger.evaluations,
                    total=max_evals,
                    label=f"{len(self.front)} on the predicted front",
                    eta_s=pace.eta_s(self.ledger.evaluations),
                    n_failed=sum(r.stage != "target" for r in self.refusals),
                )
            )

    def _tested(self, finalists: tuple[Trial, ...]) -> tuple[Trial, ...]:
        if not isinstance(self.judge.accuracy, HasTestImages) or not finalists:
            return finalists
        started_s = time.monotonic()
        scores = self.judge.accuracy.test_score([t.arch for t in finalists])
        self.ledger.accuracy_s += time.monotonic() - started_s
        return tuple(
            replace(t, test_accuracy_pct=score) for t, score in zip(finalists, scores, strict=True)
        )

    def _require_same_latency(self) -> None:
        """Refuse to go on where the latency source says something else than before."""
        now = self.judge.predict([t.arch for t in self.trials])
        for trial, found in zip(self.trials, now, strict=True):
            now_s = found.latency_s if isinstance(found, Prediction) else math.nan
            if not math.isclose(now_s, trial.latency_s, rel_tol=1e-9):
                raise IncompatibleRunError(
                    f"{trial.arch} was predicted {trial.latency_s} s when the search began, now "
                    f"{now_s} s; the latency source has changed: name another folder"
                )


def request_of(
    space: DesignSpace,
    *,
    strategy: str,
    settings: Mapping[str, Any],
    target_s: float | None,
    seed: int,
) -> dict[str, Any]:
    """Return what has to be the same for a search to go on, its accuracies apart."""
    left = json.dumps([[*slot, *space.choices(slot)] for slot in space.slots])
    return {
        "space": space.name,
        "resolution_px": space.resolution_px,
        "candidates": hashlib.sha256(left.encode()).hexdigest()[:16],
        "strategy": strategy,
        "settings": dict(settings),
        "target_s": target_s,
        "seed": seed,
    }


def _nothing_judged(refusals: Sequence[Refusal], reason: str) -> str:
    if not refusals:
        return f"no network was judged (ended by: {reason}); give the search more time"
    slow = [r.latency_s for r in refusals if r.stage == "target" and r.latency_s is not None]
    if len(slow) == len(refusals):
        return (
            f"all {len(slow)} networks proposed are slower than the target, the fastest "
            f"{min(slow) * 1e3:.4g} ms; raise --target-ms"
        )
    first = next(r for r in refusals if r.stage != "target")
    return (
        f"none of the {len(refusals)} networks proposed could be judged; the first: "
        f"{first.reason}; check that latency and accuracy source are of this space"
    )
