"""``search --strategy te-nas``: one network, from what untrained networks say of themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwprof.api.files import write_file
from hwprof.api.finalists import identity, make_search_folder, open_measurer
from hwprof.api.latency_sources import LatencyModelCheck, open_latency
from hwprof.api.models import as_space
from hwprof.api.proxyless import ProxylessOptions, refuse_options
from hwprof.api.runs import TE_NAS_FILE
from hwprof.api.searching import TE_NAS, target_seconds
from hwprof.errors import DataError, DeviceError, HwprofError, PlanError
from hwprof.graph import architecture_cost
from hwprof.measure.records import DeviceOptions, Measurement, Precision
from hwprof.progress import ProgressCallback
from hwprof.results import LatencySource
from hwprof.space import Architecture, DesignSpace
from hwprof.torch_import import needs_torch

NETWORK_FILE = "network.json"


@dataclass(frozen=True, kw_only=True)
class UntrainedChoice:
    """The network that TE-NAS came to. It was not trained, and nothing here is an accuracy.

    Attributes:
        space: the space's name.
        seed: of the search.
        arch: the network.
        latency_s: as predicted, in seconds, with its 95 % interval ``ci95_s`` (None of a table).
        latency_source: ``predicted`` by a run's model, or looked up in a ``table``.
        device: what the prediction is for; None of a table.
        target_s: the most that was asked for.
        macs: multiply-accumulates of an image.
        params: trainable parameters.
        settings: of the indicators.
        n_rounds: rounds of pruning; ``events.jsonl`` has what was said of every candidate.
        seconds: what the search took, measuring apart.
        measured_on: the device that measured it, with ``measured_s``, its 95 % interval and the
            verdict; None where nothing did.
        latency_fingerprint: digest and stable facts of what the latency model was fitted on.
        measured_fingerprint: the same of what measured.
    """

    space: str
    seed: int
    arch: Architecture
    latency_s: float
    ci95_s: tuple[float, float] | None
    latency_source: LatencySource
    device: str | None
    target_s: float | None
    macs: int
    params: int
    settings: Mapping[str, Any]
    n_rounds: int
    seconds: float
    measured_on: str | None = None
    measured_s: float | None = None
    measured_ci95_s: tuple[float, float] | None = None
    verdict: str | None = None
    latency_fingerprint: Mapping[str, Any] | None = None
    measured_fingerprint: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof search --strategy te-nas --json``."""
        return {"strategy": TE_NAS, "is_trained": False, **vars(self), "arch": self.arch.to_json()}


def refuse_for_te_nas(proxyless: ProxylessOptions, **others: object) -> None:
    """Refuse options that mean nothing to TE-NAS.

    Args:
        proxyless: options of another strategy.
        others: options by name, None where they were not given.

    Raises:
        PlanError: naming those that were given.
    """
    given = [f"--{name.replace('_', '-')}" for name, v in others.items() if v is not None]
    if given:
        raise PlanError(
            f"{', '.join(given)}: te-nas judges no accuracy and comes to one network in a fixed "
            "number of rounds; leave it out"
        )
    refuse_options(proxyless, TE_NAS)


