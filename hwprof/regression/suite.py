"""Suites: what is guarded, on what, as a file.

A suite file (YAML):

    format: 1
    name: mine
    devices: [cpu]            # each on each
    threads: [1, 2]
    precision: [fp32]
    preset: standard          # five workers are needed to call anything
    workloads:
      - blocks: mobile-mini             # every distinct block of a space, alone; or its YAML file
      - networks: [proxyless-gpu]       # named architectures, or JSON files beside the suite file
      - model: net.onnx                 # beside the suite file, or package.module:callable
        inputs: ["image=1x3x224x224"]   # as of `hwprof bench --input`

What is kept of them: :mod:`hwprof.regression.baseline`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from hwprof.errors import PlanError
from hwprof.measure.records import PRESETS, Precision
from hwprof.space.fields import load_yaml

SUITE_FORMAT = 1
STOCK = "stock"
FIELDS = ("format", "name", "devices", "threads", "precision", "preset", "workloads")
KINDS = ("blocks", "networks", "model")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One combination of the axes."""

    device: str
    threads: int
    precision: Precision

    def __str__(self) -> str:
        # A name for a folder: the address of a device on another machine has slashes and colons.
        name = f"{self.device}-t{self.threads}-{self.precision}"
        return re.sub(r"[^\w.@-]+", "_", name)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a suite: a space whose blocks are meant, networks by name, or a model."""

    blocks: str | None = None
    networks: tuple[str, ...] = ()
    model: str | None = None
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What a suite file says."""

    name: str
    devices: tuple[str, ...]
    threads: tuple[int, ...]
    precision: tuple[Precision, ...]
    preset: str
    entries: tuple[Entry, ...]
    folder: str
    """Where the file lies: files of models, networks and spaces are looked for there."""

    @property
    def configs(self) -> tuple[Config, ...]:
        """Every combination of the axes, in the order of the file."""
        axes = itertools.product(self.devices, self.threads, self.precision)
        return tuple(Config(device=d, threads=t, precision=p) for d, t, p in axes)


def read_suite(source: str | Path) -> Suite:
    """Read a suite file, or the stock suite by its name.

    Raises:
        PlanError: it cannot be read; the message names the field and what was expected.
    """
    import yaml

    path = Path(source)
    if str(source) == STOCK and not path.exists():
        path = Path(__file__).parent / "suites" / f"{STOCK}.yaml"
    try:
        data = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(
            f"cannot read the suite {str(source)!r}: {error.strerror or error}; expected a YAML "
            f"file, or {STOCK!r}"
        ) from error
    # ValueError: bytes that are no text, or a date that is none.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = " ".join(str(error).split())
        raise PlanError(f"{str(source)!r} is no YAML: {where}") from error
    return _suite(data, str(source), path)


def _suite(data: object, source: str, path: Path) -> Suite:
    if not isinstance(data, dict) or data.get("format") != SUITE_FORMAT:
        raise PlanError(f"{source!r} is no suite; expected a mapping with format: {SUITE_FORMAT}")
    if unknown := sorted(map(str, data.keys() - set(FIELDS))):
        raise PlanError(
            f"{source!r} has the unknown field {unknown[0]!r}; expected {', '.join(FIELDS)}"
        )
    preset = data.get("preset", "standard")
    if not (isinstance(preset, str) and preset in PRESETS):
        raise PlanError(f"preset {preset!r} in {source!r}; expected one of {', '.join(PRESETS)}")
    entries = data.get("workloads")
    if not isinstance(entries, list) or not entries:
        raise PlanError(f"{source!r} lists no workloads; expected a list of {', '.join(KINDS)}")
    return Suite(
        name=str(data.get("name", path.stem)),
        devices=_axis(data, "devices", source, ["cpu"]),
        threads=_axis(data, "threads", source, [1]),
        precision=_axis(data, "precision", source, ["fp32"]),
        preset=preset,
        entries=tuple(_entry(e, source) for e in entries),
        folder=str(path.resolve().parent),
    )


def _axis(data: Mapping[str, Any], name: str, source: str, default: list[Any]) -> tuple[Any, ...]:
    values = data.get(name, default)
    checks: dict[str, Callable[[Any], bool]] = {
        "devices": lambda v: isinstance(v, str),
        "threads": lambda v: type(v) is int and v >= 1,
        "precision": lambda v: v in get_args(Precision),
    }
    is_good = checks[name]
    if not (isinstance(values, list) and values and all(is_good(v) for v in values)):
        raise PlanError(f"{name} is {values!r} in {source!r}; expected a list such as {default}")
    return tuple(values)


def _entry(data: object, source: str) -> Entry:
    match data:
        case {"blocks": str() as space, **rest} if not rest:
            return Entry(blocks=space)
        case {"networks": [*names], **rest} if not rest and names:
            return Entry(networks=tuple(map(str, names)))
        case {"model": str() as model, "inputs": [*inputs], **rest} if not rest:
            return Entry(model=model, inputs=tuple(map(str, inputs)))
        case {"model": str() as model, **rest} if not rest:
            return Entry(model=model)
    raise PlanError(
        f"the workload {data!r} in {source!r}; expected blocks: SPACE, networks: [NAME, ...], or "
        "model: FILE with inputs: [NAME=SHAPE]"
    )
