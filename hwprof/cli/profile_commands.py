"""``profile``, ``import``, ``effects``, ``predict``, ``adapt``, ``reduce``."""

from __future__ import annotations

from typing import Annotated

import typer

from hwprof.cli import options as opt
from hwprof.cli.output import print_json, print_text, say
from hwprof.cli.progress import ProgressLine
from hwprof.errors import DeviceError


def profile(
    space: opt.Space,
    out: opt.RunOut,
    device: opt.Device = "cpu",
    networks: Annotated[
        int | None,
        typer.Option(
            "--networks",
            min=1,
            metavar="N",
            help=(
                "Random networks to time; by default three for every effect to be estimated, at "
                "least 100. With --design pinned: for every block at every slot; by default 100."
            ),
        ),
    ] = None,
    half_width: Annotated[
        str | None,
        typer.Option(
            "--half-width",
            metavar="PERCENT",
            help=(
                "Instead of --networks: as many as it takes to know the effect of every block to "
                "plus or minus this share of the mean latency, e.g. 1%."
            ),
        ),
    ] = None,
    design: Annotated[
        str,
        typer.Option(
            "--design",
            metavar="DESIGN",
            help="shared: one sample of networks prices all blocks. pinned: a sample for every block "
            "at every slot, as published; far slower.",
        ),
    ] = "shared",
    favour_depth: Annotated[
        bool,
        typer.Option(
            "--favour-depth",
            help="Draw deep networks more often, so that blocks of last layers become better known.",
        ),
    ] = False,
    isolated: Annotated[
        bool, typer.Option("--isolated/--no-isolated", help="Also time every block alone.")
    ] = True,
    cold: Annotated[
        bool, typer.Option("--cold", help="Time every block alone with flushed caches, too.")
    ] = False,
    differential: Annotated[
        bool,
        typer.Option(
            "--differential", help="Also time networks with and without every optional layer."
        ),
    ] = False,
    preset: opt.Preset = "quick",
    max_time: opt.MaxTime = None,
    threads: opt.Threads = 1,
    batch: opt.Batch = 1,
    precision: opt.Precision = "fp32",
    timeout: opt.Timeout = "2m",
    resolution: opt.Resolution = None,
    seed: opt.Seed = 0,
    json_: opt.Json = False,
    script: opt.Script = None,
) -> None:
    """Time every block alone, then random networks.

    Interrupt it and call it again: it goes on. Exit code 3 if all that was tried failed.
    """
    from hwprof import api
    from hwprof.reports import text

    with ProgressLine() as progress:
        result = api.profile(
            space=space,
            out=out,
            device=device,
            networks=networks,
            half_width=opt.parse_percentage("--half-width", half_width),
            design=opt.one_of("--design", design, ("shared", "pinned")),
            favour_depth=favour_depth,
            isolated=isolated,
            cold=cold,
            differential=differential,
            preset=preset,
            max_time_s=opt.parse_duration("--max-time", max_time),
            threads=threads,
            batch=batch,
            precision=opt.precision_of(precision),
            timeout_s=opt.seconds("--timeout", timeout),
            resolution_px=resolution,
            seed=seed,
            script=script,
            progress=progress,
            on_plan=lambda plan: say(str(plan)),
        )
    print_json(result.to_json()) if json_ else print_text(text.profile_text(result.to_json()))
    if result.n_failed and not result.n_done:
        say(
            f"hwprof: all {result.n_failed} that were tried failed on {device}: mend the device and "
            "call it again, or name another --out (what was refused is not tried again)"
        )
        raise typer.Exit(DeviceError.exit_code)


def import_(
    file: Annotated[
        str, typer.Argument(help="Table, .csv or .csv.gz: networks or blocks, one a line.")
    ],
    space: opt.Space,
    device_name: Annotated[
        str, opt.named("--device-name", "What to call the device.", kind="NAME")
    ],
    out: opt.FolderOut,
    latency_column: Annotated[
        str | None,
        typer.Option(
            "--latency-column",
            metavar="COLUMN",
            help="Column to read, whose name ends in _ms or _s; by default latency_ms or latency_s.",
        ),
    ] = None,
    resolution: opt.Resolution = None,
) -> None:
    """Make a run from someone else's measurements.

    Networks have the columns arch (JSON) and latency_ms, and may have sd_ms and accuracy_pct;
    blocks have resolution_px, unit, layer, block and latency_ms.
    """
    from hwprof import api

    path = api.import_(
        file,
        space=space,
        device_name=device_name,
        out=out,
        latency_column=latency_column,
        resolution_px=resolution,
    )
    say(f"imported into {path}; go on with: hwprof effects {path}")


def effects(
    runs: Annotated[
        list[str],
        typer.Argument(help="Run folder of `hwprof profile` or `import`; several are compared."),
    ],
    accuracy: opt.Accuracy = None,
    data: opt.SupernetImages = None,
    csv: Annotated[str | None, opt.named("--csv", "Also write the effects to this file.")] = None,
    json_: opt.Json = False,
) -> None:
    """Say how friendly every block is to a device, or to several.

    Every effect comes with its interval.
    """
    from hwprof import api
    from hwprof.reports import text
    from hwprof.reports.device_text import devices_text

    with ProgressLine() as progress:
        if len(runs) > 1:
            compared = api.compare_effects(
                runs, accuracy=accuracy, data=data, csv=csv, progress=progress
            )
            print_json(compared.to_json()) if json_ else print_text(devices_text(compared))
            return
        result = api.effects(runs[0], accuracy=accuracy, data=data, csv=csv, progress=progress)
    if json_:
        print_json([e.to_row() for e in result.effects])
    else:
        said = api.insights(result)
        print_text(text.effects_text(result.effects, said, result.fingerprint))


