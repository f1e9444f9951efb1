"""From a sweep of ProxylessNAS searches to a front: train, derive, judge, measure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hwprof.errors import PlanError
from hwprof.progress import ProgressCallback
from hwprof.results import SearchResult, TargetOutcome
from hwprof.search.data.tasks import ImageTask
from hwprof.search.events import Event, NetworkDerived
from hwprof.search.finalists import Measure
from hwprof.search.journal import require_same_search, usable
from hwprof.search.judging import Latency
from hwprof.search.learning import parallel
from hwprof.search.learning.training import train_network, train_supernet
from hwprof.search.proxyless.choices import Choices
from hwprof.search.proxyless.expected_latency import ExpectedLatency, LatencyTable
from hwprof.search.proxyless.penalties import Penalty, PenaltyKind
from hwprof.search.proxyless.search import (
    Derived,
    Judged,
    batches_of,
    retrain_settings,
    search_name,
    search_network,
    warmup_settings,
)
from hwprof.search.proxyless.steps import ProxylessConfig
from hwprof.search.proxyless.target import require_in_range
from hwprof.search.runner import request_of, run_search
from hwprof.search.strategy import Evaluate, Outcome
from hwprof.space import Architecture, DesignSpace, network_id

STRATEGY = "proxyless"
DEFAULT_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Latency weights of a sweep that names none, around the released script's 0.1."""
CEILING_WEIGHT = 1.0
"""Latency weight of a search for a ceiling: steep enough that cross-entropy rarely outweighs it.
Also of every search of another penalty where several targets are named, and no weight."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The searches whose networks make a front: one for each weight, or one for each target.

    Where targets are named and weights are not, networks come to them (``target``), unless ``kind``
    says otherwise: ceilings are ``hinge``. Beside weights a target is the reference T.
    """

    kind: PenaltyKind | None = None
    weights: tuple[float, ...] = ()
    targets_s: tuple[float, ...] = ()

    def penalties(self, reference_s: float) -> tuple[Penalty, ...]:
        """Return the penalty of every search.

        Args:
            reference_s: T where no target is named: the expectation of a fresh search.
        """
        kind: PenaltyKind = self.kind or (
            "target" if self.targets_s and not self.weights else "linear"
        )
        if kind == "target":
            return self._for_targets()
        if len(self.targets_s) > 1 and len(self.weights) > 1:
            raise PlanError(
                f"{len(self.targets_s)} targets and {len(self.weights)} latency weights were "
                "named; sweep one of the two"
            )
        single = len(self.targets_s) > 1 or (kind == "hinge" and bool(self.targets_s))
        weights = self.weights or ((CEILING_WEIGHT,) if single else DEFAULT_WEIGHTS)
        found = tuple(
            Penalty(kind=kind, weight=weight, target_s=target_s)
            for target_s in self.targets_s or (reference_s,)
            for weight in weights
        )
        if len(set(found)) < len(found):
            raise PlanError("a latency weight or target is named twice; name each once")
        return found

    def _for_targets(self) -> tuple[Penalty, ...]:
        if self.weights:
            raise PlanError(
                "a search for a target adapts its latency weight: leave --latency-weights out, or "
                "choose --penalty linear"
            )
        if not self.targets_s:
            raise PlanError("--penalty target needs a target: name it with --target-ms")
        if len(set(self.targets_s)) < len(self.targets_s):
            raise PlanError("a target is named twice; name each once")
        return tuple(Penalty(kind="target", weight=0.0, target_s=t) for t in self.targets_s)


