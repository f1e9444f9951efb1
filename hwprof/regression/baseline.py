"""Baselines: what was measured of a suite, session by session.

A baseline is a folder: ``suite.json`` and one run folder for every session and configuration.
Measuring again into the same folder adds a session; σ of the rule for stored measurements is
taken from these sessions, which are the workload's A/A history. A confirmed change of the level
among them (:mod:`hwprof.regression.change_points`) resets the baseline: the sessions before it do
not count.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from hwprof.errors import IncompatibleRunError, StoreError, next_step
from hwprof.files import write_whole
from hwprof.measure.records import Measurement, differing
from hwprof.regression.change_points import SEED, first_looked_at, since_change
from hwprof.regression.stored import Missing, Stored, session_of
from hwprof.regression.suite import SUITE_FORMAT, Suite
from hwprof.store import Run
from hwprof.store.folder import RUN_FILE
from hwprof.workload import Workload

SUITE_FILE = "suite.json"
_HASH = re.compile("[0-9a-f]+")
SHORTEST_COMMIT = 7
"""Letters to which git shortens a commit."""


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
            write_whole(file, f"{json.dumps(said, indent=1)}\n".encode())
            return
        known = json.loads(file.read_text(encoding="utf-8"))
        known["suite"].pop("folder", None)
    except OSError as error:
        raise StoreError(
            f"cannot use {str(folder)!r} for a baseline: {error.strerror or error}; "
            f"{next_step(error, 'name another --out')}"
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{str(file)!r} is damaged ({error}); restore it from a copy, or name another --out"
        ) from error
    del said["suite"]["folder"]
    if known != said:
        raise IncompatibleRunError(
            f"{str(folder)!r} holds a baseline of another suite, or of this one before it was "
            "changed; name another --out"
        )


def is_baseline(folder: Path) -> bool:
    """Return whether a folder holds a baseline."""
    return (folder / SUITE_FILE).is_file()


def baselines_in(folder: Path) -> list[Path]:
    """Return the baselines in a folder of several, by name."""
    return [p for p in sorted(folder.iterdir()) if is_baseline(p)] if folder.is_dir() else []


def next_session(folder: Path) -> Path:
    """Return the folder of a new session."""
    numbers = [int(p.name) for p in sessions_of(folder)]
    return folder / "sessions" / f"{1 + max(numbers, default=0):04d}"


def sessions_of(folder: Path) -> Iterator[Path]:
    """Yield the folders of a baseline's sessions, oldest first; one renamed is one set aside."""
    inside = (folder / "sessions").glob("[0-9]*")
    yield from sorted(p for p in inside if p.name.isdecimal() and p.is_dir())


def runs_of(session: Path) -> list[Path]:
    """Return the run folders of a session; one that a full disk left without a run is none."""
    return sorted(file.parent for file in session.glob(f"*/{RUN_FILE}"))


def runs_in(folder: Path) -> Iterator[tuple[str, str, Run]]:
    """Yield session, configuration and run, open, of all that a baseline holds, oldest first."""
    for session in sessions_of(folder):
        for run_folder in runs_of(session):
            with Run.open(run_folder) as run:
                yield session.name, run_folder.name, run


def find_baseline(folder: Path, commit: str | None = None) -> Path:
    """Return a baseline, or a commit's in a folder of baselines named after commits.

    Args:
        folder: a baseline, or with ``commit`` what holds one for each commit.
        commit: a commit or its beginning; or, in a git repository, any name of one, such as a tag,
            a branch or ``HEAD~1``. Folders may bear shortened names.

    Raises:
        StoreError: there is none, the commit is empty, or a shortened one means several.
    """
    if commit is None:
        if is_baseline(folder):
            return folder
        raise StoreError(
            f"{str(folder)!r} is no baseline (it has no {SUITE_FILE}); expected the --out of "
            "`hwprof suite run`, or a folder of such with --commit"
        )
    if not commit.strip():
        # As a build server's variable may be; every name begins with nothing.
        raise StoreError(
            f"the commit is {commit!r}; expected the one whose baseline is meant, such as 4f2a91c "
            "or HEAD~1: is the variable set that --commit takes it from?"
        )
    baselines = baselines_in(folder)
    found = _named(baselines, commit)
    if not found and (full := _full_commit(commit)) is not None:
        found = _named(baselines, full)
    if len(found) != 1:
        there = ", ".join(p.name for p in (found or baselines)) or "none at all"
        raise StoreError(
            f"{str(folder)!r} holds {len(found)} baselines of commit {commit!r} ({there}); "
            f"expected one: make it with `hwprof suite run ... --out {folder}/COMMIT`"
        )
    return found[0]