def predict(
    run: Annotated[
        str, typer.Argument(help="Run folder of `hwprof profile`, `import` or `adapt`.")
    ],
    archs: Annotated[
        list[str],
        typer.Argument(help="Networks: JSON files or names; or one CSV file with a column arch."),
    ],
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="Refuse unless the run is of this device, as --threads, --batch and --precision "
            "say.",
        ),
    ] = None,
    threads: opt.Threads = 1,
    batch: opt.Batch = 1,
    precision: opt.Precision = "fp32",
    allow_other_device: opt.AllowOtherDevice = False,
    json_: opt.Json = False,
) -> None:
    """Predict latencies on the run's device, without measuring.

    Every latency comes with its interval.
    """
    from hwprof import api
    from hwprof.reports import text

    rows = api.predict(
        run,
        archs[0] if len(archs) == 1 else archs,
        device=device,
        threads=threads,
        batch=batch,
        precision=opt.precision_of(precision),
        allow_other_device=allow_other_device,
    ).to_json()
    print_json(rows) if json_ else print_text(text.predictions_table(rows))


def adapt(
    runs: Annotated[
        list[str],
        typer.Option(
            "--from",
            metavar="RUN",
            help="Run of another device, of the same space. Repeat it for more.",
        ),
    ],
    out: opt.RunOut,
    device: opt.Device = "cpu",
    networks: Annotated[
        int,
        typer.Option(
            "--networks", min=5, metavar="N", help="How many to measure; hwprof chooses which."
        ),
    ] = 10,
    preset: opt.Preset = "quick",
    threads: opt.Threads = 1,
    batch: opt.Batch = 1,
    precision: opt.Precision = "fp32",
    timeout: opt.Timeout = "2m",
    seed: opt.Seed = 0,
    json_: opt.Json = False,
    script: opt.Script = None,
) -> None:
    """Make a latency model for a device from a few networks.

    It starts from runs on other devices, and needs only some networks on this one.
    """
    from hwprof import api

    with ProgressLine() as progress:
        result = api.adapt(
            runs=runs,
            out=out,
            device=device,
            networks=networks,
            preset=preset,
            threads=threads,
            batch=batch,
            precision=opt.precision_of(precision),
            timeout_s=opt.seconds("--timeout", timeout),
            seed=seed,
            script=script,
            progress=progress,
        )
    print_json(result.to_json()) if json_ else print_text(str(result))


def reduce(
    run: Annotated[
        str | None, typer.Argument(help="Run folder; or give --effects and --space instead.")
    ] = None,
    out: Annotated[
        str | None, opt.named("--out", "File to write, e.g. reduced.yaml: a space for --space.")
    ] = None,
    accuracy: opt.Accuracy = None,
    data: opt.SupernetImages = None,
    max_accuracy_drop_pp: Annotated[
        float | None,
        typer.Option(
            "--max-accuracy-drop-pp",
            min=0.0,
            metavar="POINTS",
            help="Percentage points of accuracy that all cuts together may cost; by default no limit.",
        ),
    ] = None,
    target_ms: Annotated[
        str | None,
        typer.Option(
            "--target-ms",
            metavar="MS",
            help="Latencies that matter, in ms: 20 (up to it), or a range 15-20.",
        ),
    ] = None,
    goal: Annotated[
        str,
        typer.Option(
            "--goal",
            metavar="GOAL",
            help="front: accuracy against latency. accuracy: most accurate, whatever it costs.",
        ),
    ] = "front",
    effects: Annotated[
        str | None,
        typer.Option("--effects", metavar="FILE", help="CSV that `hwprof effects --csv` wrote."),
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", metavar="SPACE", help="The space of that CSV.")
    ] = None,
    json_: opt.Json = False,
) -> None:
    """Cut the space down to what suits the device.

    The evidence stands beside every cut.
    """
    import yaml

    from hwprof import api
    from hwprof.reports import text
    from hwprof.space import reduction_to_yaml

    with ProgressLine() as progress:
        reduction = api.reduce(
            run,
            accuracy=accuracy,
            data=data,
            max_accuracy_drop_pp=max_accuracy_drop_pp,
            target_ms=opt.parse_range_ms("--target-ms", target_ms),
            goal=opt.one_of("--goal", goal, ("front", "accuracy")),
            effects=effects,
            space=space,
            out=out,
            progress=progress,
        )
    if json_:
        print_json(yaml.safe_load(reduction_to_yaml(reduction)))
    else:
        print_text(text.reduction_text(reduction))


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for name, command in (
        ("profile", profile),
        ("import", import_),
        ("effects", effects),
        ("predict", predict),
        ("adapt", adapt),
        ("reduce", reduce),
    ):
        app.command(name)(command)
