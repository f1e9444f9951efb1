"""``selftest``."""

from __future__ import annotations

from typing import Annotated

import typer

from hwprof.cli import options as opt
from hwprof.cli.output import print_json, print_text
from hwprof.cli.progress import ProgressLine
from hwprof.errors import DeviceError

UNFIT = DeviceError.exit_code
"""The machine cannot do what is asked of it."""
TRIALS = 4


def selftest(
    device: opt.Device = "cpu",
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the checks that take seconds: 1-4, 10, 12.")
    ] = False,
    checks: Annotated[
        str | None, typer.Option("--checks", metavar="LIST", help="Only these, by number: 1,2,5.")
    ] = None,
    inject: Annotated[
        bool,
        typer.Option(
            "--inject", help="Instead: slow a block by 0 to 10 % and count what compare finds."
        ),
    ] = False,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            min=1,
            metavar="N",
            help="With --inject: comparisons of every slowdown; by default 4.",
        ),
    ] = None,
    threads: opt.Threads = 1,
    batch: opt.Batch = 1,
    precision: opt.Precision = "fp32",
    seed: opt.Seed = 0,
    json_: opt.Json = False,
    script: opt.Script = None,
) -> None:
    """Check whether this machine is fit for measuring.

    And whether hwprof measures right on it: about four minutes on two cores, with --quick half a
    minute. With --inject it prints instead how often compare finds slowdowns made on
    purpose (some minutes). Exit code 0: fit; 3: unfit, or nothing could be checked (the reasons
    are printed).
    """
    from hwprof import api
    from hwprof.reports.check_text import power_text, selftest_text

    if inject:
        if quick or checks is not None:
            raise typer.BadParameter("--inject runs no checks: leave out --quick and --checks")
        with ProgressLine() as progress:
            curve = api.power_curve(
                device,
                trials=TRIALS if trials is None else trials,
                threads=threads,
                batch=batch,
                precision=opt.precision_of(precision),
                seed=seed,
                script=script,
                progress=progress,
            )
        print_json(curve.to_json()) if json_ else print_text(power_text(curve.to_json()))
        return
    if trials is not None:
        raise typer.BadParameter("--trials goes with --inject: give both")
    with ProgressLine() as progress:
        result = api.selftest(
            device,
            quick=quick,
            checks=_numbers(checks),
            threads=threads,
            batch=batch,
            precision=opt.precision_of(precision),
            seed=seed,
            script=script,
            progress=progress,
        )
    print_json(result.to_json()) if json_ else print_text(selftest_text(result.to_json()))
    if not result.fit:
        raise typer.Exit(UNFIT)


def _numbers(text: str | None) -> list[int] | None:
    """Return the numbers in ``1,2,5``."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--checks is {text!r}; expected numbers such as 1,2,5") from None


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(selftest)
