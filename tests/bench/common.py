"""What the benchmarks of the measuring engine share.

What is timed, cells kept in a file of JSON lines as soon as they are measured, intervals, and
tables. Every benchmark is one command, run from the repository's root:

    python -m tests.bench.bench_NAME [--out F.jsonl] [--max-time 10m] [--quick]

Called again with the same file it measures only what is missing, then prints its summary and
writes it beside the file (``.json``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hwprof.api.models import raise_failure
from hwprof.campaign import isolated_workloads
from hwprof.devices import device_ref
from hwprof.interval import Interval
from hwprof.measure import machine
from hwprof.measure.engine import measure
from hwprof.measure.floor import SLOW_MODE
from hwprof.measure.level import burst_statistic_s, used_bursts
from hwprof.measure.records import DeviceOptions, Measurement, plan_for
from hwprof.progress import Pace
from hwprof.protocols import SessionHistory
from hwprof.space import Architecture, get_space
from hwprof.store.session_file import SessionFile
from hwprof.units import NOTHING, format_duration
from hwprof.workload import Workload
from tests.bench.arguments import seconds
from tests.bench.otherwork import Watch

Floats = NDArray[np.float64]
Cell = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
FIGURE_PARTS = ("measure", "devices", "graph", "space")
"""Packages of hwprof whose code may change a latency."""
FEWEST = 5
"""An interval of fewer values would say nothing."""


# What is timed


def block() -> Workload:
    """Return a block of about 0.5 ms: the first of ``proxylessnas``, kernel 5, expansion 6."""
    label = "mbconv_k5_e6 at u0.l0"
    return next(w for w in isolated_workloads(get_space("proxylessnas")) if w.label == label)


def network() -> Workload:
    """Return a network of about 10 ms: ``ofa-mbv3-w1.2`` at its deepest, all mbconv_k5_e6."""
    space = get_space("ofa-mbv3-w1.2")
    arch = Architecture(
        space=space.name,
        resolution_px=space.resolution_px,
        units=tuple(("mbconv_k5_e6",) * depth for depth in space.max_depth),
    )
    return Workload.network(arch, "ofa-mbv3-w1.2, deepest, all k5 e6")


WORKLOADS: Mapping[str, Callable[[], Workload]] = {"block": block, "network": network}


def engine_run(
    workload: Workload,
    device: str,
    preset: str,
    seed: int,
    beside: Collection[int] = (),
    history: SessionHistory | None = None,
) -> Cell:
    """Measure once with fresh workers; return what later questions need.

    Args:
        workload: what to time.
        device: a registered device.
        preset: ``quick``, ``standard`` or ``strict``.
        seed: of the order of bursts; the weights stay the same.
        beside: processes of the benchmark that count as other work.
        history: what is known of sessions before this one.
    """
    watch = Watch(beside)
    (result,) = measure(
        [workload],
        device_ref(device, DeviceOptions()),
        plan_for(preset, seed=seed),
        history=history,
    )
    load = watch.load()
    found = raise_failure(result)
    return {
        "level_s": found.level_s,
        "tenths_s": level_of_tenths_s(found),
        "median_s": found.median_s,
        "ci95_s": list(found.ci95_s),
        "verdict": found.verdict,
        "evidence": list(found.evidence),
        "worker_levels_s": list(found.telemetry["worker_levels_s"].values()),
        "n_bursts": found.telemetry["n_bursts"],
        "reference_level_s": found.telemetry.get("reference_level_s"),
        "session_sd": found.telemetry["session_sd"],
        "sessions_known": found.telemetry.get("sessions_known"),
        "probe_s": 1e-9 * float(np.median([b.burst.probe_ns or np.nan for b in found.bursts])),
        "at_s": time.time(),
        **asdict(load),
    }


def level_of_tenths_s(found: Measurement) -> float:
    """Return what the level was before a burst stood for its fastest call.

    A burst is its tenth percentile, a worker the lower quartile of its bursts within 10 % of the
    fastest, the level the lower quartile of the workers.
    """
    by_worker: dict[str, list[float]] = {}
    for b in used_bursts(found.bursts):
        if (tenth_s := burst_statistic_s(b.burst, threads=1)) is not None:
            by_worker.setdefault(b.worker, []).append(tenth_s)
    rows = [np.array(values) for values in by_worker.values()]
    return float(np.quantile([np.quantile(x[x <= SLOW_MODE * x.min()], 0.25) for x in rows], 0.25))


def plain_run(
    workload: Workload, device: str, method: str, seconds: float, beside: Collection[int] = ()
) -> Cell:
    """Time with a loop that owes hwprof nothing (:mod:`tests.bench.plain`), in a fresh process.

    The process is done ``seconds`` after it was started, its start included.
    """
    request = {
        "workload": workload.to_json(),
        "device": device,
        "method": method,
        "until_s": time.monotonic() + seconds,
    }
    command = [sys.executable, "-m", "tests.bench.plain", json.dumps(request)]
    watch = Watch(beside)
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return {**json.loads(done.stdout), **asdict(watch.load())}


# Cells


class Cells:
    """Measured cells, kept in a file of JSON lines whose first line tells the machine.

    Beside it lies what is known of the machine's sessions (``history``): the benchmark's own, none
    to begin with, so that its intervals are those of a user who has measured as often.

    Args:
        path: the file; made where it is not there.
        same: what must be equal for cells to stand in one file.
        more: what explains the machine besides.
    """

    def __init__(
        self, path: Path, same: Mapping[str, Any], more: Mapping[str, Any] | None = None
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.history: SessionHistory = SessionFile(path.with_suffix(".sessions"))
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        if lines and not lines[-1].endswith("\n"):  # cut off in the midst of writing
            path.write_text("".join(lines[:-1]))
            lines.pop()
        first, *self._cells = map(json.loads, lines) if lines else ({},)
        if not first:
            first = {"same": dict(same), "more": dict(more or {})}
            self._append(first)
        differing = sorted(k for k in same if first["same"].get(k) != same[k])
        if differing:
            raise SystemExit(
                f"{path} was measured under another {', '.join(differing)}: name a new file"
            )
        self.facts: Cell = first

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file of this machine, these runtimes and this engine."""
        return cls(path, same_facts(), {**machine.volatile_facts(), "commit": _commit()})

    def get(self, **key: Any) -> Cell | None:
        """Return the cell of exactly this key."""
        return next((c for c in self._cells if c["key"] == key), None)

    def select(self, **fields: Any) -> list[Cell]:
        """Return the cells whose keys hold ``fields``, in the order in which they were made."""
        return [c for c in self._cells if fields.items() <= c["key"].items()]

    def add(self, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Keep a cell, at once and whole."""
        cell = {"key": dict(key), **values}
        self._append(cell)
        self._cells.append(cell)

    def _append(self, value: Cell) -> None:
        line = json.dumps(value) + "\n"
        with self._path.open("a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def same_facts() -> Cell:
    """Return what cells of one file have in common: machine, runtimes, engine."""
    names = ("onnxruntime", "torch", "openvino", "ai-edge-litert")
    installed = {d.name.lower(): d.version for d in metadata.distributions() if d.name}
    return {
        **machine.stable_facts(),
        "python": platform.python_version(),
        **{name: installed.get(name) for name in names},
        "engine": sources_digest(ROOT / "hwprof"),
    }


def sources_digest(package: Path) -> str:
    """Return a digest of the code that a figure depends on: engine, adapters, model builders.

    Models also depend on the spaces that they are of.
    """
    digest = hashlib.sha256()
    for part in FIGURE_PARTS:
        for source in sorted((package / part).rglob("*.py")):
            content = source.read_bytes()
            name = source.relative_to(package).as_posix()
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()[:16]


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell to measure, and about how long that takes."""

    key: Mapping[str, Any]
    run: Callable[[], Cell]
    expected_s: float


def measure_missing(cells: Cells, jobs: Sequence[Job], deadline_s: float) -> bool:
    """Measure the cells that are not there; return whether none is missing.

    Stops before a job that would end after ``deadline_s`` (``time.monotonic()``).
    """
    todo = [job for job in jobs if cells.get(**job.key) is None]
    if not todo:
        return True
    expected = format_duration(sum(job.expected_s for job in todo))
    say(f"{len(todo)} of {len(jobs)} cells to measure, about {expected}")
    pace = Pace(total=len(todo))
    for done, job in enumerate(todo, 1):
        if time.monotonic() + job.expected_s > deadline_s:
            say("the time is up: the same command goes on from here")
            return False
        cells.add(job.key, job.run())
        left = format_duration(pace.eta_s(done) or 0.0)
        say(f"{done}/{len(todo)} {' '.join(map(str, job.key.values()))}; about {left} left")
    return True


# Statistics


def cv_pct(values: Floats, axis: int = -1) -> Any:
    """Return the coefficient of variation along ``axis``, in percent."""
    return 100 * values.std(axis=axis, ddof=1) / values.mean(axis=axis)


def cv_ratio(values: Floats, base: Floats, axis: int = -1) -> Any:
    """Return the coefficient of variation of ``values`` over that of ``base``."""
    return cv_pct(values, axis) / cv_pct(base, axis)


def bootstrap(
    statistic: Callable[..., Any], *samples: Sequence[float] | Floats, seed: int = 0
) -> Interval:
    """Return a statistic of independent samples with its 95 % BCa bootstrap interval.

    Args:
        statistic: takes one array a sample and ``axis``.
        samples: one or more, drawn independently of each other.
        seed: of the resampling.
    """
    arrays = [np.asarray(s, dtype=float) for s in samples]
    value = float(statistic(*arrays, axis=-1))
    if min(a.size for a in arrays) < FEWEST:
        return Interval(value, np.nan, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = stats.bootstrap(
            arrays, statistic, vectorized=True, rng=np.random.default_rng(seed), method="BCa"
        ).confidence_interval
    return Interval(value, float(found.low), float(found.high))


def share_pct(successes: int, n: int) -> Interval:
    """Return a share in percent with its 95 % interval by Clopper and Pearson (1934)."""
    if n == 0:
        return Interval(np.nan, np.nan, np.nan)
    found = stats.binomtest(successes, n).proportion_ci(0.95, method="exact")
    return Interval(100 * successes / n, 100 * float(found.low), 100 * float(found.high))


# The command


def parser(doc: str, name: str) -> argparse.ArgumentParser:
    """Return the options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=Path, default=Path(f"bench_{name}.jsonl"), help="the cells")
    made.add_argument("--max-time", type=seconds, default=np.inf, help="e.g. 10m; resumable")
    made.add_argument("--quick", action="store_true", help="a few cells, to see that it works")
    made.add_argument("--seed", type=int, default=0)
    return made


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def finish(out: Path, cells: Cells, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print tables as markdown, and write their rows with the machine's facts as JSON."""
    for title, rows in tables.items():
        print(f"\n{title}\n\n{markdown(rows)}")
    summary = {
        "facts": cells.facts,
        "tables": {
            title: [{name: _plain(v) for name, v in row.items()} for row in rows]
            for title, rows in tables.items()
        },
    }
    out.with_suffix(".json").write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """Return a table's cell as JSON has it: an interval by the names of its parts, no NaN."""
    if isinstance(value, Interval):
        return {name: _plain(part) for name, part in value._asdict().items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of equal keys as a table, numbers to the right."""
    if not rows:
        return "nothing measured yet"
    words = [all(isinstance(row[name], str) for row in rows) for name in rows[0]]
    lines = [list(rows[0]), ["---" if w else "---:" for w in words]]
    lines += [[_text(value) for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    if isinstance(value, Interval):
        known = np.isfinite(value.lo)
        return _text(value.value) + (f" [{value.lo:.3g}, {value.hi:.3g}]" if known else "")
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if np.isfinite(value) else NOTHING