def search_front(
    space: DesignSpace,
    task: ImageTask,
    model: LatencyTable,
    config: ProxylessConfig,
    sweep: Sweep,
    *,
    latency: Latency,
    folder: Path,
    warmup: Path | None = None,
    retrain_epochs: int = 0,
    measure: Measure | None = None,
    n_finalists: int = 16,
    device: str | None = None,
    progress: ProgressCallback | None = None,
) -> SearchResult:
    """Run every search of a sweep, measure the derived networks, and return their front.

    Called again after an interruption it goes on where it stopped, in training too.

    Args:
        space: a layer-wise space or a reduction of one.
        task: images of its resolution.
        model: the device's additive latency model
            (:class:`hwprof.search.proxyless.expected_latency.LatencyTable`).
        config: hyperparameters of every search.
        sweep: which searches.
        latency: predicts single networks with an interval, as for every strategy.
        folder: keeps everything: ``training/`` the checkpoints, the rest as every search does.
        warmup: a trained supernet to start from; without it one is trained here.
        retrain_epochs: train every derived network alone for so long (the paper: 300); 0 judges
            it with the supernet's weights.
        measure: measures the finalists.
        n_finalists: how many at most; first the networks that came to targets, whatever beats them.
        device: the name to record.
        progress: called as training and judging go on.

    Raises:
        SpaceError: the space has no supernet, or a block no latency.
        PlanError: the epochs hold no architecture step, two searches have the same name, no
            network of the space can come near a target, or nothing is retrained that was to be
            compiled.
        DataError: a loss is no number.
        IncompatibleRunError: the folder holds another search, or ``warmup`` is of another space
            or of other images.
        StoreError: ``folder`` cannot be used.
        DeviceError: not one finalist could be measured.
    """
    if config.compiled and not retrain_epochs:
        raise PlanError(
            "--compile is for retraining: warm-up and search run another path at every step, for "
            "which torch would compile anew; give --retrain-epochs, or leave --compile out"
        )
    config.require_alpha_steps(batches_of(config, task).per_epoch)
    expected = ExpectedLatency(model, space)
    fresh = Choices(space, seed=config.seed)
    penalties = sweep.penalties(expected(fresh.probabilities()).item())
    names = names_of(config, penalties)
    for penalty in penalties:
        if penalty.kind == "target":
            require_in_range(expected, space, penalty.target_s)
    settings = {
        **config.to_json(),
        "penalties": [asdict(p) for p in penalties],
        "retrain_epochs": retrain_epochs,
        "images": task.digest,
        "latency": expected.digest,
    }
    # Before hours of training, at the end of which it would be refused.
    require_same_search(
        folder,
        request_of(space, strategy=STRATEGY, settings=settings, target_s=None, seed=config.seed),
    )
    training = folder / "training"
    with usable(folder):
        training.mkdir(parents=True, exist_ok=True)
    training_s = 0.0
    if warmup is None:
        warmup = training / "warmup.pt"
        warm = train_supernet(space, task, warmup_settings(config, task), warmup, progress=progress)
        training_s += warm.meta.seconds
    found: list[Derived] = []
    for name, penalty in zip(names, penalties, strict=True):
        found.append(
            search_network(
                space,
                task,
                expected,
                penalty,
                config,
                warmup=warmup,
                out=training / f"{name}.pt",
                progress=progress,
            )
        )
    accuracy = _inherited(found, space)
    training_s += sum(d.seconds for d in found)
    if retrain_epochs:
        accuracy, seconds = _retrained(accuracy, task, config, retrain_epochs, training, progress)
        training_s += seconds
    if parallel.rank():
        # The others have trained their share; one process judges, measures and writes.
        raise SystemExit(0)
    proposals = _Proposals(archs=tuple(accuracy.archs.values()), settings=settings)
    # Whether a target was hit is for the device to say, also of networks that others beat.
    aimed = [d for d, p in zip(found, penalties, strict=True) if p.kind == "target"]
    always: list[Judged] = [*aimed, *(d.faster for d in aimed if d.faster is not None)]
    result = run_search(
        space,
        proposals,
        accuracy=accuracy,
        latency=latency,
        latency_source="predicted",
        max_evals=len(proposals.archs),
        measure=measure,
        n_finalists=n_finalists,
        always=[accuracy.archs[space.canonical(d.arch).arch_id] for d in always],
        seed=config.seed,
        device=device,
        progress=progress,
        folder=folder,
        course=_course(found, folder),
        training_s=training_s,
    )
    return replace(result, targets=_targets(found, penalties, expected, result))


def names_of(config: ProxylessConfig, penalties: Sequence[Penalty]) -> tuple[str, ...]:
    """Return the name of every search of a sweep; their checkpoints are called so.

    Raises:
        PlanError: two searches would write one checkpoint.
    """
    names = tuple(search_name(config, penalty) for penalty in penalties)
    if len(set(names)) < len(names):
        raise PlanError(
            "two latency weights or targets are equal to four digits; name them further apart"
        )
    return names


