"""The options that several commands share, written once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, cast, get_args

import typer

PrecisionName = Literal["fp32", "tf32", "fp16", "bf16", "int8", "int8-dynamic"]
PRECISIONS: tuple[str, ...] = get_args(PrecisionName)
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?")
PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*%")
RANGE_MS = re.compile(r"(\d+(?:\.\d+)?)(?:\s*-\s*(\d+(?:\.\d+)?))?")
LONGEST_S = 365 * 86400.0
MOST_SEED, MOST_BATCH = 2**63 - 1, 2**31 - 1
"""The largest that torch takes as a seed, and the formats of models as a size."""
SECONDS = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_duration(option: str, text: str | None) -> float | None:
    """Return the seconds of a duration that may be left out."""
    return None if text is None else seconds(option, text)


def seconds(option: str, text: str) -> float:
    """Return the seconds in ``90``, ``90s``, ``30m`` or ``2h``."""
    match = DURATION.fullmatch(text.strip())
    duration_s = 0.0 if match is None else float(match[1]) * SECONDS[match[2]]
    if not 0.0 < duration_s <= LONGEST_S:
        raise typer.BadParameter(
            f"{option} is {text!r}; expected a duration up to a year, such as 90s, 30m or 2h"
        )
    return duration_s


def parse_percentage(option: str, text: str | None) -> float | None:
    """Return the share of a percentage that may be left out."""
    return None if text is None else percentage(option, text)


def percentage(option: str, text: str) -> float:
    """Return the share in ``1%``: 0.01."""
    match = PERCENTAGE.fullmatch(text.strip())
    if match is None or not 0.0 < float(match[1]) < 100.0:
        raise typer.BadParameter(f"{option} is {text!r}; expected a percentage such as 1%")
    return float(match[1]) / 100.0


def parse_range_ms(option: str, text: str | None) -> float | tuple[float, float] | None:
    """Return the milliseconds in ``20``, or both ends of ``15-20``."""
    if text is None:
        return None
    match = RANGE_MS.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{option} is {text!r}; expected ms such as 20, or 15-20")
    return float(match[1]) if match[2] is None else (float(match[1]), float(match[2]))


def not_empty(value: str | None) -> str | None:
    """Refuse an empty text, as a variable that is not set leaves it."""
    if value is not None and not value.strip():
        raise typer.BadParameter(
            f"it is {value!r}; expected a name: is the variable set that it is taken from?"
        )
    return value


def named(option: str, text: str, *, kind: str = "FILE") -> Any:
    """Return an option that names a file, a folder or a device, which may not be empty."""
    return typer.Option(option, help=text, callback=not_empty, metavar=kind)


def at_most(limit: int) -> Callable[[int], int]:
    """Return a check for what has a limit so large that help need not show it."""

    def check(value: int) -> int:
        if value > limit:
            raise typer.BadParameter(f"it is {value}; expected {limit} at most")
        return value

    return check


Space = Annotated[
    str,
    typer.Option(
        "--space",
        metavar="SPACE",
        help="A name that `hwprof spaces` lists, a reduced.yaml, or the YAML of your own space.",
    ),
]
Arch = Annotated[str, typer.Argument(help="JSON file, '-', or a name such as proxyless-gpu.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
RunOut = Annotated[
    str,
    named("--out", "Run folder to write; called again, it goes on there.", kind="FOLDER"),
]
FolderOut = Annotated[str, named("--out", "Folder to write.", kind="FOLDER")]
FileOut = Annotated[str, named("--out", "File to write.")]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="A device of `hwprof devices`, or NAME@ssh://user@host:port, NAME@adb://SERIAL.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        callback=at_most(MOST_SEED),
        metavar="N",
        help="Same seed, same random choices.",
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="PRESET",
        help="How long to measure each workload: quick, standard or strict.",
    ),
]
Threads = Annotated[
    int, typer.Option("--threads", min=1, metavar="N", help="Threads of the runtime.")
]
Batch = Annotated[
    int,
    typer.Option("--batch", min=1, callback=at_most(MOST_BATCH), metavar="N", help="Batch size."),
]
Batches = Annotated[
    str,
    typer.Option("--batch", metavar="N", help="Batch size, or several of them: 1,8,32,128."),
]
Precision = Annotated[
    str, typer.Option("--precision", metavar="TYPE", help=f"{', '.join(PRECISIONS)}.")
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="TIME",
        help="Stop after this long, e.g. 90s, 30m, 2h; the same command goes on later.",
    ),
]
Timeout = Annotated[
    str,
    typer.Option(
        "--timeout", metavar="TIME", help="End a step that has not answered after this long."
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=SHAPE[:TYPE][=VALUE]",
        help="Shape, and type where the file gives none, of an input of your own model: "
        "image=1x3x224x224:float32. Repeat it for every input with open dimensions. =VALUE behind it "
        "fills it, else it is drawn at random.",
    ),
]
Resolution = Annotated[
    int | None,
    typer.Option(
        "--resolution", metavar="PX", help="Input size in pixels; by default the space's own."
    ),
]
Accuracy = Annotated[
    str | None,
    typer.Option(
        "--accuracy",
        metavar="SOURCE",
        help="Where accuracies come from: supernet:CHECKPOINT (of `hwprof train`), table:FILE.csv "
        "or predictor:FILE.npz; or proxy:NAME (naswot, synflow, macs, params), which needs no "
        "training but only ranks networks, in percentiles.",
    ),
]
TrainingImages = Annotated[
    str | None,
    named(
        "--data",
        "Training images: a folder with a folder for every class, an .npz, or 'digits' (the "
        "default; small scans that come with scikit-learn).",
        kind="IMAGES",
    ),
]
SupernetImages = Annotated[
    str | None,
    named(
        "--data",
        "Images of a supernet: of a published one, or where those it was trained on have moved.",
        kind="IMAGES",
    ),
]
AllowOtherDevice = Annotated[
    bool,
    typer.Option(
        "--allow-other-device",
        help="Use a latency model that was made for another device or other options.",
    ),
]
Threshold = Annotated[
    str,
    typer.Option(
        "--threshold",
        metavar="PERCENT",
        help="Smallest slowdown that matters: 1% or more (2% between stored measurements).",
    ),
]
Allow = Annotated[
    str | None,
    typer.Option(
        "--allow", metavar="inconclusive", help="Let an inconclusive verdict pass: exit 0, not 4."
    ),
]
Markdown = Annotated[str | None, named("--markdown", "Also write a Markdown table to this file.")]
Junit = Annotated[str | None, named("--junit", "Also write a JUnit file, one test per workload.")]
Badge = Annotated[str | None, named("--badge", "Also write an SVG badge.")]
Script = Annotated[
    str | None, typer.Option("--script", help="Script of the null device.", hidden=True)
]


def batches_of(text: str) -> tuple[int, ...]:
    """Return the batch sizes in ``1,8,32``, each once."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= MOST_BATCH for part in parts):
        raise typer.BadParameter(f"--batch is {text!r}; expected a size, or several: 1,8,32,128")
    return tuple(dict.fromkeys(int(part) for part in parts))


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return ``value``, or end with a message that lists what was expected."""
    if value not in allowed:
        raise typer.BadParameter(f"{option} is {value!r}; expected {', '.join(allowed)}")
    return value


def precision_of(value: str) -> PrecisionName:
    """Return a precision, or end with a message that lists what was expected."""
    return cast(PrecisionName, one_of("--precision", value, PRECISIONS))
