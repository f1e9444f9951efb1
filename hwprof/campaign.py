"""A profile: every distinct block of a space alone, then random networks of it, resumable.

What is measured and in which order follows from space and seed alone, so that a campaign that
was interrupted, or asked for more networks later, goes on with the same sequence.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.errors import PlanError, either
from hwprof.estimate.design_matrix import n_coefficients
from hwprof.estimate.favouring import acceptance
from hwprof.estimate.pinning import DEFAULT_PER_PIN, in_rounds, pinned_networks
from hwprof.measure.records import DeviceRef, Failure, MeasurePlan, Result
from hwprof.space.own import own_space_request
from hwprof.space.pieces import SkipPiece
from hwprof.workload import Workload

if TYPE_CHECKING:
    from hwprof.progress import ProgressCallback
    from hwprof.space import Architecture, DesignSpace
    from hwprof.store import Run

logger = logging.getLogger(__name__)

LEAST_NETWORKS = 100
NETWORKS_PER_COEFFICIENT = 3
"""With fewer the effects of blocks cannot be told apart (block-profiling estimator)."""

MOST_NETWORKS = 100_000
"""More take days to measure even at a second each, and hours to draw: a slip of the hand."""

MAX_REPEATS = 10_000
"""Draws in a row that were there before, after which a space counts as exhausted."""

DESIGNS = ("shared", "pinned")
"""One random sample that prices every block at once; or a fresh sample for every block in its
place, as published (:mod:`hwprof.estimate.pinning`)."""

NETWORK_STREAM = 1
"""Keeps the stream of networks apart from others that a user derives from the same seed."""


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What is measured, in order: ``isolated`` blocks, then ``networks``.

    ``n_networks`` is what was asked for: distinct networks, or networks a pin.
    """

    space: DesignSpace
    seed: int
    design: str
    n_networks: int
    isolated: tuple[Workload, ...]
    networks: tuple[Workload, ...]
    favour_depth: bool = False

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """Everything, in order."""
        return (*self.isolated, *self.networks)

    def request(self, device: DeviceRef, plan: MeasurePlan) -> dict[str, Any]:
        """Return what a run folder keeps of this campaign, as plain data.

        Everything that must be the same for measurements to belong together is in it;
        ``networks`` and ``isolated`` may grow.
        """
        space = self.space
        return {
            "space": space.name,
            "resolution_px": space.resolution_px,
            "max_depth": list(space.max_depth),
            "alive": {str(slot): list(space.choices(slot)) for slot in space.slots},
            **own_space_request(space),
            **built(space),
            "device": device.name,
            "options": asdict(device.options),
            "design": self.design,
            **({"favour_depth": True} if self.favour_depth else {}),
            "seed": self.seed,
            "plan": plan.key_fields(),
            "networks": self.n_networks,
            "isolated": bool(self.isolated),
        }


def built(space: DesignSpace) -> dict[str, str]:
    """Return a hash of what the parts of a user's own space build; nothing of one that ships.

    The code of a block is in no name: edited, it makes another space of the same words.
    """
    from hwprof.graph import piece_graph
    from hwprof.space.catalog import CATALOG

    if space.name in CATALOG:
        return {}
    graphs = [repr(piece_graph(p).nodes) for p in space.distinct_pieces()]
    return {"built": hashlib.sha256("\n".join(graphs).encode()).hexdigest()[:16]}


@dataclass(frozen=True, kw_only=True)
class CampaignSummary:
    """How far a campaign got; ``left`` lists what was not measured for want of time."""

    n_done: int
    n_failed: int
    left: tuple[Workload, ...]

    @property
    def n_left(self) -> int:
        """Number of workloads that wait for the next call."""
        return len(self.left)

    def with_more(self, other: CampaignSummary) -> CampaignSummary:
        """Return the counts of both campaigns together."""
        return CampaignSummary(
            n_done=self.n_done + other.n_done,
            n_failed=self.n_failed + other.n_failed,
            left=(*self.left, *other.left),
        )


def plan_differential(space: DesignSpace, seed: int) -> Campaign:
    """Lay out the pairs of networks of :mod:`hwprof.differential`.

    Raises:
        SpaceError: no layer of the space may be absent.
    """
    from hwprof.differential import differential_networks

    return campaign_of(space, seed, "differential", differential_networks(space, seed))


def campaign_of(
    space: DesignSpace, seed: int, design: str, networks: Sequence[Architecture]
) -> Campaign:
    """Return the campaign of these networks and of no block alone."""
    return Campaign(
        space=space,
        seed=seed,
        design=design,
        n_networks=len(networks),
        isolated=(),
        networks=tuple(Workload.network(arch) for arch in networks),
    )


def default_n_networks(space: DesignSpace) -> int:
    """Return max(100, 3 × coefficients of the space's effect model)."""
    return max(LEAST_NETWORKS, NETWORKS_PER_COEFFICIENT * n_coefficients(space))


