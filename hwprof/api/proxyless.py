"""``search --strategy proxyless``: networks searched by gradient on the task itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from hwprof.api.latency_sources import is_table, predictions
from hwprof.api.runs import latency_model
from hwprof.errors import PlanError
from hwprof.measure.records import Result
from hwprof.progress import ProgressCallback
from hwprof.results import SearchResult
from hwprof.space import Architecture, DesignSpace, get_space
from hwprof.torch_import import needs_torch

if TYPE_CHECKING:
    from hwprof.estimate.latency_model import AdditiveLatencyModel

STRATEGY = "proxyless"


@dataclass(frozen=True, kw_only=True)
class ProxylessOptions:
    """What a ProxylessNAS search takes beside what every search takes.

    None stands for the published value (:class:`hwprof.search.proxyless.steps.ProxylessConfig`).

    Attributes:
        mode: ``recompute``, ``two-path`` or ``reinforce``.
        penalty: ``linear``, ``power``, ``hinge``, ``target`` or ``legacy_mul_log``; by default
            ``target`` where targets are named and no weights are, else ``linear``. Under
            ``hinge`` targets are ceilings.
        latency_weights: one search for each.
        targets_ms: latencies, one search for each, instead.
        supernet: a checkpoint of ``hwprof train --space`` to start from, instead of a warm-up;
            trained on the same images.
        warmup_epochs: of the supernet, before architecture parameters learn.
        epochs: of weights and architecture parameters in turn.
        retrain_epochs: of every derived network alone (the paper: 300); 0 judges it with the
            supernet's weights.
        train_batch: images of a training step.
        alpha_lr: learning rate of the architecture parameters.
        limit_images: images of each split of the data at most.
        train_device: ``cpu``, or ``cuda`` for training on a GPU.
        train_precision: ``fp32``, or ``bf16`` or ``fp16`` for mixed precision.
        compiled: retrain derived networks by ``torch.compile``.
    """

    mode: str = "recompute"
    penalty: str | None = None
    latency_weights: tuple[float, ...] = ()
    targets_ms: tuple[float, ...] = ()
    supernet: str | Path | None = None
    warmup_epochs: int | None = None
    epochs: int | None = None
    retrain_epochs: int = 0
    train_batch: int | None = None
    alpha_lr: float | None = None
    limit_images: int | None = None
    train_device: str = "cpu"
    train_precision: str = "fp32"
    compiled: bool = False


def refuse_options(options: ProxylessOptions, strategy: str) -> None:
    """Refuse options of proxyless that another strategy would ignore.

    Raises:
        PlanError: naming those that are not what they are by default.
    """
    # The command line always hands them over, as they are unless named.
    named = [
        f"--{field.name.replace('_', '-')}"
        for field in fields(options)
        if getattr(options, field.name) != field.default
    ]
    if named:
        raise PlanError(
            f"options of proxyless ({', '.join(named)}) mean nothing to {strategy}; leave "
            f"them out, or search with --strategy {STRATEGY}"
        )


def search_proxyless(
    space: DesignSpace,
    *,
    latency: str | Path,
    accept: Callable[[AdditiveLatencyModel, str], None],
    data: str | None,
    options: ProxylessOptions,
    target_ms: float | None,
    folder: Path,
    measure: Callable[[Sequence[Architecture]], list[Result]] | None,
    n_finalists: int,
    device: str | None,
    seed: int,
    progress: ProgressCallback | None,
) -> SearchResult:
    """Run the searches of a sweep; arguments as in :func:`hwprof.search`.

    ``accept`` is given a run's model and its device, and raises where it must not be used.
    """
    with needs_torch("a search that trains"):
        from hwprof.search.proxyless.front import Sweep, search_front
    from hwprof.search.data.tasks import load_task
    from hwprof.search.learning.parallel import process_group
    from hwprof.search.proxyless.steps import ProxylessConfig

    model, device_name = additive_model(latency, space, folder)
    if not is_table(latency):
        accept(model, device_name)
    targets_ms = options.targets_ms or ((target_ms,) if target_ms is not None else ())
    given = {
        "warmup_epochs": options.warmup_epochs,
        "epochs": options.epochs,
        "batch": options.train_batch,
        "alpha_lr": options.alpha_lr,
    }
    config = ProxylessConfig(
        mode=options.mode,  # type: ignore[arg-type]  # checked there, by name
        seed=seed,
        device=options.train_device,
        precision=options.train_precision,  # type: ignore[arg-type]  # checked there, by name
        compiled=options.compiled,
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    sweep = Sweep(
        kind=options.penalty,  # type: ignore[arg-type]  # checked by Penalty, by name
        weights=options.latency_weights,
        targets_s=tuple(ms / 1e3 for ms in targets_ms),
    )

    with process_group(config.device):
        return search_front(
            space,
            load_task(
                data or "digits",
                resolution_px=space.resolution_px,
                limit_images=options.limit_images,
            ),
            model,
            config,
            sweep,
            latency=predictions(model),
            folder=folder,
            warmup=Path(options.supernet) if options.supernet is not None else None,
            retrain_epochs=options.retrain_epochs,
            measure=measure,
            n_finalists=n_finalists,
            device=device or device_name,
            progress=progress,
        )


def additive_model(
    source: str | Path, space: DesignSpace, folder: Path
) -> tuple[AdditiveLatencyModel, str]:
    """Return the additive model of a run, or of a table of networks or of blocks.

    A table is imported into ``folder``, as ``hwprof import`` would do it.
    """
    if is_table(source):
        from hwprof.importing import import_csv

        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise PlanError(
                f"several processes cannot import {str(source)!r} at once; run `hwprof import` "
                "first and name its folder with --latency"
            )
        whole = get_space(space.name, space.resolution_px)
        run = folder / "latency-table"
        import_csv(Path(source), whole, Path(source).name, run).close()
        return latency_model(run)
    return latency_model(source)
