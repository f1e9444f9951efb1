"""``train`` and ``search``: accuracies that are real, and the front that comes of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.api.files import write_file
from hwprof.api.finalists import (
    N_FINALISTS,
    FinalistMeasurer,
    identity,
    make_search_folder,
    open_measurer,
)
from hwprof.api.latency_sources import LatencyModelCheck, open_latency
from hwprof.api.models import as_architecture, as_space
from hwprof.api.proxyless import STRATEGY as PROXYLESS
from hwprof.api.proxyless import ProxylessOptions, refuse_options, search_proxyless
from hwprof.api.runs import refuse_untrained
from hwprof.errors import PlanError, StoreError
from hwprof.measure.records import DeviceOptions, Fingerprint, Precision
from hwprof.progress import ProgressCallback
from hwprof.protocols import AccuracySource
from hwprof.results import SearchResult, TargetOutcome, Trial
from hwprof.space import Architecture, DesignSpace, space_of
from hwprof.torch_import import needs_torch

if TYPE_CHECKING:
    from hwprof.search.learning.training import TrainSummary

DEFAULT_EVALS = 200
TE_NAS = "te-nas"


def train(
    *,
    out: str | Path,
    space: str | DesignSpace | None = None,
    arch: Architecture | str | None = None,
    data: str | None = None,
    epochs: int | None = None,
    max_time_s: float | None = None,
    seed: int = 0,
    compiled: bool = False,
    progress: ProgressCallback | None = None,
) -> TrainSummary:
    """Train a single-path supernet of ``space``, or one network ``arch``; go on if interrupted.

    Args:
        out: the checkpoint to write.
        space: the space (or reduced space) whose supernet is trained.
        arch: train this one network instead.
        data: a folder of class folders, an ``.npz``, or ``digits`` (the default).
        epochs: passes over the training images; by default what suits the data.
        max_time_s: end at the first whole epoch after this long.
        seed: fixes weights, paths and batches.
        compiled: train ``arch`` by ``torch.compile``.
        progress: called as training goes on.

    Raises:
        MissingExtraError: torch is not installed.
        PlanError: both a space and a network are named, or neither; or a space is to be compiled.
        CompileError: torch does not compile the network.
        StoreError: another training is writing ``out``, or it cannot be written.
    """
    from hwprof.search.data.tasks import load_task

    with needs_torch("training"):
        from hwprof.search.learning.training import default_settings, train_network, train_supernet
    if (space is None) == (arch is None):
        raise PlanError("train takes either --space (a supernet) or --arch (one network)")
    network = as_architecture(arch) if arch is not None else None
    if network is not None:
        design = space_of(network)
    else:
        assert space is not None
        design = as_space(space)
    task = load_task(data or "digits", resolution_px=design.resolution_px)
    settings = default_settings(
        task, epochs=epochs, max_time_s=max_time_s, seed=seed, compiled=compiled
    )
    if network is not None:
        return train_network(network, task, settings, Path(out), progress=progress)
    return train_supernet(design, task, settings, Path(out), progress=progress)


def search(
    *,
    space: str | DesignSpace,
    latency: str | Path,
    accuracy: str | AccuracySource | None = None,
    out: str | Path | None = None,
    strategy: str = "nsga2",
    target_ms: float | None = None,
    max_evals: int | None = None,
    max_time_s: float | None = None,
    measure_on: str | None = None,
    allow_emulated: bool = False,
    n_finalists: int | None = None,
    preset: str | None = None,
    timeout_s: float | None = None,
    threads: int = 1,
    batch: int = 1,
    precision: Precision = "fp32",
    allow_other_device: bool = False,
    data: str | None = None,
    seed: int = 0,
    script: str | None = None,
    proxyless: ProxylessOptions | None = None,
    progress: ProgressCallback | None = None,
) -> SearchResult:
    """Search a space for the best trades of accuracy against latency.

    Args:
        space: a space, its name, or the file of a reduced one.
        latency: a run folder (its latency model is used) or a CSV with ``arch`` and a latency.
        accuracy: an accuracy source, as in :func:`hwprof.effects`; ``proxyless`` trains instead.
        out: a folder that keeps events, checkpoint, measurements and ``search.json``;
            called again it goes on.
        strategy: ``model-guided``, ``nsga2``, ``evolution``, ``ddpnas``, ``random``, one of another
            package (entry point in the group ``hwprof.strategies``), or ``proxyless``, which trains on ``data`` and takes ``proxyless`` in place of
            ``accuracy``, ``max_evals`` and ``max_time_s``.
        target_ms: networks slower than this are not wanted; a ``proxyless`` network comes to within
            5 % of it (a ceiling under ``hinge``; beside latency weights their reference T).
        max_evals: distinct networks whose accuracy is judged; 200 by default.
        max_time_s: stop judging after this long.
        measure_on: measure the finalists on this device, so that the front is of measured
            networks; without it the front says it is unconfirmed.
        allow_emulated: take the times of an emulated device, which are refused otherwise.
        n_finalists: how many are measured at most; 16 by default.
        preset: of the measuring; ``quick`` by default.
        timeout_s: of the measuring: longest a single step may take; 120 s by default.
        threads: of the measuring.
        batch: of the measuring.
        precision: of the measuring.
        allow_other_device: search with the latency model of another device, or of other
            options, than the finalists are measured with.
        data: images for ``supernet:`` and ``proxyless``.
        seed: fixes the search.
        script: steers the ``null`` device only.
        proxyless: of that strategy; by default the published settings.
        progress: called as the search goes on.

    Raises:
        PlanError: an option is out of range, or means nothing to the strategy, or without a
            device to measure on.
        DeviceError: ``measure_on`` is not there.
        IncompatibleRunError: the latency model is of another space, or not that of ``measure_on``
            and its options, or ``out`` holds another run.
    """
    import numpy as np

    from hwprof.search.runner import run_search
    from hwprof.search.scoring.accuracy import open_accuracy
    from hwprof.search.strategy import make_strategy, require_strategy

    require_strategy(strategy)
    _require_meaning(
        strategy,
        accuracy=accuracy,
        max_evals=max_evals,
        max_time_s=max_time_s,
        target_ms=target_ms,
        out=out,
        proxyless=proxyless,
    )
    options = DeviceOptions(threads=threads, batch=batch, precision=precision, script=script)
    target_s = target_seconds(target_ms)
    design = as_space(space)
    folder = Path(out) if out is not None else None
    measure = open_measurer(
        folder,
        measure_on,
        options,
        preset=preset,
        timeout_s=timeout_s,
        n_finalists=n_finalists,
        allow_emulated=allow_emulated,
        what="a front measured there",
        seed=seed,
        progress=progress,
    )
    if folder is not None:
        make_search_folder(folder, measure)
    n_finalists = N_FINALISTS if n_finalists is None else n_finalists
    shown_device = measure.device if measure else None
    accept = LatencyModelCheck(
        run=latency,
        space=design,
        measure_on=None if allow_other_device else measure_on,
        options=options,
        allow_emulated=allow_emulated,
    )
    if strategy == PROXYLESS:
        assert folder is not None
        result = search_proxyless(
            design,
            latency=latency,
            accept=accept,
            data=data,
            options=proxyless or ProxylessOptions(),
            target_ms=target_ms,
            folder=folder,
            measure=measure,
            n_finalists=n_finalists,
            device=shown_device,
            seed=seed,
            progress=progress,
        )
        return _finished(result, folder, accept.fingerprint, measure)
    assert accuracy is not None
    predicted, device_name = open_latency(latency, accept)
    rng = np.random.default_rng(seed)
    result = run_search(
        design,
        make_strategy(strategy, design, rng, target_s=target_s),
        accuracy=open_accuracy(accuracy, data=data),
        latency=predicted,
        max_evals=DEFAULT_EVALS if max_evals is None else max_evals,
        max_time_s=max_time_s,
        target_s=target_s,
        measure=measure,
        n_finalists=n_finalists,
        seed=seed,
        device=shown_device or device_name,
        progress=progress,
        folder=folder,
        latency_source="predicted" if device_name is not None else "table",
    )
    return _finished(result, folder, accept.fingerprint, measure)


def _finished(
    result: SearchResult,
    folder: Path | None,
    predicted_by: Fingerprint | None,
    measure: FinalistMeasurer | None,
) -> SearchResult:
    """Note what predicted and what measured, and keep the result."""
    result = replace(
        result,
        latency_fingerprint=identity(predicted_by),
        measured_fingerprint=identity(measure.fingerprint) if measure else None,
    )
    if folder is not None:
        save_search(folder, result)
    return result


def _require_meaning(
    strategy: str,
    *,
    accuracy: str | AccuracySource | None,
    max_evals: int | None,
    max_time_s: float | None,
    target_ms: float | None,
    out: str | Path | None,
    proxyless: ProxylessOptions | None,
) -> None:
    """Refuse options that would change nothing, and a search that lacks what it needs."""
    from hwprof.search.scoring.accuracy import KINDS

    if strategy == PROXYLESS:
        if accuracy is not None:
            raise PlanError(
                f"--accuracy {accuracy!r} means nothing to proxyless, which trains; start it from "
                "a supernet with --supernet CHECKPOINT"
            )
        if max_evals is not None:
            raise PlanError(
                f"--max-evals {max_evals} means nothing to proxyless, which comes to one network "
                "in each search; set how many with --latency-weights or --targets-ms"
            )
        if max_time_s is not None:
            raise PlanError(
                "--max-time means nothing to proxyless, which trains whole epochs; set "
                "--warmup-epochs and --epochs (interrupted, the same command goes on)"
            )
        if out is None:
            raise PlanError("a proxyless search keeps checkpoints: name a folder with --out")
        if target_ms is not None and proxyless is not None and proxyless.targets_ms:
            raise PlanError("--target-ms and --targets-ms both name targets; give one of them")
    elif strategy == TE_NAS:
        raise PlanError(
            "te-nas comes to one network and to no accuracy, so to no front; call "
            "hwprof.api.search_te_nas"
        )
    else:
        if proxyless is not None:
            refuse_options(proxyless, strategy)
        if accuracy is None:
            raise PlanError(f"{strategy} needs accuracies: name them with --accuracy ({KINDS})")


def target_seconds(target_ms: float | None) -> float | None:
    """Return a target in seconds.

    Raises:
        PlanError: it is no latency above 0.
    """
    if target_ms is not None and not (math.isfinite(target_ms) and target_ms > 0.0):
        raise PlanError(f"--target-ms is {target_ms:g}; expected a latency above 0 ms")
    return None if target_ms is None else target_ms / 1e3


def save_search(folder: Path, result: SearchResult) -> None:
    """Write ``search.json``: the front, the finalists, every trial, the ledger."""
    data = {
        "format": 1,
        **result.to_json(),
        "trials": [t.to_row() for t in result.trials],
    }
    write_file(folder / "search.json", json.dumps(data, indent=1).encode())


def load_search(folder: str | Path) -> SearchResult:
    """Read what :func:`hwprof.search` wrote into a folder.

    Raises:
        StoreError: there is no search in the folder, or none with a front, or of another version.
    """
    refuse_untrained(Path(folder))
    path = Path(folder) / "search.json"
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StoreError(
            f"{str(folder)!r} holds no finished search (search.json: {reason}); expected the --out "
            "of `hwprof search`, which goes on where it was interrupted when it is called again"
        ) from error
    version = data.get("format") if isinstance(data, dict) else None
    if version != 1:
        raise StoreError(f"{str(path)!r} has format {version!r}; this version reads 1")
    try:
        return _result_of(data)
    except (AttributeError, KeyError, TypeError) as error:
        raise StoreError(
            f"{str(path)!r} is damaged ({error!r}); call the same `hwprof search` again"
        ) from error


def _result_of(data: Mapping[str, Any]) -> SearchResult:
    return SearchResult(
        space=data["space"],
        reduced=data["reduced"],
        strategy=data["strategy"],
        seed=data["seed"],
        device=data["device"],
        confirmed=data["confirmed"],
        front=tuple(Trial.from_row(r) for r in data["front"]),
        finalists=tuple(Trial.from_row(r) for r in data["finalists"]),
        trials=tuple(Trial.from_row(r) for r in data["trials"]),
        ledger=data["ledger"],
        settings=data["settings"],
        # Files of earlier versions have none of these.
        latency_fingerprint=data.get("latency_fingerprint"),
        measured_fingerprint=data.get("measured_fingerprint"),
        targets=tuple(TargetOutcome.from_row(r) for r in data.get("targets", ())),
    )
