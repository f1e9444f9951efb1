"""``suite run``, ``suite compare`` and ``suite history``."""

from __future__ import annotations

from typing import Annotated

import typer

from hwprof.cli import options as opt
from hwprof.cli.compare_commands import allowed_verdicts, finish
from hwprof.cli.output import print_json, print_text, say
from hwprof.cli.progress import ProgressLine
from hwprof.errors import DeviceError


def run(
    suite: Annotated[
        str,
        typer.Argument(help="A suite file (YAML), or 'stock' for the one that comes with hwprof."),
    ],
    out: Annotated[str, opt.named("--out", "Folder of the baseline.", kind="FOLDER")],
    sessions: Annotated[
        int,
        typer.Option("--sessions", min=1, metavar="N", help="Sessions to add to the baseline."),
    ] = 3,
    timeout: opt.Timeout = "2m",
    seed: opt.Seed = 0,
    json_: opt.Json = False,
    script: opt.Script = None,
) -> None:
    """Measure a suite into a baseline.

    Called again, it adds sessions. Exit code 3 if a workload failed.
    """
    from hwprof import api

    with ProgressLine() as progress:
        result = api.suite_run(
            suite,
            out=out,
            sessions=sessions,
            timeout_s=opt.seconds("--timeout", timeout),
            seed=seed,
            script=script,
            progress=progress,
        )
    for failure in result.failures:
        say(f"{failure.workload.label}: {failure.why}")
    if json_:
        print_json(result.to_json())
    else:
        print_text(
            f"{result.n_measured} measurements in {result.n_sessions} more sessions of {out}, "
            f"{len(result.failures)} failures"
        )
    if result.failures:
        raise typer.Exit(DeviceError.exit_code)


def compare(
    base: Annotated[
        str, typer.Argument(help="A baseline; with --commit a folder of them, named by commits.")
    ],
    new: Annotated[str, typer.Argument(help="The --out of `hwprof suite run` that is judged.")],
    commit: Annotated[
        str | None,
        typer.Option(
            "--commit",
            metavar="COMMIT",
            help="The commit whose baseline is meant: 4f2a91c, HEAD~1, a tag.",
        ),
    ] = None,
    threshold: opt.Threshold = "2%",
    allow: opt.Allow = None,
    markdown: opt.Markdown = None,
    junit: opt.Junit = None,
    badge: opt.Badge = None,
    json_: opt.Json = False,
) -> None:
    """Hold a measured suite against a stored baseline.

    Exit codes are those of `hwprof compare`.
    """
    from hwprof import api

    allowed = allowed_verdicts(allow)
    share = opt.percentage("--threshold", threshold)
    result = api.suite_compare(base, new, commit=commit, threshold=share)
    finish(result, allowed, json_=json_, markdown=markdown, junit=junit, badge=badge)


def history(
    baselines: Annotated[
        str, typer.Argument(help="A baseline, or a folder of baselines named by commits.")
    ],
    seed: opt.Seed = 0,
    json_: opt.Json = False,
) -> None:
    """Say when each workload became slower or faster.

    It takes all sessions that are stored.
    """
    from hwprof import api
    from hwprof.reports.history_text import history_text

    rows = api.suite_history(baselines, seed=seed).to_json()
    print_json(rows) if json_ else print_text(history_text(rows))


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    suite = typer.Typer(
        help="Guard a list of workloads against slowdowns. Measure it into a baseline, compare, "
        "follow its history.",
        no_args_is_help=True,
    )
    suite.command()(run)
    suite.command()(compare)
    suite.command()(history)
    app.add_typer(suite, name="suite")
