"""What a run folder says, whichever way its networks came to be.

A shared campaign and imported networks are judged by the regression, a pinned campaign by the
published one-factor estimator, a table of blocks by its own exact sums.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.errors import SpaceError, StoreError
from hwprof.estimate.block_table import (
    RELATIVE,
    has_constant,
    table_friendliness,
    table_model,
    table_samples,
)
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.estimate.latency_model_file import read_model
from hwprof.estimate.pinned_effects import fit_pinned
from hwprof.estimate.prior import directions
from hwprof.isolated import isolated_table
from hwprof.space import get_space
from hwprof.space.own import require_definition
from hwprof.store.folder import RUN_FILE, damaged

if TYPE_CHECKING:
    from hwprof.estimate.responses import Friendliness
    from hwprof.results import Sample
    from hwprof.space import DesignSpace
    from hwprof.store import ImportedBlock, Run

logger = logging.getLogger(__name__)

ADAPTED_MODEL = "latency_model.npz"
"""In the folder of an adapted run: its model, which its own networks alone would not give."""


def run_space(run: Run) -> DesignSpace:
    """Return the space that a run's networks belong to, with what was alive in it.

    Raises:
        StoreError: it is a run of another kind (finalists of a search, say), which is of no space.
    """
    request = run.request
    if not {"space", "resolution_px"} <= set(request):
        raise StoreError(
            f"{str(run.path)!r} is a run of {run.kind!r}; expected the --out of `hwprof profile`, "
            "`import` or `adapt`"
        )
    try:
        return _requested_space(request)
    except SpaceError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise damaged(run.path / RUN_FILE, f"{error} where a space is described") from error


def _requested_space(request: Mapping[str, Any]) -> DesignSpace:
    require_definition(request)
    space = get_space(str(request["space"]), int(request["resolution_px"]))
    if "alive" not in request:
        return space
    max_depth = tuple(int(depth) for depth in request["max_depth"])
    alive = {
        slot: tuple(request["alive"][str(slot)])
        for slot in space.slots
        if slot.layer < max_depth[slot.unit]
    }
    return space.restrict(alive, max_depth)


def run_samples(run: Run) -> list[Sample]:
    """Return the networks of a run; of a table of blocks, random ones that it prices."""
    blocks = _table(run)
    if not blocks:
        return run.networks()
    return table_samples(table_model(run_space(run), blocks))


def run_friendliness(run: Run, samples: Sequence[Sample]) -> Friendliness:
    """Return the effects of a run by the estimator that suits its design.

    Args:
        run: an open run.
        samples: those of :func:`run_samples`, with accuracies where they are wanted.

    Raises:
        DataError: the networks do not determine the effects.
    """
    found = _friendliness(run, samples)
    return replace(
        found,
        device=str(run.fingerprint.stable["device"]),
        fingerprint=run.fingerprint.to_json(),
        notes=(*found.notes, *_accuracy_notes(found)),
    )


def _accuracy_notes(found: Friendliness) -> tuple[str, ...]:
    """Say how many networks the accuracies are of, where the effects' ``n_networks`` does not."""
    if found.accuracy is None or found.accuracy.n_networks == found.n_networks:
        return ()
    note = (
        f"effects on accuracy rest on {found.accuracy.n_networks} networks, those on latency on "
        f"{found.n_networks or 'none'}; n_networks counts the latter"
    )
    return (note,)


def _friendliness(run: Run, samples: Sequence[Sample]) -> Friendliness:
    space = run_space(run)
    blocks = _table(run)
    if blocks:
        return table_friendliness(space, blocks, samples)
    if run.request.get("design") == "pinned":
        n_per_pin, seed = int(run.request["networks"]), int(run.request["seed"])
        return fit_pinned(space, samples, n_per_pin=n_per_pin, seed=seed)
    return fit_friendliness(space, samples)


def run_latency_model(run: Run) -> AdditiveLatencyModel:
    """Return the latency model of a run: adapted, fitted to its networks, or its table of blocks.

    Raises:
        StoreError: the run has no measured networks, or its transfer was interrupted.
        DataError: it has too few.
    """
    space = run_space(run)
    if run.kind == "adapt":
        if not (run.path / ADAPTED_MODEL).exists():
            raise StoreError(
                f"{str(run.path)!r} holds an interrupted transfer, without its model; call the same "
                "`hwprof adapt` again to finish it"
            )
        return read_model(run.path / ADAPTED_MODEL, space)
    blocks = _table(run)
    if blocks:
        if not has_constant(blocks):
            logger.warning("%s: %s", run.path, RELATIVE)
        return table_model(space, blocks, run.fingerprint)
    samples = [s for s in run.networks() if s.latency_s is not None]
    if not samples:
        path = str(run.path)
        raise StoreError(
            f"{path!r} holds no measured networks; run `hwprof profile --out {path}` first"
        )
    return fitted_model(run, space, samples)


def fitted_model(run: Run, space: DesignSpace, samples: Sequence[Sample]) -> AdditiveLatencyModel:
    """Return the model of some networks of a run, guided by what blocks take alone.

    A measurement's interval is for what another session would find. Networks of one run shared
    theirs, so what sessions differ by is open for all alike; their errors within it are in what
    the fit leaves over. What was timed in a bad quarter of an hour counts less.

    Raises:
        DataError: there are too few networks.
    """
    rows = isolated_table(run, space)
    alone_s = {(r.slot, r.block): r.isolated_hot_s.value for r in rows if r.slot is not None}
    timed = [s for s in samples if s.latency_s is not None]
    shares = [(s.latency_se_s or 0.0) / s.latency_s for s in timed if s.latency_s is not None]
    return AdditiveLatencyModel.fit(
        space,
        timed,
        fingerprint=run.fingerprint,
        guess=directions(DesignMatrix(space), alone_s),
        # An imported table's errors are of its calls, not of the time at which it was made.
        shares=None if run.has_imports() else np.array(shares),
        common_sd=max((s.session_sd for s in timed), default=0.0),
    )


def _table(run: Run) -> list[ImportedBlock]:
    """Return the run's block table at its own input size, empty where it has networks."""
    return run.imported_blocks(int(run.request["resolution_px"])) if run.kind == "import" else []
