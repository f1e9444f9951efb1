"""``profile`` and ``import``: what makes a run of measurements."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.api.files import refuse_search_folder
from hwprof.api.models import as_space
from hwprof.api.runs import COLD_FOLDER, DIFFERENTIAL_FOLDER
from hwprof.errors import PlanError
from hwprof.measure.records import DeviceOptions, Precision, plan_for
from hwprof.progress import ProgressCallback
from hwprof.results import Holdout, Sample
from hwprof.space import DesignSpace, get_space
from hwprof.store import Run

if TYPE_CHECKING:
    import pandas as pd

    from hwprof.campaign import Campaign, CampaignSummary
    from hwprof.estimate.precision import PrecisionPlan
    from hwprof.measure.records import DeviceRef, MeasurePlan


@dataclass(frozen=True, kw_only=True)
class ProfileResult:
    """What a profile measured and how well it predicts what it did not measure."""

    out: Path
    device: str
    space: str
    n_done: int
    n_failed: int
    n_left: int
    holdout: Holdout | None
    seconds: float
    precision: PrecisionPlan | None = None
    """How the number of networks was chosen, where a half-width was asked for."""

    def to_json(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof profile --json``."""
        return {
            "out": str(self.out),
            "device": self.device,
            "space": self.space,
            "n_done": self.n_done,
            "n_failed": self.n_failed,
            "n_left": self.n_left,
            "holdout": self.holdout.to_json() if self.holdout else None,
            "seconds": self.seconds,
            "precision": self.precision.to_json() if self.precision else None,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return every measurement of the run, one row each."""
        import pandas as pd

        with Run.open(self.out) as run:
            rows = [m.to_json() for m in run.measurements()]
        drop = ("fingerprint", "plan", "telemetry")
        return pd.DataFrame([{k: v for k, v in row.items() if k not in drop} for row in rows])

    def _repr_html_(self) -> str:
        html: str = self.to_frame().to_html(index=False)
        return html


def profile(
    *,
    space: str | DesignSpace,
    out: str | Path,
    device: str = "cpu",
    networks: int | None = None,
    half_width: float | None = None,
    design: str = "shared",
    favour_depth: bool = False,
    isolated: bool = True,
    cold: bool = False,
    differential: bool = False,
    preset: str = "quick",
    max_time_s: float | None = None,
    threads: int = 1,
    batch: int = 1,
    precision: Precision = "fp32",
    timeout_s: float = 120.0,
    resolution_px: int | None = None,
    seed: int = 0,
    script: str | None = None,
    progress: ProgressCallback | None = None,
    on_plan: Callable[[PrecisionPlan], None] | None = None,
) -> ProfileResult:
    """Measure a space on a device: every distinct block alone, then whole networks.

    Called again with the same ``out`` it goes on where it stopped; ``networks`` and
    ``max_time_s`` may grow.

    Args:
        space: a space, its name, or the file of a reduced one.
        out: the run folder.
        device: a name that ``hwprof devices`` lists.
        networks: how many random networks; by default max(100, 3 × coefficients). In the pinned
            design how many for every block in its place, by default 100.
        half_width: choose the number of networks instead, so that the 95 % intervals of the slot
            effects reach so far to each side, as a share of the mean latency (0.01 is 1 %). A
            pilot of max(100, 1.5 × coefficients) networks tells how many that are
            (:mod:`hwprof.estimate.precision`); the campaign then goes on in the same sequence.
        design: ``shared``, one random sample that prices every block at once, or ``pinned``, a
            fresh sample for every block in its place (the published one-factor procedure).
        favour_depth: draw deep networks more often in the shared design, for narrower intervals
            of the blocks in layers that few networks have (:mod:`hwprof.estimate.favouring`).
        isolated: whether to time every distinct block alone.
        cold: time every distinct block alone a second time, with caches flushed before every
            call, into ``out/cold``; how far networks lie between hot and cold sums then follows.
        differential: time pairs of networks with and without every layer that may be absent,
            into ``out/differential`` (:mod:`hwprof.differential`).
        preset: ``quick``, ``standard`` or ``strict``.
        max_time_s: stop after this long; what is left is counted in the result.
        threads: threads of the runtime.
        batch: batch size.
        precision: arithmetic type.
        timeout_s: longest a single step may take before it is ended.
        resolution_px: input size; by default the space's own.
        seed: fixes the networks, their order, and the order of bursts.
        script: steers the ``null`` device only.
        progress: called with a progress record as measuring goes on.
        on_plan: called with the plan once ``half_width`` has chosen the number of networks.

    Raises:
        IncompatibleRunError: ``out`` holds a search, or another space, device, resolution,
            seed or protocol.
        DeviceError: the device is not there.
        PlanError: options contradict each other, or the half-width is not between 0 and 1.
        SpaceError: ``differential`` in a space no layer of which may be absent.
    """
    from hwprof.campaign import plan_campaign, plan_differential
    from hwprof.devices import device_ref
    from hwprof.estimate.precision import pilot_size, require_share

    refuse_search_folder(out)
    if half_width is not None and (networks is not None or design != "shared"):
        raise PlanError(
            "--half-width chooses the number of networks of the shared design; leave out "
            f"{'--networks' if networks is not None else f'--design {design}'}"
        )
    # What cannot be is said before hours are spent on what comes first.
    if half_width is not None:
        require_share(half_width)
    searched = as_space(space, resolution_px)
    with_and_without = plan_differential(searched, seed) if differential else None
    options = DeviceOptions(threads=threads, batch=batch, precision=precision, script=script)
    measuring = _Measuring(
        out=Path(out),
        device=device_ref(device, options),
        plan=plan_for(preset, timeout_s=timeout_s, seed=seed),
        progress=progress,
        deadline_s=None if max_time_s is None else time.monotonic() + max_time_s,
    )
    started_s = time.monotonic()
    if half_width is not None:
        networks = pilot_size(searched)
    campaign = plan_campaign(searched, seed, networks, isolated, design, favour_depth)
    summary, samples = measuring.run(campaign)
    precision_plan = None
    if half_width is not None and summary.n_left == 0:
        precision_plan = _planned(campaign, samples, half_width)
        if on_plan is not None:
            on_plan(precision_plan)
        # Of the networks still to come as many fail as of the pilot: those count for nothing.
        tried = precision_plan.n_networks * len(campaign.networks) / precision_plan.n_pilot
        campaign = plan_campaign(
            searched, seed, math.ceil(tried), isolated, favour_depth=favour_depth
        )
        summary, _ = measuring.run(campaign)
    if cold:
        flushed = replace(
            measuring, out=Path(out) / COLD_FOLDER, plan=replace(measuring.plan, cache="cold")
        )
        blocks, _ = flushed.run(plan_campaign(searched, seed, 0, isolated=True))
        summary = summary.with_more(blocks)
    if with_and_without is not None:
        paired = replace(measuring, out=Path(out) / DIFFERENTIAL_FOLDER)
        pairs, _ = paired.run(with_and_without)
        summary = summary.with_more(pairs)
    return ProfileResult(
        out=Path(out),
        device=device,
        space=searched.name,
        n_done=summary.n_done,
        n_failed=summary.n_failed,
        n_left=summary.n_left,
        holdout=_holdout(Path(out)),
        seconds=time.monotonic() - started_s,
        precision=precision_plan,
    )


@dataclass(frozen=True, kw_only=True)
class _Measuring:
    """Where and how a campaign is measured, and until when."""

    out: Path
    device: DeviceRef
    plan: MeasurePlan
    progress: ProgressCallback | None
    deadline_s: float | None

    def run(self, campaign: Campaign) -> tuple[CampaignSummary, list[Sample]]:
        """Measure what is not measured yet; return how far it got, and the run's networks."""
        from hwprof.campaign import run_campaign

        left_s = None if self.deadline_s is None else self.deadline_s - time.monotonic()
        request = campaign.request(self.device, self.plan)
        with Run.create_or_resume(self.out, "profile", request) as run:
            summary = run_campaign(
                run, campaign, self.device, self.plan, progress=self.progress, max_time_s=left_s
            )
            return summary, run.networks()


def _planned(pilot: Campaign, samples: Sequence[Sample], half_width: float) -> PrecisionPlan:
    """Plan from the pilot's networks alone, so that a resumed campaign plans the same."""
    from hwprof.estimate.precision import plan_precision

    first = {w.arch.arch_id for w in pilot.networks if w.arch is not None}
    own = [s for s in samples if s.arch.arch_id in first]
    return plan_precision(pilot.space, own, half_width, favour_depth=pilot.favour_depth)


def _holdout(out: Path) -> Holdout | None:
    """Return the held-out figures, or None where there are too few networks for a model."""
    from hwprof.estimate.crossval import FOLDS
    from hwprof.estimate.run_analysis import run_latency_model

    with Run.open(out) as run:
        n_timed = sum(s.latency_s is not None for s in run.networks())
        return run_latency_model(run).holdout if n_timed >= FOLDS else None


def import_(
    file: str | Path,
    *,
    space: str,
    device_name: str,
    out: str | Path,
    latency_column: str | None = None,
    resolution_px: int | None = None,
) -> Path:
    """Make a run from someone else's measurements (closed NPUs, vendor tools, published tables).

    Raises:
        DataError: a row that cannot be right, with its line and column.
        IncompatibleRunError: ``out`` holds another run, or a search.
    """
    from hwprof.importing import import_csv

    refuse_search_folder(out)
    import_csv(
        Path(file),
        space=get_space(space, resolution_px),
        device_name=device_name,
        out=Path(out),
        latency_column=latency_column,
    ).close()
    return Path(out)
