"""The options of ``hwprof search --strategy proxyless``."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def _option(name: str, text: str, *, least: int | None = None, kind: str = "N") -> Any:
    return typer.Option(name, help=f"With proxyless: {text}", min=least, metavar=kind)


Mode = Annotated[str, _option("--mode", "recompute, two-path or reinforce.", kind="MODE")]
Penalty = Annotated[
    str | None,
    _option(
        "--penalty",
        "linear, power, hinge, target or legacy_mul_log; by default target where targets are "
        "named and no weights, else linear.",
        kind="NAME",
    ),
]
LatencyWeights = Annotated[
    str | None,
    _option(
        "--latency-weights",
        "one search for each weight of latency in the loss, e.g. 0,0.1,0.3.",
        kind="LIST",
    ),
]
TargetsMs = Annotated[
    str | None,
    _option(
        "--targets-ms",
        "one search for each target in ms, e.g. 2,3,5; with --penalty hinge, ceilings.",
        kind="LIST",
    ),
]
Supernet = Annotated[
    str | None,
    _option(
        "--supernet",
        "start from this checkpoint (of the same images), not from a warm-up.",
        kind="FILE",
    ),
]
WarmupEpochs = Annotated[
    int | None,
    _option("--warmup-epochs", "epochs of weights alone, first; by default 40.", least=1),
]
Epochs = Annotated[
    int | None,
    _option("--epochs", "epochs of weights and architecture in turn; by default 120.", least=1),
]
RetrainEpochs = Annotated[
    int,
    _option(
        "--retrain-epochs",
        "epochs of training each network that was found, alone (the paper: 300); 0 keeps the "
        "supernet's weights.",
        least=0,
    ),
]
TrainBatch = Annotated[
    int | None, _option("--train-batch", "images of a training step; by default 256.", least=2)
]
AlphaLr = Annotated[
    float | None,
    _option(
        "--alpha-lr", "learning rate of the architecture parameters; by default 0.001.", kind="RATE"
    ),
]
LimitImages = Annotated[
    int | None, _option("--limit-images", "use at most so many images of each split.", least=1)
]
TrainDevice = Annotated[str, _option("--train-device", "train on cpu or cuda.", kind="DEVICE")]
TrainPrecision = Annotated[
    str, _option("--train-precision", "fp32; or mixed: bf16, fp16.", kind="TYPE")
]
Compiled = Annotated[bool, _option("--compile", "with --retrain-epochs, train by torch.compile.")]


def parse_numbers(option: str, text: str | None) -> tuple[float, ...]:
    """Return the numbers in ``0,0.1,0.3``; none of nothing."""
    if text is None:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{option} is {text!r}; expected numbers such as 0,0.1,0.3"
        ) from error