def search_te_nas(
    *,
    space: str | DesignSpace,
    latency: str | Path,
    out: str | Path,
    data: str | None = None,
    target_ms: float | None = None,
    measure_on: str | None = None,
    allow_emulated: bool = False,
    preset: str | None = None,
    timeout_s: float | None = None,
    threads: int = 1,
    batch: int = 1,
    precision: Precision = "fp32",
    allow_other_device: bool = False,
    seed: int = 0,
    script: str | None = None,
    progress: ProgressCallback | None = None,
) -> UntrainedChoice:
    """Choose one network of NAS-Bench-201 without training any.

    The folder gets ``network.json``, which every command takes as an ARCH, ``te-nas.json`` (what
    is returned) and ``events.jsonl``; called again after an interruption the search goes on.

    Args:
        space: ``nasbench201``, or the file of a reduced one.
        latency: a run folder (its latency model is used) or a CSV with ``arch`` and a latency.
        out: the folder.
        data: images that the indicators look at, as for training; labels go unused.
        target_ms: the network is predicted to take at most this.
        measure_on: measure the network on this device.
        allow_emulated: take the times of an emulated device, which are refused otherwise.
        preset: of the measuring; ``quick`` by default.
        timeout_s: of the measuring: longest a single step may take; 120 s by default.
        threads: of the measuring.
        batch: of the measuring.
        precision: of the measuring.
        allow_other_device: choose by the latency model of another device, or of other options.
        seed: fixes weights, images and patches.
        script: steers the ``null`` device only.
        progress: called as the search goes on.

    Raises:
        DataError: the network's latency is not known; it is kept. Or another's that a target needs.
        DeviceError: the device is not there, or the network could not be measured, which is kept.
        IncompatibleRunError: the latency model is of another space or device.
        MissingExtraError: torch is not installed.
        PlanError: no network is predicted to be within the target.
        SpaceError: the space is another one.
    """
    with needs_torch("indicators of untrained networks"):
        from hwprof.search.strategies.indicators import TeNasConfig, Untrained
    from hwprof.search.data.tasks import load_task
    from hwprof.search.strategies import te_nas

    design, folder, target_s = as_space(space), Path(out), target_seconds(target_ms)
    te_nas.require_cells(design)
    options = DeviceOptions(threads=threads, batch=batch, precision=precision, script=script)
    measurer = open_measurer(
        folder,
        measure_on,
        options,
        preset=preset,
        timeout_s=timeout_s,
        allow_emulated=allow_emulated,
        what="a network measured there",
        seed=seed,
        progress=progress,
    )
    make_search_folder(folder, measurer)
    accept = LatencyModelCheck(
        run=latency,
        space=design,
        measure_on=None if allow_other_device else measure_on,
        options=options,
        allow_emulated=allow_emulated,
    )
    predict, device = open_latency(latency, accept)
    task = load_task(data or "digits", resolution_px=design.resolution_px)
    config = TeNasConfig(seed=seed)
    found = te_nas.search_te_nas(
        design,
        Untrained(task=task, config=config),
        config,
        latency=predict,
        target_s=target_s,
        images=task.digest,
        folder=folder,
        progress=progress,
    )
    # The network first: predicting may fail (of a table with gaps), and so may measuring.
    write_file(folder / NETWORK_FILE, json.dumps(found.arch.to_json()).encode())
    kept = f"the network is kept in {str(folder / NETWORK_FILE)!r}"
    try:
        ((latency_s, half_s),) = predict([found.arch])
    except HwprofError as error:
        raise DataError(
            f"{error}: name another source with --latency and call the search again; {kept}"
        ) from error
    cost = architecture_cost(design, found.arch)
    choice = UntrainedChoice(
        space=design.name,
        seed=seed,
        arch=found.arch,
        latency_s=latency_s,
        ci95_s=None if device is None else (max(latency_s - half_s, 0.0), latency_s + half_s),
        latency_source="table" if device is None else "predicted",
        device=device,
        target_s=target_s,
        macs=cost.macs,
        params=cost.params,
        settings=found.settings,
        n_rounds=len(found.rounds),
        seconds=found.seconds,
        latency_fingerprint=identity(accept.fingerprint),
    )
    if measurer is not None:
        (result,) = measurer([found.arch])
        if not isinstance(result, Measurement):
            raise DeviceError(
                f"the network could not be measured ({result.kind} in {result.stage}: "
                f"{result.message}); mend the device and call the same search again: {kept}"
            )
        choice = replace(
            choice,
            measured_on=measurer.device,
            measured_s=result.level_s,
            measured_ci95_s=result.ci95_s,
            verdict=result.verdict,
            measured_fingerprint=identity(measurer.fingerprint),
        )
    write_file(folder / TE_NAS_FILE, json.dumps(choice.to_json(), indent=1).encode())
    return choice
