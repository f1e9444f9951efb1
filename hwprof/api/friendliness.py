"""``effects``: how friendly every block is to a device, or to several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwprof.api.files import write_file
from hwprof.api.runs import scored_samples
from hwprof.progress import ProgressCallback
from hwprof.protocols import AccuracySource
from hwprof.store import Run

if TYPE_CHECKING:
    from hwprof.estimate.comparing import EffectsComparison
    from hwprof.estimate.responses import Friendliness


def effects(
    run: str | Path,
    *,
    accuracy: str | AccuracySource | None = None,
    data: str | None = None,
    csv: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Friendliness:
    """Say how friendly every block is to the run's device, from its whole networks alone.

    A pinned campaign is judged by the one-factor estimator. Of an imported table of blocks the
    latency effects are the exact sums; accuracy needs networks to score, and takes random ones.

    Args:
        run: a run folder.
        accuracy: an accuracy source: ``supernet:``, ``table:``, ``predictor:``, ``proxy:``, or an
            :class:`hwprof.protocols.AccuracySource` of your own; without one imported accuracies
            are used where the run has them.
        data: images for ``supernet:``, where the checkpoint's own cannot be found.
        csv: also write the effects to this file.
        progress: called while networks are scored.
    """
    from hwprof.estimate.run_analysis import run_friendliness

    with Run.open(run) as opened:
        result = run_friendliness(opened, scored_samples(opened, accuracy, data, progress))
    if csv is not None:
        write_file(Path(csv), result.to_csv().encode())
    return result


def compare_effects(
    runs: Sequence[str | Path],
    *,
    accuracy: str | AccuracySource | None = None,
    data: str | None = None,
    csv: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> EffectsComparison:
    """Put the effects of several runs side by side: rank correlations, and verdicts that flip.

    Args:
        runs: folders of two or more runs of one space at one input size.
        accuracy: an accuracy source for all of them, as in :func:`effects`.
        data: images for ``supernet:``.
        csv: also write the effects of all devices to this file, after a column ``device``.
        progress: called while networks are scored.

    Raises:
        IncompatibleRunError: the runs differ in space, input size, depths or candidates.
    """
    from hwprof.estimate.comparing import DeviceEffects, compare_devices
    from hwprof.estimate.run_analysis import run_friendliness

    found = []
    for path in runs:
        with Run.open(path) as run:
            samples = scored_samples(run, accuracy, data, progress)
            found.append((path, run_friendliness(run, samples), run.networks()))
    shared = Counter(friendliness.device for _, friendliness, _ in found)
    result = compare_devices(
        [
            DeviceEffects(
                name=f.device if shared[f.device] == 1 else f"{f.device} ({path})",
                run=str(path),
                friendliness=f,
                samples=measured,
            )
            for path, f, measured in found
        ]
    )
    if csv is not None:
        write_file(Path(csv), result.to_csv().encode())
    return result