def plan_campaign(
    space: DesignSpace,
    seed: int = 0,
    n_networks: int | None = None,
    isolated: bool = True,
    design: str = "shared",
    favour_depth: bool = False,
) -> Campaign:
    """Lay out a profile of ``space``.

    Args:
        space: the design space, reduced or not.
        seed: fixes the networks and their order.
        n_networks: how many distinct networks; all of them where the space has no more. In the
            pinned design how many for each block in its place, and as many unpinned: 100 of
            OFA-MobileNetV3 are 18,100. Asking for more later extends the same sequence.
        isolated: whether every distinct block is timed alone.
        design: ``shared``, one random sample that prices every block at once, or ``pinned``,
            the published one-factor procedure.
        favour_depth: draw deep networks more often (:mod:`hwprof.estimate.favouring`).

    Raises:
        PlanError: the design is unknown, fixes depths itself, or no network is asked for, or
            more than ``MOST_NETWORKS``.
    """
    if design not in DESIGNS:
        raise PlanError(f"unknown design {design!r}; expected {either(DESIGNS)}")
    if favour_depth and design != "shared":
        raise PlanError(f"the {design} design draws its own depths; leave out --favour-depth")
    if n_networks is None:
        n_networks = default_n_networks(space) if design == "shared" else DEFAULT_PER_PIN
    if n_networks < 0 or (n_networks == 0 and not isolated):
        raise PlanError(f"{n_networks} networks and no blocks leave nothing to measure; ask for 1")
    if n_networks > MOST_NETWORKS:
        raise PlanError(
            f"{n_networks} networks are more than a profile takes; expected at most "
            f"{MOST_NETWORKS}: ask for fewer (--networks) or for a wider --half-width"
        )
    if design == "shared":
        networks = sample_networks(space, seed, n_networks, favour_depth=favour_depth)
    else:
        networks = in_rounds(space, pinned_networks(space, seed, n_networks))
    return Campaign(
        space=space,
        seed=seed,
        design=design,
        n_networks=len(networks) if design == "shared" else n_networks,
        isolated=isolated_workloads(space) if isolated else (),
        networks=tuple(Workload.network(a) for a in networks),
        favour_depth=favour_depth,
    )


def isolated_workloads(space: DesignSpace) -> tuple[Workload, ...]:
    """Return every distinct piece of the space as a workload, named after its first place."""
    labels = {part.piece: part.scope for part in reversed(space.fixed_parts())}
    for piece, places in space.block_places().items():
        first, more = places[0], len(places) - 1
        others = f" (and {more} more places)" if more else ""
        labels[piece] = f"{first.block} at {first.slot}{others}"
    return tuple(
        Workload.block(piece, labels[piece])
        for piece in space.distinct_pieces()
        if not isinstance(piece, SkipPiece)
    )


def sample_networks(
    space: DesignSpace, seed: int, n_networks: int, *, favour_depth: bool = False
) -> list[Architecture]:
    """Draw ``n_networks`` networks that differ from each other, in a fixed seeded order.

    Of several encodings of one network only the first drawn counts. The list is shorter where
    the space holds fewer networks. ``favour_depth`` draws deep ones more often.
    """
    rng = np.random.default_rng([seed, NETWORK_STREAM])
    found: dict[str, Architecture] = {}
    repeats = 0
    while len(found) < n_networks and repeats < MAX_REPEATS:
        arch = space.sample(rng)
        while favour_depth and rng.random() >= acceptance(space, arch):
            arch = space.sample(rng)
        key = space.canonical(arch).arch_id
        repeats = repeats + 1 if key in found else 0
        found.setdefault(key, arch)
    return list(found.values())


def run_campaign(
    run: Run,
    campaign: Campaign,
    device: DeviceRef,
    plan: MeasurePlan,
    progress: ProgressCallback | None = None,
    max_time_s: float | None = None,
) -> CampaignSummary:
    """Measure what of ``campaign`` is not yet in ``run``, until done or the time is spent.

    Finished workloads are skipped; so are failures that would fail again. Bursts that an
    interrupted call left behind are gone on with.

    Raises:
        DeviceError: the device is not there.
        IncompatibleRunError: the device is not the one that the run was begun on.
        StoreError: the run cannot be written.
    """
    deadline_s = None if max_time_s is None else time.monotonic() + max_time_s
    finished = run.finished_keys()
    todo = [w for w in campaign.workloads if w.key not in finished]
    for result in measure_into(run, todo, device, plan, progress=progress, deadline_s=deadline_s):
        if isinstance(result, Failure):
            logger.warning("%s: %s", result.workload.label, result.why)
    measured = run.measured_keys()
    failed = {f.workload.key for f in run.failures()}
    return CampaignSummary(
        n_done=sum(w.key in measured for w in campaign.workloads),
        n_failed=sum(w.key in failed for w in campaign.workloads),
        left=tuple(w for w in campaign.workloads if w.key not in measured | failed),
    )


def measure_into(
    run: Run,
    workloads: Sequence[Workload],
    device: DeviceRef,
    plan: MeasurePlan,
    *,
    progress: ProgressCallback | None,
    deadline_s: float | None = None,
) -> Iterator[Result]:
    """Measure ``workloads``, keeping all in ``run`` and going on with what it holds of them."""
    from hwprof.measure.engine import measure
    from hwprof.store.session_file import SessionFile

    return measure(
        workloads,
        device,
        plan,
        sink=run,
        history=SessionFile(),
        earlier=run.partial_bursts(),
        references=run.reference_bursts(),
        taken=run.workers(),
        progress=progress,
        deadline_s=deadline_s,
    )
