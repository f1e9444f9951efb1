"""Suites: what is guarded, on what, as a file; and the baselines that are kept of them.

A suite file (YAML):

    format: 1
    name: mine
    devices: [cpu]            # each on each
    threads: [1, 2]
    precision: [fp32]
    preset: standard          # five workers are needed to call anything
    workloads:
      - blocks: mobile-mini             # every distinct block of a space, alone
      - networks: [proxyless-gpu]       # named architectures, or JSON files beside the suite file
      - model: net.onnx                 # beside the suite file, or package.module:callable
        inputs: ["image=1x3x224x224"]   # as of `hwprof bench --input`

A baseline is a folder: ``suite.json`` and one run folder for every session and configuration.
Measuring again into the same folder adds a session; σ of the rule for stored measurements is
taken from these sessions, which are the workload's A/A history.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from hwprof.errors import IncompatibleRunError, PlanError, StoreError
from hwprof.measure.records import PRESETS, Measurement, Precision, differing
from hwprof.regression.stored import Missing, Stored, session_of
from hwprof.store import Run

SUITE_FORMAT = 1
SUITE_FILE = "suite.json"
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
    """Where the file lies: files of models and networks are looked for there."""

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
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(
            f"cannot read the suite {str(source)!r}: {error.strerror or error}; expected a YAML "
            f"file, or {STOCK!r}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        raise PlanError(f"{str(source)!r} is no YAML: {where}") from error
    return _suite(data, str(source), path)


def _suite(data: object, source: str, path: Path) -> Suite:
    if not isinstance(data, dict) or data.get("format") != SUITE_FORMAT:
        raise PlanError(f"{source!r} is no suite; expected a mapping with format: {SUITE_FORMAT}")
    if unknown := sorted(map(str, data.keys() - set(FIELDS))):
        raise PlanError(f"{source!r} has the unknown field {unknown[0]!r}; known are {FIELDS}")
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


def write_suite(folder: Path, suite: Suite) -> None:
    """Say in ``suite.json`` what a baseline is of, or check that it is of the same.

    Raises:
        IncompatibleRunError: the folder holds a baseline of another suite.
        StoreError: it cannot be written.
    """
    said = json.loads(json.dumps({"format": SUITE_FORMAT, "suite": asdict(suite)}))
    file = folder / SUITE_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
            return
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot use {str(folder)!r} for a baseline ({error})") from error
    known.get("suite", {}).pop("folder", None)
    del said["suite"]["folder"]
    if known != said:
        raise IncompatibleRunError(
            f"{str(folder)!r} holds a baseline of another suite, or of this one before it was "
            "changed; name another --out"
        )


def is_baseline(folder: Path) -> bool:
    """Return whether a folder holds a baseline."""
    return (folder / SUITE_FILE).is_file()


def next_session(folder: Path) -> Path:
    """Return the folder of a new session."""
    numbers = [int(p.name) for p in _sessions(folder)]
    return folder / "sessions" / f"{1 + max(numbers, default=0):04d}"


def _sessions(folder: Path) -> Iterator[Path]:
    yield from sorted(p for p in (folder / "sessions").glob("[0-9]*") if p.is_dir())


def find_baseline(folder: Path, commit: str | None = None) -> Path:
    """Return a baseline, or a commit's in a folder of baselines named after commits.

    Raises:
        StoreError: there is none, or a shortened commit means several.
    """
    if commit is None:
        if is_baseline(folder):
            return folder
        raise StoreError(
            f"{str(folder)!r} is no baseline (it has no {SUITE_FILE}); expected the --out of "
            "`hwprof suite run`, or a folder of such with --commit"
        )
    found = [p for p in sorted(folder.glob(f"{commit}*")) if is_baseline(p)]
    if len(found) != 1:
        raise StoreError(
            f"{str(folder)!r} holds {len(found)} baselines of commit {commit!r}; expected one: "
            f"make it with `hwprof suite run ... --out {folder}/COMMIT`"
        )
    return found[0]


def read_baseline(folder: Path) -> list[Stored | Missing]:
    """Read every workload of a baseline with all its sessions.

    Raises:
        StoreError: it holds no session.
        IncompatibleRunError: its sessions were measured under different keys.
    """
    measured: dict[str, list[tuple[str, Measurement]]] = {}
    missing: dict[str, Missing] = {}
    for session in _sessions(folder):
        for run_folder in sorted(p for p in session.iterdir() if p.is_dir()):
            with Run.open(run_folder) as run:
                for m in run.measurements():
                    match = f"{run_folder.name} {m.workload.role} {m.workload.label}"
                    measured.setdefault(match, []).append((session.name, m))
                for f in run.failures():
                    match = f"{run_folder.name} {f.workload.role} {f.workload.label}"
                    label = f"{f.workload.label} [{run_folder.name}]"
                    reason = f"{f.stage} failed ({f.kind}) in session {session.name}: {f.message}"
                    missing[match] = Missing(label=label, match=match, reason=reason)
    if not measured and not missing:
        raise StoreError(f"{str(folder)!r} holds no session; run `hwprof suite run` to make one")
    kept = [_stored(folder, k, found) for k, found in measured.items() if k not in missing]
    return [*kept, *missing.values()]


def _stored(folder: Path, match: str, found: Sequence[tuple[str, Measurement]]) -> Stored:
    newest_session, newest = found[-1]
    facts = _facts(newest)
    for session, measurement in found[:-1]:
        if changed := differing(_facts(measurement), facts):
            named = "; ".join(f"{k} {a!r}, then {b!r}" for k, (a, b) in changed.items())
            raise IncompatibleRunError(
                f"{str(folder)!r} mixes sessions: between {session} and {newest_session} of "
                f"{newest.workload.label!r} {named}; measure into another --out"
            )
    return Stored(
        label=f"{newest.workload.label} [{match.partition(' ')[0]}]",
        match=match,
        facts=facts,
        sessions=tuple(session_of(m) for _, m in found),
    )


def _facts(measurement: Measurement) -> dict[str, object]:
    """Return what must be equal; a user's model may change, that is what is asked about.

    Other random weights do the same work, so the seed is no difference.
    """
    workload = replace(measurement.workload, seed=0)
    return measurement.facts | ({} if workload.role == "model" else {"workload": workload.key})
