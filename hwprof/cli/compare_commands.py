"""``compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwprof.cli import options as opt
from hwprof.cli.output import print_json, print_text
from hwprof.cli.progress import ProgressLine

if TYPE_CHECKING:
    from hwprof.regression.records import CompareResult

ThresholdOption = Annotated[
    str, typer.Option("--threshold", help="Smallest slowdown that matters; at least 1%.")
]
AllowOption = Annotated[
    str | None, typer.Option("--allow", help="inconclusive: exit 0 instead of 4.")
]
MarkdownOption = Annotated[
    str | None, typer.Option("--markdown", help="Also write a Markdown table to this file.")
]
JunitOption = Annotated[
    str | None, typer.Option("--junit", help="Also write a JUnit file, a test a workload.")
]
BadgeOption = Annotated[str | None, typer.Option("--badge", help="Also write an SVG badge.")]


def compare(
    base: Annotated[
        str, typer.Argument(help="A model, a run folder, or pytest-benchmark's JSON: the old one.")
    ],
    new: Annotated[str, typer.Argument(help="The same kind of thing: the new one.")],
    device: opt.Device = "cpu",
    threads: opt.Threads = 1,
    batch: opt.Batch = 1,
    precision: opt.Precision = "fp32",
    threshold: ThresholdOption = "1%",
    input_: Annotated[
        list[str] | None,
        typer.Option("--input", help="NAME=1x3x224x224:float32; once for each input."),
    ] = None,
    base_python: Annotated[
        str | None,
        typer.Option(
            "--base-python",
            help="Run the base on this Python (3.11+, numpy, onnx, the runtime): .venv-old/bin/python",
        ),
    ] = None,
    max_time: Annotated[
        str, typer.Option("--max-time", help="Longest for one pair of models.")
    ] = "60s",
    allow: AllowOption = None,
    markdown: MarkdownOption = None,
    junit: JunitOption = None,
    badge: BadgeOption = None,
    seed: opt.Seed = 0,
    json_: opt.Json = False,
    script: opt.Script = None,
) -> None:
    """Say whether NEW is slower than BASE, with a stated false-alarm rate.

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
            threshold=opt.parse_percentage("--threshold", threshold) or 0.0,
            inputs=input_ or (),
            base_python=base_python,
            max_time_s=opt.parse_duration(max_time) or 0.0,
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

    from hwprof.api.models import write_file
    from hwprof.reports import compare_files, compare_text

    rows = result.to_json()
    code = result.exit_code(allowed)
    for path, content in (
        (markdown, compare_files.markdown),
        (junit, compare_files.junit),
        (badge, compare_files.badge),
    ):
        if path is not None:
            write_file(Path(path), content(rows, allowed).encode())
    print_json(rows) if json_ else print_text(compare_text.compare_text(rows))
    if code:
        raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(compare)