def refuse_itself(base: Path, new: Path) -> None:
    """Refuse to hold stored measurements against themselves.

    Raises:
        StoreError: both are one baseline, run or file.
    """
    if base.resolve() == new.resolve():
        raise StoreError(
            f"{str(base)!r} would be compared with itself, which finds nothing; name another one, or "
            "of a baseline the --commit before"
        )


def _named(baselines: Sequence[Path], commit: str) -> list[Path]:
    """Return the baselines of a commit: the one of just that name, else all that may be meant."""
    if exact := [p for p in baselines if p.name == commit]:
        return exact
    if not _HASH.fullmatch(commit):
        return []  # only a hash may be shortened: v1.0 is no beginning of v1.0.1
    is_long = len(commit) >= SHORTEST_COMMIT
    return [
        p
        for p in baselines
        if p.name.startswith(commit)
        or (is_long and len(p.name) >= SHORTEST_COMMIT and commit.startswith(p.name))
    ]


def _full_commit(name: str) -> str | None:
    """Return the full hash that git knows a commit by here; None where there is no git."""
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def read_baseline(folder: Path) -> list[Stored | Missing]:
    """Read every workload of a baseline with all its sessions.

    Raises:
        StoreError: it holds no session.
        IncompatibleRunError: its sessions were measured under different keys.
    """
    measured: dict[str, list[tuple[str, Measurement]]] = {}
    missing: dict[str, Missing] = {}
    for session, config, run in runs_in(folder):
        for m in run.measurements():
            measured.setdefault(match_of(config, m.workload), []).append((session, m))
        for f in run.failures():
            match = match_of(config, f.workload)
            reason = (
                f"{f.stage} failed ({f.kind}) in session {session}: {f.message}; rename the folder "
                "of that session to set it aside"
            )
            missing[match] = Missing(
                label=f"{f.workload.label} [{config}]", match=match, reason=reason
            )
    if not measured and not missing:
        raise StoreError(f"{str(folder)!r} holds no session; run `hwprof suite run` to make one")
    kept = [_stored(folder, k, found) for k, found in measured.items() if k not in missing]
    return [*kept, *missing.values()]


def _stored(folder: Path, match: str, found: Sequence[tuple[str, Measurement]]) -> Stored:
    newest_session, newest = found[-1]
    facts = suite_facts(newest)
    for session, measurement in found[:-1]:
        if changed := differing(suite_facts(measurement), facts):
            named = "; ".join(f"{k} {a!r}, then {b!r}" for k, (a, b) in changed.items())
            raise IncompatibleRunError(
                f"{str(folder)!r} mixes sessions: between {session} and {newest_session} of "
                f"{newest.workload.label!r} {named}; measure into another --out"
            )
    sessions = [session_of(m) for _, m in found]
    # As `suite history` draws them: what it says of these sessions is what resets the baseline.
    first = since_change([s.level_s for s in sessions], np.random.default_rng(SEED))
    change = "" if first == first_looked_at(len(sessions)) else "the change at "
    return Stored(
        label=f"{newest.workload.label} [{match.partition(' ')[0]}]",
        match=match,
        facts=facts,
        sessions=tuple(sessions[first:]),
        note=f"of {folder.name} only the sessions since {change}{found[first][0]} count"
        if first
        else "",
    )


def match_of(config: str, workload: Workload) -> str:
    """Return what pairs a workload of one session with that of another."""
    return f"{config} {workload.role} {workload.label}"


def suite_facts(measurement: Measurement) -> dict[str, object]:
    """Return what must be equal; a user's model may change, that is what is asked about.

    What the model is given may not, and other random weights do the same work: the seed is no
    difference.
    """
    workload = replace(measurement.workload, seed=0)
    if workload.role == "model":
        given = [["x".join(map(str, i.shape)), i.dtype] for i in workload.inputs]
        return measurement.facts | {"inputs": given}
    return measurement.facts | {"workload": workload.key}
