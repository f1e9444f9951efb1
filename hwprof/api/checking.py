"""``selftest``: is this machine fit for measuring, and what slowdowns would be found on it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hwprof.api.tables import Table
from hwprof.errors import PlanError
from hwprof.measure.records import DeviceOptions, Precision
from hwprof.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from hwprof.checks import SelftestResult
    from hwprof.regression.injection import PowerPoint


def selftest(
    device: str = "cpu",
    *,
    quick: bool = False,
    checks: Sequence[int] | None = None,
    threads: int = 1,
    batch: int = 1,
    precision: Precision = "fp32",
    seed: int = 0,
    script: str | None = None,
    progress: ProgressCallback | None = None,
) -> SelftestResult:
    """Run the golden checks on a device and say whether this machine is fit for measuring.

    Args:
        device: a name that ``hwprof devices`` lists.
        quick: only the checks that take seconds (1 to 4, 10 and 12).
        checks: only these, by number.
        threads: threads of the runtime.
        batch: batch size.
        precision: arithmetic type.
        seed: of random inputs, orders and the simulated machine.
        script: steers the ``null`` device only.
        progress: called with a progress record as checks go on.

    Raises:
        PlanError: no such check or device, or both ``quick`` and ``checks`` are given.
        DeviceUnavailableError: the device cannot be opened.
    """
    from hwprof.checks import QUICK
    from hwprof.checks import selftest as run
    from hwprof.devices import device_ref

    if quick and checks is not None:
        raise PlanError("--quick is a choice of checks itself: leave out --quick or --checks")
    options = DeviceOptions(threads=threads, batch=batch, precision=precision, script=script)
    ref = device_ref(device, options)
    if ref.address is not None:
        raise PlanError(
            f"selftest checks the clocks of this machine, not those of {device!r}: log in there and "
            f"run hwprof selftest --device {device.partition('@')[0]}"
        )
    return run(
        ref,
        checks=QUICK if quick else checks,
        seed=seed,
        progress=progress,
    )


def power_curve(
    device: str = "cpu",
    *,
    trials: int = 4,
    threads: int = 1,
    batch: int = 1,
    precision: Precision = "fp32",
    seed: int = 0,
    script: str | None = None,
    progress: ProgressCallback | None = None,
) -> Table[PowerPoint]:
    """Slow a block down on purpose, by sizes from 0 to 10 %, and count what the gate says.

    Size 0 counts false alarms; both kinds of injection are used where the device allows.

    Args:
        device: a name that ``hwprof devices`` lists.
        trials: comparisons of every size and kind.
        threads: threads of the runtime.
        batch: batch size.
        precision: arithmetic type.
        seed: of inputs and orders.
        script: steers the ``null`` device only, into which no real work can be put.
        progress: called after every comparison.

    Raises:
        PlanError: no such device, or it is on another machine.
        DeviceError: the device cannot be opened, or nothing can be put into its calls.
    """
    from hwprof.checks.workloads import BLOCK
    from hwprof.devices import device_ref
    from hwprof.regression.injection import (
        KINDS,
        SIZES,
        Slowdown,
        floor_s,
        power_points,
        run_trial,
    )

    options = DeviceOptions(threads=threads, batch=batch, precision=precision, script=script)
    ref = device_ref(device, options)
    if ref.address is not None:
        raise PlanError(
            f"slowdowns are injected on this machine, not on {device!r}: log in there and "
            f"run hwprof selftest --inject --device {device.partition('@')[0]}"
        )
    kinds = KINDS[:1] if device == "null" else KINDS
    level_s = floor_s(BLOCK, ref, seed)
    cells = [(kind, size, i) for kind in kinds for size in SIZES for i in range(trials)]
    found = []
    for done, (kind, size, index) in enumerate(cells):
        if progress is not None:
            label = f"{kind} of {size:.0%}"
            progress(Progress(stage="inject", done=done, total=len(cells), label=label))
        slowdown = Slowdown(kind=kind, size=size, level_s=level_s)
        found.append(run_trial(BLOCK, ref, slowdown, seed=seed + index))
    return Table(tuple(power_points(found)))
