"""What a run folder holds, read for the commands that go on from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwprof.errors import PlanError, StoreError
from hwprof.progress import Pace, Progress, ProgressCallback
from hwprof.results import Sample
from hwprof.store import Run

if TYPE_CHECKING:
    from hwprof.estimate.latency_model import AdditiveLatencyModel

COLD_FOLDER = "cold"
"""Inside a run: the run of the same blocks with cold caches."""
DIFFERENTIAL_FOLDER = "differential"
"""Inside a run: networks with and without every layer that may be absent."""
TE_NAS_FILE = "te-nas.json"
"""In the folder of a search that trains nothing: the network that it came to."""
SCORED_AT_ONCE = 8
"""Networks between two writes: few enough to lose little, many enough to be worth a batch."""


def refuse_untrained(folder: Path) -> None:
    """Refuse the folder of a search that trains nothing, where a front is wanted.

    Raises:
        StoreError: it is one.
    """
    if (folder / TE_NAS_FILE).exists():
        raise StoreError(
            f"{str(folder)!r} holds a network that te-nas chose: without an accuracy it is on no "
            "front; leave the folder out (`hwprof bench` times its network.json)"
        )


def scored_samples(
    run: Run,
    accuracy: str | None,
    data: str | None = None,
    progress: ProgressCallback | None = None,
) -> list[Sample]:
    """Return the run's networks with accuracies of ``accuracy``, scoring those not yet known.

    Scores are kept in the run by the source's hash where the folder can be written.

    Raises:
        PlanError: images are named, and no source that would look at them.
    """
    from hwprof.estimate.run_analysis import run_samples

    samples = run_samples(run)
    if accuracy is None:
        if data is not None:
            raise PlanError(
                f"--data {data!r} holds the images of a supernet, and no accuracy source is named; "
                "add --accuracy supernet:FILE, or leave it out"
            )
        return samples
    from hwprof.search.scoring.accuracy import open_accuracy

    source = open_accuracy(accuracy, data=data)
    known = run.accuracies(source.digest)
    missing = [s.arch for s in samples if s.arch.arch_id not in known]
    pace = Pace(total=len(missing))
    for start in range(0, len(missing), SCORED_AT_ONCE):
        part = missing[start : start + SCORED_AT_ONCE]
        for arch, value in zip(part, source.score(part), strict=True):
            known[arch.arch_id] = value
            if value is not None and run.writable:
                run.put_accuracy(source.digest, source.name, arch, value)
        if progress is not None:
            done = start + len(part)
            progress(
                Progress(
                    stage="scoring networks",
                    done=done,
                    total=len(missing),
                    eta_s=pace.eta_s(done),
                )
            )
    return [replace(s, accuracy_pct=known[s.arch.arch_id]) for s in samples]


def latency_model(run: str | Path) -> tuple[AdditiveLatencyModel, str]:
    """Return the latency model of a run with the run's device name.

    Fitted to the run's networks, or the exact sums of an imported table of blocks.

    Raises:
        StoreError: the run has no measured networks.
    """
    from hwprof.estimate.run_analysis import run_latency_model

    with Run.open(run) as opened:
        return run_latency_model(opened), str(opened.fingerprint.stable["device"])
