"""``train``, ``search``, ``report``, ``quickstart``."""

from __future__ import annotations

from typing import Annotated

import typer

from hwprof.cli import options as opt
from hwprof.cli.output import print_json, print_text, say
from hwprof.cli.progress import ProgressLine


def train(
    out: opt.Out,
    space: Annotated[
        str | None, typer.Option("--space", help="Train the supernet of this space.")
    ] = None,
    arch: Annotated[
        str | None, typer.Option("--arch", help="Train this one network instead.")
    ] = None,
    data: opt.Data = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the training images.")
    ] = None,
    max_time: opt.MaxTime = None,
    seed: opt.Seed = 0,
    json_: opt.Json = False,
) -> None:
    """Train a supernet to take accuracies from, or one derived network; resumable."""
    from hwprof import api
    from hwprof.reports import text

    with ProgressLine() as progress:
        summary = api.train(
            out=out,
            space=space,
            arch=arch,
            data=data,
            epochs=epochs,
            max_time_s=opt.parse_duration(max_time),
            seed=seed,
            progress=progress,
        )
    print_json(summary.to_json()) if json_ else print_text(text.training_text(summary.to_json()))


def search(
    space: Annotated[str, typer.Option("--space", help="A space or a reduced.yaml.")],
    latency: Annotated[
        str, typer.Option("--latency", help="Run folder of a profile, or TABLE.csv.")
    ],
    accuracy: Annotated[
        str,
        typer.Option(
            "--accuracy", help="supernet:CHECKPOINT, table:FILE.csv or predictor:FILE.npz."
        ),
    ],
    out: opt.Out,
    strategy: Annotated[str, typer.Option("--strategy", help="nsga2 or random.")] = "nsga2",
    target_ms: Annotated[
        float | None, typer.Option("--target-ms", help="Slower networks are not wanted.")
    ] = None,
    max_evals: Annotated[
        int, typer.Option("--max-evals", min=1, help="Distinct networks to judge.")
    ] = 200,
    max_time: opt.MaxTime = None,
    measure_on: Annotated[
        str | None,
        typer.Option("--measure-on", help="Measure the finalists here, so the front is confirmed."),
    ] = None,
    finalists: Annotated[
        int, typer.Option("--finalists", min=1, help="How many are measured at most.")
    ] = 16,
    preset: opt.Preset = "quick",
    threads: opt.Threads = 1,
    batch: opt.Batch = 1,
    precision: opt.Precision = "fp32",
    allow_other_device: opt.AllowOtherDevice = False,
    data: opt.Data = None,
    seed: opt.Seed = 0,
    json_: opt.Json = False,
    script: opt.Script = None,
) -> None:
    """Search a space for the best trades of accuracy against latency; resumable."""
    from hwprof import api
    from hwprof.reports import text

    with ProgressLine() as progress:
        result = api.search(
            space=space,
            latency=latency,
            accuracy=accuracy,
            out=out,
            strategy=strategy,
            target_ms=target_ms,
            max_evals=max_evals,
            max_time_s=opt.parse_duration(max_time),
            measure_on=measure_on,
            n_finalists=finalists,
            preset=preset,
            threads=threads,
            batch=batch,
            precision=opt.precision_of(precision),
            allow_other_device=allow_other_device,
            data=data,
            seed=seed,
            script=script,
            progress=progress,
        )
    print_json(result.to_json()) if json_ else print_text(text.front_text(result))


def report(
    runs: Annotated[
        list[str],
        typer.Argument(help="Folders of `hwprof profile`, `search` or `quickstart`, reduced.yaml."),
    ],
    out: opt.Out,
    accuracy: opt.Accuracy = None,
    data: opt.Data = None,
) -> None:
    """Make one self-contained page, its figures and its tables."""
    from hwprof import api

    with ProgressLine() as progress:
        page = api.report(runs, out=out, accuracy=accuracy, data=data, progress=progress)
    say(f"open {page}")


def quickstart(
    out: opt.Out = "quickstart",
    device: opt.Device = "cpu",
    data: opt.Data = None,
    seed: opt.Seed = 0,
    json_: opt.Json = False,
) -> None:
    """Do the whole job on this machine in a few minutes; called again, it goes on."""
    from hwprof import api
    from hwprof.reports import text

    with ProgressLine() as progress:
        result = api.quickstart(out=out, device=device, data=data, seed=seed, progress=progress)
    print_json(result.to_json()) if json_ else print_text(text.quickstart_text(result.to_json()))


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (train, search, report, quickstart):
        app.command()(command)
