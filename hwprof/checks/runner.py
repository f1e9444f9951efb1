"""Runs golden checks one after another and gathers what they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hwprof.checks import clock, levels, pairs, simulated
from hwprof.checks.records import CannotCheckError, CheckResult, CheckSpec, SelftestResult
from hwprof.checks.rig import DeviceRig, Rig
from hwprof.errors import MeasurementError, PlanError
from hwprof.measure.records import DeviceRef
from hwprof.progress import Progress, ProgressCallback


@dataclass(frozen=True, kw_only=True)
class Check:
    """A golden check: what is fixed about it, and what it does with a rig and a seed.

    ``quick`` ones are enough to see that hwprof works here.
    """

    spec: CheckSpec
    run: Callable[[Rig, int], CheckResult]
    quick: bool = False


CHECKS: Mapping[int, Check] = {
    check.spec.check: check
    for check in (
        Check(spec=clock.CLOCK, run=lambda rig, _: clock.clock_pair(rig.instruments), quick=True),
        Check(
            spec=clock.BUSY_WAIT, run=lambda rig, _: clock.busy_wait(rig.instruments), quick=True
        ),
        Check(
            spec=clock.FIXED_WORK, run=lambda rig, _: clock.fixed_work(rig.instruments), quick=True
        ),
        Check(spec=levels.DISPATCH, run=levels.dispatch, quick=True),
        Check(spec=pairs.SAME, run=pairs.same_against_same),
        Check(spec=pairs.SLOWED, run=pairs.slowed_by_5pct),
        Check(spec=levels.PLAIN_LOOP, run=levels.plain_loop),
        Check(spec=levels.FOREIGN_LOAD, run=levels.foreign_load),
        Check(spec=levels.PARKED, run=levels.parked_workers),
        Check(spec=levels.PAGE_FAULTS, run=levels.page_faults, quick=True),
        Check(spec=levels.SUM_OF_PARTS, run=levels.sum_of_parts),
        Check(
            spec=simulated.SIMULATED,
            run=lambda _, seed: simulated.simulated_machine(seed),
            quick=True,
        ),
    )
}
QUICK = tuple(number for number, check in CHECKS.items() if check.quick)


def selftest(
    device: DeviceRef,
    *,
    checks: Sequence[int] | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> SelftestResult:
    """Run golden checks on a device.

    Args:
        device: how a worker opens the device.
        checks: numbers from 1 to 12 (:data:`QUICK` is a choice); by default all.
        seed: of random inputs, orders and the simulated machine.
        progress: called as checks go on.

    Raises:
        PlanError: there is no such check.
        DeviceUnavailableError: the device cannot be opened.
    """
    numbers = chosen(checks)
    started_s = time.monotonic()
    done = 0

    def tell(what: str) -> None:
        if progress is not None:
            label = f"check {numbers[done]}, {CHECKS[numbers[done]].spec.name}: {what}"
            progress(Progress(stage="selftest", done=done, total=len(numbers), label=label))

    rig = DeviceRig(device, tell)
    results = []
    for number in numbers:
        tell("started")
        results.append(run_check(number, rig, seed))
        done += 1
    if progress is not None:
        progress(Progress(stage="selftest", done=len(numbers), total=len(numbers)))
    return SelftestResult(
        device=device.name,
        checks=tuple(results),
        seconds=time.monotonic() - started_s,
        sessions=rig.sessions,
    )


def chosen(checks: Sequence[int] | None) -> tuple[int, ...]:
    """Return the numbers of the checks to run, in order.

    Raises:
        PlanError: there is no such check, or none was named.
    """
    if checks is None:
        return tuple(CHECKS)
    unknown = [n for n in checks if n not in CHECKS]
    if unknown or not checks:
        named = f"check {unknown[0]}" if unknown else "an empty list of checks"
        raise PlanError(f"{named}; expected numbers from 1 to {len(CHECKS)}, such as 1,2,5")
    return tuple(sorted(set(checks)))


def run_check(number: int, rig: Rig, seed: int = 0) -> CheckResult:
    """Run one check; one that cannot be done, or gives no value, says so in its result."""
    check = CHECKS[number]
    try:
        return check.run(rig, seed)
    except CannotCheckError as reason:
        return check.spec.skipped(str(reason))
    except MeasurementError as error:
        return check.spec.broken(str(error))