@dataclass(frozen=True, kw_only=True)
class DerivedAccuracy:
    """Accuracies of the networks that searches came to: on validation and on test images."""

    name: str
    archs: Mapping[str, Architecture]
    """By the identity of the canonical encoding."""
    validation_pct: Mapping[str, float]
    test_pct: Mapping[str, float]

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that identify networks and accuracies."""
        content = json.dumps([self.name, dict(self.validation_pct), dict(self.test_pct)])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def score(self, archs: Sequence[Architecture]) -> list[float | None]:
        """Return validation top-1 in percent."""
        return [self.validation_pct[a.arch_id] for a in archs]

    def test_score(self, archs: Sequence[Architecture]) -> list[float | None]:
        """Return top-1 in percent on images that nothing has seen."""
        return [self.test_pct[a.arch_id] for a in archs]


class _Proposals:
    """A strategy that has decided already: it proposes the derived networks."""

    name = STRATEGY

    def __init__(self, *, archs: tuple[Architecture, ...], settings: Mapping[str, Any]) -> None:
        self.archs = archs
        self.settings = settings
        self._n_told = 0
        self._asked: tuple[Architecture, ...] = ()

    @property
    def done(self) -> bool:
        return self._n_told >= len(self.archs)

    def ask(self, n: int) -> Evaluate:
        self._asked = self.archs[self._n_told : self._n_told + n]
        return Evaluate(archs=self._asked)

    def tell(self, outcome: Outcome) -> None:
        self._n_told += len(self._asked)

    def state_dict(self) -> dict[str, Any]:
        return {"n_told": self._n_told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._n_told = int(state["n_told"])


def _inherited(found: Sequence[Derived], space: DesignSpace) -> DerivedAccuracy:
    """Return the accuracies under supernet weights; of two searches' same network the better."""
    best: dict[str, Judged] = {}
    for network in (n for d in found for n in (d, d.faster) if n is not None):
        key = space.canonical(network.arch).arch_id
        if key not in best or network.validation_pct > best[key].validation_pct:
            best[key] = network
    return DerivedAccuracy(
        name="proxyless:supernet",
        archs={key: d.arch for key, d in best.items()},
        validation_pct={d.arch.arch_id: d.validation_pct for d in best.values()},
        test_pct={d.arch.arch_id: d.test_pct for d in best.values()},
    )


def _retrained(
    inherited: DerivedAccuracy,
    task: ImageTask,
    config: ProxylessConfig,
    epochs: int,
    folder: Path,
    progress: ProgressCallback | None,
) -> tuple[DerivedAccuracy, float]:
    settings = retrain_settings(config, task, epochs=epochs)
    validation: dict[str, float] = {}
    test: dict[str, float] = {}
    seconds = 0.0
    for arch in inherited.archs.values():
        out = folder / f"network-{arch.arch_id}.pt"
        summary = train_network(arch, task, settings, out, progress=progress)
        assert summary.meta.figures is not None
        validation[arch.arch_id] = summary.meta.figures["validation_pct"]
        test[arch.arch_id] = summary.meta.figures["test_pct"]
        seconds += summary.meta.seconds
    accuracy = DerivedAccuracy(
        name=f"proxyless:retrained {epochs} epochs",
        archs=inherited.archs,
        validation_pct=validation,
        test_pct=test,
    )
    return accuracy, seconds


def _course(found: Sequence[Derived], folder: Path) -> tuple[Event, ...]:
    events: list[Event] = []
    for derived in found:
        events += derived.course
        networks = [(derived.name, derived.arch)]
        if derived.faster is not None:
            networks.append((f"{derived.name}-faster", derived.faster.arch))
        checkpoint = str(derived.checkpoint.relative_to(folder))
        events.extend(
            NetworkDerived(search=name, arch=arch, checkpoint=checkpoint) for name, arch in networks
        )
    return tuple(events)


def _targets(
    found: Sequence[Derived],
    penalties: Sequence[Penalty],
    latency: ExpectedLatency,
    result: SearchResult,
) -> tuple[TargetOutcome, ...]:
    """Say how near to its target each search came, as predicted and, where it was, as measured."""
    # What was measured comes last, and stays.
    trials = {network_id(t.arch): t for t in (*result.trials, *result.finalists)}
    outcomes = []
    for derived, penalty in zip(found, penalties, strict=True):
        if penalty.kind != "target":
            continue
        trial = trials.get(network_id(derived.arch))
        measured = trial if trial is not None and trial.latency_source == "measured" else None
        last = derived.course[-1]
        outcomes.append(
            TargetOutcome(
                name=derived.name,
                arch=derived.arch,
                target_s=penalty.target_s,
                expected_s=last.expected_s,
                argmax_s=last.argmax_s,
                predicted_s=latency.of([derived.arch])[0],
                is_limiting=derived.is_limiting,
                accuracy_pct=None if trial is None else trial.accuracy_pct,
                measured_s=None if measured is None else measured.latency_s,
                ci95_s=None if measured is None else measured.ci95_s,
                faster=None
                if derived.faster is None
                else trials.get(network_id(derived.faster.arch)),
            )
        )
    return tuple(outcomes)
