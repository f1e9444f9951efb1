"""``compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwprof.cli import options as opt
from hwprof.cli.output import print_json, print_text
from hwprof.cli.progress import ProgressLine

if TYPE_CHECKING:
    from hwprof.regression.records import CompareResult


def compare(
    base: Annotated[
        str,
        typer.Argument(
            help="The old one: a model, a run folder, a suite's baseline, or pytest-benchmark's JSON.",
            metavar="BASE",
        ),
    ],
    new: Annotated[str, typer.Argument(help="The new one, of the same kind.", metavar="NEW")],
    device: opt.Device = "cpu",
    threads: opt.Threads = 1,
    batch: opt.Batch = 1,
    precision: opt.Precision = "fp32",
    threshold: opt.Threshold = "1%",
    input_: opt.Inputs = None,
    base_python: Annotated[
        str | None,
        typer.Option(
            "--base-python",
            metavar="FILE",
            help="Run BASE by this Python, e.g. .venv-old/bin/python, which has another version of the "
            "runtime (it needs Python 3.11, numpy and the runtime; for cpu onnx too).",
        ),
    ] = None,
    max_time: Annotated[
        str, typer.Option("--max-time", metavar="TIME", help="Longest time for one pair of models.")
    ] = "60s",
    timeout: opt.Timeout = "2m",
    allow: opt.Allow = None,
    markdown: opt.Markdown = None,
    junit: opt.Junit = None,
    badge: opt.Badge = None,
    seed: opt.Seed = 0,
    json_: opt.Json = False,
    script: opt.Script = None,
) -> None:
    """Say whether NEW is slower than BASE.

    Two models are timed now, side by side; stored measurements are only held against each other.
    Its false-alarm rate is 1 %, and as much again for the tail (the slowest calls).

    Exit code 0: not slower; 1: regressed; 4: inconclusive; 5: not comparable.
    """
    from hwprof import api

    allowed = allowed_verdicts(allow)
    with ProgressLine() as progress:
        result = api.compare(
            base,
            new,
            device=device,
            threads=threads,
            batch=batch,
            precision=opt.precision_of(precision),
            threshold=opt.percentage("--threshold", threshold),
            inputs=input_ or (),
            base_python=base_python,
            max_time_s=opt.seconds("--max-time", max_time),
            timeout_s=opt.seconds("--timeout", timeout),
            seed=seed,
            script=script,
            progress=progress,
        )
    finish(result, allowed, json_=json_, markdown=markdown, junit=junit, badge=badge)


def allowed_verdicts(allow: str | None) -> frozenset[str]:
    """Return what ``--allow`` lets pass."""
    if allow is None:
        return frozenset()
    return frozenset({opt.one_of("--allow", allow, ("inconclusive",))})


def finish(
    result: CompareResult,
    allowed: frozenset[str],
    *,
    json_: bool,
    markdown: str | None,
    junit: str | None,
    badge: str | None,
) -> None:
    """Write the files that were asked for, print the result, and end with its exit code."""
    from pathlib import Path

    from hwprof.api.files import write_file
    from hwprof.reports import compare_files, compare_text

    rows = result.to_json()
    code = result.exit_code(allowed)
    try:
        for path, content in (
            (markdown, compare_files.markdown),
            (junit, compare_files.junit),
            (badge, compare_files.badge),
        ):
            if path is not None:
                write_file(Path(path), content(rows, allowed).encode())
    finally:
        # What was measured is shown also where a file cannot be written.
        print_json(rows) if json_ else print_text(compare_text.compare_text(rows))
    if code:
        raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(compare)
