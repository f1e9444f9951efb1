"""pytest-benchmark's JSON as stored measurements, with what such a file cannot support.

A foreign file holds samples of one process in one session: its slow modes and its memory layout
are part of every number, so that no shift below 10 % means anything and nothing can be called
equal. Without raw data (``--benchmark-save-data``) nothing can be tested at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hwprof.errors import DataError
from hwprof.regression.stored import Missing, Session, Stored

ONE_PROCESS = (
    "samples of one process: compare the models themselves, or use the fixture hwprof_benchmark"
)
NO_RAW = (
    "the file holds no raw data, so nothing can be tested: save it with --benchmark-save-data "
    "or --benchmark-json"
)
MACHINE_FACTS = (
    "machine",
    "processor",
    "system",
    "release",
    "python_implementation",
    "python_version",
)
"""Facts that must be equal. ``node`` is left out: a container has another name every time."""
CPU_FACTS = ("arch", "brand_raw", "count")


def is_pytest_file(path: Path) -> bool:
    """Return whether a path looks like pytest-benchmark's JSON: by its name and its first keys."""
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and {"benchmarks", "machine_info"} <= data.keys()


def read_pytest_file(path: Path) -> list[Stored | Missing]:
    """Read every benchmark of a file.

    Raises:
        DataError: it cannot be read, or is not pytest-benchmark's.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        facts = _machine(data["machine_info"])
        return [_stored(b, facts) for b in data["benchmarks"]]
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{str(path)!r} is not what pytest-benchmark writes ({type(error).__name__}: {error}); "
            "expected a file of --benchmark-json or --benchmark-save-data"
        ) from error


def _machine(info: Mapping[str, Any]) -> dict[str, object]:
    cpu = info.get("cpu") or {}
    return {
        **{name: info.get(name) for name in MACHINE_FACTS},
        **{f"cpu.{name}": cpu.get(name) for name in CPU_FACTS},
    }


def _stored(benchmark: Mapping[str, Any], machine: Mapping[str, object]) -> Stored | Missing:
    name, stats = benchmark["fullname"], benchmark["stats"]
    ours = (benchmark.get("extra_info") or {}).get("hwprof")
    if ours is not None:
        session = Session(
            level_s=ours["level_s"],
            units_s=tuple(ours["worker_levels_s"]),
            reference_s=ours["reference_s"],
        )
        return Stored(
            label=name,
            match=name,
            facts={**machine, **ours["facts"]},
            sessions=(session,),
            method="pytest-benchmark",
            caveat="" if ours["fresh_workers"] else ONE_PROCESS,
        )
    samples = tuple(float(s) for s in stats.get("data") or ())
    # Disturbances only add time, so the floor moves least; p10 where there are samples.
    level_s = float(np.quantile(samples, 0.1)) if samples else float(stats["min"])
    if not level_s > 0.0:
        reason = f"its file says {level_s:g} s, which is no time: let each round make more calls"
        return Missing(label=name, match=name, reason=reason)
    return Stored(
        label=name,
        match=name,
        facts=machine,
        sessions=(Session(level_s=level_s, units_s=samples),),
        method="pytest-benchmark",
        caveat=ONE_PROCESS if samples else NO_RAW,
    )
