"""``spaces``, ``cost``, ``export``, ``bench``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwprof.cli import options as opt
from hwprof.cli.output import print_json, print_text, say
from hwprof.cli.progress import ProgressLine


def spaces(
    name: Annotated[
        str | None, typer.Argument(help="One space in detail: its name, or its YAML file.")
    ] = None,
    json_: opt.Json = False,
) -> None:
    """List the design spaces: units, candidates, depths, size."""
    from hwprof import api
    from hwprof.reports import text

    rows = api.spaces(name).to_json()
    if json_:
        print_json(rows if name is None else rows[0])
    elif name is None:
        print_text(text.spaces_table(rows))
    else:
        print_text(text.space_detail(rows[0]))


def cost(
    arch: opt.Arch,
    json_: opt.Json = False,
) -> None:
    """Count the MACs and parameters of a network."""
    from hwprof import api
    from hwprof.reports import text

    row = api.cost(arch)
    print_json(row.to_row()) if json_ else print_text(text.cost_text(arch, row.to_row()))


def export(
    arch: opt.Arch,
    out: opt.FileOut,
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="onnx, tflite (NHWC) or torch.")
    ] = "onnx",
    checkpoint: Annotated[
        str | None,
        opt.named("--checkpoint", "Take the weights from this supernet or network; else random."),
    ] = None,
    data: opt.SupernetImages = None,
    batch: opt.Batch = 1,
    seed: opt.Seed = 0,
) -> None:
    """Write a network of a space as a file."""
    from hwprof import api

    path = api.export(
        arch, out, format=format_, checkpoint=checkpoint, data=data, batch=batch, seed=seed
    )
    say(f"wrote {path} ({path.stat().st_size:,} bytes)")


def bench(
    model: Annotated[
        str,
        typer.Argument(
            help="model.onnx, model.tflite, package.module:callable (torch), or a network of a "
            "space: a JSON file, or a name such as proxyless-gpu."
        ),
    ],
    device: opt.Device = "cpu",
    input_: opt.Inputs = None,
    preset: opt.Preset = "standard",
    cache: Annotated[
        str,
        typer.Option(
            "--cache",
            metavar="MODE",
            help="hot: calls back to back. cold: caches flushed before each.",
        ),
    ] = "hot",
    threads: opt.Threads = 1,
    batch: opt.Batches = "1",
    precision: opt.Precision = "fp32",
    timeout: opt.Timeout = "2m",
    seed: opt.Seed = 0,
    sustained: Annotated[
        bool,
        typer.Option(
            "--sustained",
            help="Time what the device keeps up, after five minutes of load; for one on another machine.",
        ),
    ] = False,
    parts: Annotated[
        bool, typer.Option("--parts", help="Also say which part of the model is slow.")
    ] = False,
    isolated: Annotated[
        bool,
        typer.Option(
            "--isolated",
            help=(
                "With --parts, for a network of a space: also time each block alone, and the "
                "network without each block that may be absent."
            ),
        ),
    ] = False,
    cut: Annotated[
        list[str] | None,
        typer.Option(
            "--cut",
            metavar="TENSOR",
            help="With --parts: a tensor of the model at which a part ends. Repeat it for more.",
        ),
    ] = None,
    prefixes: Annotated[
        bool,
        typer.Option(
            "--prefixes",
            help="For a network of a space, on devices that cannot do --parts: what each block adds "
            "to those before it.",
        ),
    ] = False,
    json_: opt.Json = False,
    script: opt.Script = None,
) -> None:
    """Time any model and say how far the number can be trusted."""
    from hwprof import api
    from hwprof.reports import text

    if isolated and not parts:
        raise typer.BadParameter("--isolated goes with --parts: give both")
    if cut and not parts:
        raise typer.BadParameter("--cut goes with --parts: give both")
    if prefixes and (parts or sustained or input_):
        raise typer.BadParameter("--prefixes goes without --parts, --sustained and --input")
    if sustained and parts:
        raise typer.BadParameter("--sustained times a whole model: leave out --parts")
    batches = opt.batches_of(batch)
    if len(batches) > 1 and (parts or prefixes or sustained):
        raise typer.BadParameter(
            "several batch sizes go without --parts, --prefixes and --sustained: give one"
        )
    asked: dict[str, Any] = {
        "device": device,
        "inputs": input_ or (),
        "preset": preset,
        "cache": opt.one_of("--cache", cache, ("hot", "cold")),
        "threads": threads,
        "batch": batches[0],
        "precision": opt.precision_of(precision),
        "timeout_s": opt.seconds("--timeout", timeout),
        "seed": seed,
        "script": script,
    }
    if prefixes:
        from hwprof.reports.text_parts import prefixes_text

        del asked["inputs"]
        with ProgressLine() as progress:
            costs = api.bench_prefixes(model, progress=progress, **asked)
        print_json(costs.to_json()) if json_ else print_text(prefixes_text(costs))
        return
    if len(batches) > 1:
        from hwprof.reports.batch_text import batches_text

        del asked["batch"]
        with ProgressLine() as progress:
            rows = api.bench_batches(model, batches, progress=progress, **asked).to_json()
        print_json(rows) if json_ else print_text(batches_text(rows))
        return
    if parts:
        from hwprof.reports.text_parts import parts_text

        asked |= {"isolated": isolated, "cuts": cut or ()}
        with ProgressLine() as progress:
            found = api.bench_parts(model, progress=progress, **asked)
        print_json(found.to_json()) if json_ else print_text(parts_text(found))
        return
    with ProgressLine() as progress:
        result = api.bench(model, sustained=sustained, progress=progress, **asked)
    print_json(result.to_json()) if json_ else print_text(text.measurement_text(result))


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (spaces, cost, export, bench):
        app.command()(command)
