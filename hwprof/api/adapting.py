"""``adapt``: a latency model for a new device from about ten measured networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.api.files import refuse_search_folder
from hwprof.errors import DataError
from hwprof.measure.records import DeviceOptions, Precision, plan_for
from hwprof.progress import ProgressCallback
from hwprof.results import Holdout
from hwprof.store import Run

if TYPE_CHECKING:
    from hwprof.estimate.latency_model import AdditiveLatencyModel


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What was measured on the new device, and how well each network follows from the others."""

    out: Path
    device: str
    space: str
    donors: tuple[str, ...]
    n_done: int
    n_failed: int
    drops_unused: bool
    """Whether the device runs no block whose output nothing uses."""
    holdout: Holdout | None

    def to_json(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof adapt --json``."""
        return {
            "out": str(self.out),
            "device": self.device,
            "space": self.space,
            "from": list(self.donors),
            "n_done": self.n_done,
            "n_failed": self.n_failed,
            "drops_unused": self.drops_unused,
            "holdout": self.holdout.to_json() if self.holdout else None,
        }

    def __str__(self) -> str:
        tried = f"{self.n_done} networks measured on {self.device}"
        if self.n_failed:
            tried += f", {self.n_failed} failed"
        text = f"{tried}; the model in {self.out} starts from {', '.join(self.donors)}"
        if self.drops_unused:
            text += "; it does not run blocks whose output nothing uses"
        if self.holdout is None:
            return text
        return (
            f"{text}; each network predicted from the others: median error "
            f"{100 * self.holdout.median_rel_error:.1f} %, rank correlation "
            f"{self.holdout.spearman:.3f}"
        )


def adapt(
    *,
    runs: Sequence[str | Path],
    out: str | Path,
    device: str = "cpu",
    networks: int = 10,
    preset: str = "quick",
    threads: int = 1,
    batch: int = 1,
    precision: Precision = "fp32",
    timeout_s: float = 120.0,
    seed: int = 0,
    script: str | None = None,
    progress: ProgressCallback | None = None,
) -> Adaptation:
    """Make a latency model for a device from a few networks, by transfer from other runs.

    The run folder it writes predicts and searches as a profile does; called again it goes on.

    Args:
        runs: folders of runs on other devices (or with other options), all of one space.
        out: the run folder of the new device.
        device: a name that ``hwprof devices`` lists.
        networks: how many networks are measured; they are chosen, not drawn.
        preset: ``quick``, ``standard`` or ``strict``.
        threads: threads of the runtime.
        batch: batch size.
        precision: arithmetic type.
        timeout_s: longest a single step may take before it is ended.
        seed: fixes which networks are considered, and the order of bursts.
        script: steers the ``null`` device only.
        progress: called as measuring goes on.

    Raises:
        IncompatibleRunError: the runs are not of one space, or ``out`` holds another run.
        DataError: too few networks could be measured, or they span too little.
    """
    import numpy as np

    from hwprof.campaign import campaign_of, run_campaign
    from hwprof.devices import device_ref
    from hwprof.estimate.latency_model_file import write_model
    from hwprof.estimate.run_analysis import ADAPTED_MODEL
    from hwprof.estimate.transfer import Donors, adapt_model, choose_networks

    refuse_search_folder(out)
    donors = Donors(models=_models(runs))
    ref = device_ref(
        device, DeviceOptions(threads=threads, batch=batch, precision=precision, script=script)
    )
    plan = plan_for(preset, timeout_s=timeout_s, seed=seed)
    chosen = choose_networks(donors, networks, np.random.default_rng(seed))
    campaign = campaign_of(donors.space, seed, "chosen", chosen)
    # Another number of networks is another choice of them, so none of it may grow.
    request = {**campaign.request(ref, plan), "chosen": [a.arch_id for a in chosen]}
    with Run.create_or_resume(Path(out), "adapt", request) as run:
        summary = run_campaign(run, campaign, ref, plan, progress=progress)
        model = adapt_model(donors, run.networks(), run.fingerprint)
        write_model(model, run.path / ADAPTED_MODEL)
    return Adaptation(
        out=Path(out),
        device=device,
        space=donors.space.name,
        donors=tuple(map(str, runs)),
        n_done=summary.n_done,
        n_failed=summary.n_failed,
        drops_unused=model.drops_unused,
        holdout=model.holdout,
    )


def _models(runs: Sequence[str | Path]) -> tuple[AdditiveLatencyModel, ...]:
    from hwprof.estimate.run_analysis import run_latency_model

    if not runs:
        raise DataError("a transfer needs at least one run to start from; name it with --from")
    found = []
    for path in runs:
        with Run.open(path) as run:
            found.append(run_latency_model(run))
    return tuple(found)
