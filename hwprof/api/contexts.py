"""What a profile measured beside its networks: cold blocks, and layers as differences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hwprof.api.runs import COLD_FOLDER, DIFFERENTIAL_FOLDER
from hwprof.store import Run
from hwprof.store.folder import RUN_FILE

if TYPE_CHECKING:
    from hwprof.estimate.mixing import Mixing
    from hwprof.interval import Interval
    from hwprof.isolated import IsolatedRow
    from hwprof.space import DesignSpace, Slot


def cold_isolated(path: Path, space: DesignSpace) -> list[IsolatedRow]:
    """Return the blocks that a profile timed alone with cold caches; none where it did not."""
    from hwprof.isolated import isolated_table

    folder = path / COLD_FOLDER
    if not (folder / RUN_FILE).exists():
        return []
    with Run.open(folder) as run:
        return isolated_table(run, space)


def differential_costs(path: Path) -> dict[tuple[Slot, str], Interval]:
    """Return what layers cost as differences; nothing without ``profile --differential``."""
    from hwprof.differential import differentials
    from hwprof.estimate.run_analysis import run_space

    folder = path / DIFFERENTIAL_FOLDER
    if not (folder / RUN_FILE).exists():
        return {}
    with Run.open(folder) as run:
        return differentials(run, run_space(run), int(run.request["seed"]))


def mixing(path: Path) -> Mixing | None:
    """Say how far networks lie between hot and cold sums; None without ``profile --cold``.

    Raises:
        DataError: too few networks have all their blocks timed.
    """
    from hwprof.estimate.mixing import mixing_factor
    from hwprof.estimate.run_analysis import run_space
    from hwprof.isolated import piece_levels

    folder = path / COLD_FOLDER
    if not (folder / RUN_FILE).exists():
        return None
    with Run.open(path) as run, Run.open(folder) as cold:
        hot_s, cold_s = (
            {piece: one.level.value for piece, one in piece_levels(r).items()} for r in (run, cold)
        )
        return mixing_factor(run_space(run), run.networks(), hot_s, cold_s)
