"""``train``, ``search``, ``retime``, ``report``, ``quickstart``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwprof.cli import options as opt
from hwprof.cli import proxyless_options as own
from hwprof.cli.output import print_json, print_text, say
from hwprof.cli.progress import ProgressLine
from hwprof.search.strategy import APART, STRATEGIES


def train(
    out: Annotated[
        str,
        opt.named(
            "--out",
            "Checkpoint to write, e.g. net.pt, every 10 s and when interrupted; called again, "
            "training goes on.",
        ),
    ],
    space: Annotated[
        str | None,
        typer.Option("--space", metavar="SPACE", help="Train the supernet of this space."),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch", metavar="ARCH", help="Train this one network (a JSON file) instead."
        ),
    ] = None,
    data: opt.TrainingImages = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            metavar="N",
            help="Passes over the training images; by default 20, more where images are few.",
        ),
    ] = None,
    max_time: opt.MaxTime = None,
    seed: opt.Seed = 0,
    compiled: Annotated[
        bool, typer.Option("--compile", help="With --arch: train it by torch.compile.")
    ] = False,
    json_: opt.Json = False,
) -> None:
    """Train a supernet to take accuracies from, or one network.

    A supernet holds all networks of a space in shared weights: train it once, and every one of
    them can be judged, as --accuracy supernet:CHECKPOINT.
    """
    from hwprof import api
    from hwprof.reports import text

    with ProgressLine() as progress:
        summary = api.train(
            out=out,
            space=space,
            arch=arch,
            data=data,
            epochs=epochs,
            max_time_s=opt.parse_duration("--max-time", max_time),
            seed=seed,
            compiled=compiled,
            progress=progress,
        )
    print_json(summary.to_json()) if json_ else print_text(text.training_text(summary.to_json()))


def search(
    space: opt.Space,
    latency: Annotated[
        str,
        opt.named(
            "--latency",
            "Where latencies are predicted from: the run folder of `hwprof profile` or `import`, or "
            "a table for the latter.",
            kind="RUN",
        ),
    ],
    out: opt.RunOut,
    accuracy: opt.Accuracy = None,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help=f"{', '.join(STRATEGIES)}, or one of another package, which need --accuracy; "
            f"or {'; or '.join(f'{name}, {why}' for name, why in APART.items())}.",
        ),
    ] = "nsga2",
    target_ms: Annotated[
        float | None,
        typer.Option(
            "--target-ms",
            metavar="MS",
            help="Ceiling in ms: slower networks are left out. With proxyless a target to come to "
            "within 5 % of; with --penalty hinge a ceiling again, with --latency-weights only the "
            "reference of the penalty.",
        ),
    ] = None,
    max_evals: Annotated[
        int | None,
        typer.Option(
            "--max-evals", min=1, metavar="N", help="Distinct networks to judge; by default 200."
        ),
    ] = None,
    max_time: opt.MaxTime = None,
    measure_on: Annotated[
        str | None,
        opt.named(
            "--measure-on",
            "Measure the finalists on this device; without it the front is only predicted.",
            kind="DEVICE",
        ),
    ] = None,
    allow_emulated: Annotated[
        bool, typer.Option("--allow-emulated", help="Take the times of an emulated device, too.")
    ] = False,
    finalists: Annotated[
        int | None,
        typer.Option(
            "--finalists",
            min=1,
            metavar="N",
            help="With --measure-on: how many networks, at most; by default 16.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="PRESET",
            help="With --measure-on: quick, standard or strict; by default quick.",
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout",
            metavar="TIME",
            help="With --measure-on: end a step that has not answered after this long; by default 2m.",
        ),
    ] = None,
    threads: opt.Threads = 1,
    batch: opt.Batch = 1,
    precision: opt.Precision = "fp32",
    allow_other_device: opt.AllowOtherDevice = False,
    data: Annotated[
        str | None,
        opt.named(
            "--data",
            "Images to train on (proxyless), to look at (te-nas), or of a supernet (as for "
            "`hwprof effects`); forms as for `hwprof train`.",
            kind="IMAGES",
        ),
    ] = None,
    seed: opt.Seed = 0,
    mode: own.Mode = "recompute",
    penalty: own.Penalty = None,
    latency_weights: own.LatencyWeights = None,
    targets_ms: own.TargetsMs = None,
    supernet: own.Supernet = None,
    warmup_epochs: own.WarmupEpochs = None,
    epochs: own.Epochs = None,
    retrain_epochs: own.RetrainEpochs = 0,
    train_batch: own.TrainBatch = None,
    alpha_lr: own.AlphaLr = None,
    limit_images: own.LimitImages = None,
    train_device: own.TrainDevice = "cpu",
    train_precision: own.TrainPrecision = "fp32",
    compiled: own.Compiled = False,
    json_: opt.Json = False,
    script: opt.Script = None,
) -> None:
    """Search a space for the best trades of accuracy and latency.

    Options that begin "With proxyless" are for that strategy alone.
    """
    from hwprof import api
    from hwprof.api.searching import TE_NAS
    from hwprof.api.te_nas import refuse_for_te_nas
    from hwprof.reports import text
    from hwprof.reports.untrained_text import untrained_text

    proxyless = api.ProxylessOptions(
        mode=mode,
        penalty=penalty,
        latency_weights=own.parse_numbers("--latency-weights", latency_weights),
        targets_ms=own.parse_numbers("--targets-ms", targets_ms),
        supernet=supernet,
        warmup_epochs=warmup_epochs,
        epochs=epochs,
        retrain_epochs=retrain_epochs,
        train_batch=train_batch,
        alpha_lr=alpha_lr,
        limit_images=limit_images,
        train_device=train_device,
        train_precision=train_precision,
        compiled=compiled,
    )
    common: dict[str, Any] = {
        "space": space,
        "latency": latency,
        "out": out,
        "data": data,
        "target_ms": target_ms,
        "measure_on": measure_on,
        "allow_emulated": allow_emulated,
        "preset": preset,
        "timeout_s": opt.parse_duration("--timeout", timeout),
        "threads": threads,
        "batch": batch,
        "precision": opt.precision_of(precision),
        "allow_other_device": allow_other_device,
        "seed": seed,
        "script": script,
    }
    if strategy == TE_NAS:
        refuse_for_te_nas(
            proxyless,
            accuracy=accuracy,
            max_evals=max_evals,
            max_time=max_time,
            finalists=finalists,
        )
        with ProgressLine() as progress:
            choice = api.search_te_nas(**common, progress=progress).to_json()
        print_json(choice) if json_ else print_text(untrained_text(choice))
        return
    with ProgressLine() as progress:
        result = api.search(
            **common,
            accuracy=accuracy,
            strategy=strategy,
            max_evals=max_evals,
            max_time_s=opt.parse_duration("--max-time", max_time),
            n_finalists=finalists,
            proxyless=proxyless,
            progress=progress,
        )
    print_json(result.to_json()) if json_ else print_text(text.front_text(result))
    say(f"kept in {out}, for hwprof report")


def retime(
    searches: Annotated[
        list[str], typer.Argument(help="Folders of `hwprof search`, for whichever devices.")
    ],
    out: opt.RunOut,
    device: opt.Device = "cpu",
    preset: opt.Preset = "quick",
    threads: opt.Threads = 1,
    batch: opt.Batch = 1,
    precision: opt.Precision = "fp32",
    timeout: opt.Timeout = "2m",
    allow_emulated: Annotated[
        bool, typer.Option("--allow-emulated", help="Take the times of an emulated device.")
    ] = False,
    seed: opt.Seed = 0,
    json_: opt.Json = False,
    script: opt.Script = None,
) -> None:
    """Time networks found for several devices on one of them.

    `hwprof report` then says whether each device needs a network of its own.
    """
    from hwprof import api
    from hwprof.reports import text

    with ProgressLine() as progress:
        result = api.retime(
            searches,
            out=out,
            device=device,
            preset=preset,
            threads=threads,
            batch=batch,
            precision=opt.precision_of(precision),
            timeout_s=opt.seconds("--timeout", timeout),
            allow_emulated=allow_emulated,
            seed=seed,
            script=script,
            progress=progress,
        )
    print_json(result.to_json()) if json_ else print_text(text.retimed_text(result.to_json()))


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Folders of `hwprof profile`, `search`, `retime` or `quickstart`, and reduced.yaml."
        ),
    ],
    out: opt.FolderOut,
    accuracy: opt.Accuracy = None,
    data: opt.SupernetImages = None,
) -> None:
    """Make one self-contained page, its figures and its tables."""
    from hwprof import api

    with ProgressLine() as progress:
        page = api.report(runs, out=out, accuracy=accuracy, data=data, progress=progress)
    say(f"open {page}")


def quickstart(
    out: opt.RunOut = "quickstart",
    device: opt.Device = "cpu",
    data: opt.TrainingImages = None,
    batch: opt.Batch = 1,
    seed: opt.Seed = 0,
    json_: opt.Json = False,
) -> None:
    """Do the whole job on this machine in a few minutes.

    Trains a small supernet of the space mobile-mini, profiles, reduces, searches, measures what it
    found, and writes one page: report/index.html in the folder of --out.
    """
    from hwprof import api
    from hwprof.api.main_job import QuickstartSettings
    from hwprof.reports import text

    with ProgressLine() as progress:
        result = api.quickstart(
            out=out,
            device=device,
            data=data,
            seed=seed,
            settings=QuickstartSettings(batch=batch),
            progress=progress,
        )
    print_json(result.to_json()) if json_ else print_text(text.quickstart_text(result.to_json()))


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (train, search, retime, report, quickstart):
        app.command()(command)
