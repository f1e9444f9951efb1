"""``quickstart``: the main job from end to end, in a few minutes, on the machine at hand."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from hwprof.api.device_checks import device_fingerprint
from hwprof.api.files import make_folder, refuse_search_folder, write_file
from hwprof.api.friendliness import effects
from hwprof.api.profiling import profile
from hwprof.api.reducing import reduce
from hwprof.api.reporting import front_hypervolume, hypervolume_reference, report
from hwprof.api.searching import load_search, search, train
from hwprof.errors import IncompatibleRunError, StoreError
from hwprof.measure.records import DeviceOptions
from hwprof.progress import Progress, ProgressCallback
from hwprof.results import SearchResult
from hwprof.store.folder import RUN_FILE, RunFile

STAGES = ("train", "profile", "effects", "reduce", "search", "report")
STRATEGIES = ("random", "nsga2")


@dataclass(frozen=True, kw_only=True)
class QuickstartSettings:
    """Sized so that the whole job takes a few minutes on two cores."""

    space: str = "mobile-mini"
    networks: int | None = None
    """None takes the default of ``hwprof profile``."""
    max_evals: int = 64
    n_finalists: int = 8
    max_accuracy_drop_pp: float = 1.0
    preset: str = "quick"
    epochs: int | None = None
    batch: int = 1
    """Batch size of every latency: one front a batch size, each in a folder of its own."""


@dataclass(frozen=True, kw_only=True)
class QuickstartResult:
    """Where the page is, and the figures of the job."""

    page: Path
    seconds: dict[str, float]
    n_networks: int
    holdout: dict[str, float] | None
    hypervolume: dict[str, float]
    n_drops: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {
            "page": str(self.page),
            "seconds": self.seconds,
            "n_networks": self.n_networks,
            "holdout": self.holdout,
            "hypervolume": self.hypervolume,
            "n_drops": self.n_drops,
        }


class _Journal:
    """``quickstart.json``: what was asked, and the seconds spent in every stage so far."""

    def __init__(self, folder: Path, request: dict[str, Any]) -> None:
        self.path = folder / "quickstart.json"
        self.request = request
        self.seconds: dict[str, float] = {}
        if self.path.exists():
            try:
                known = json.loads(self.path.read_text())
                # What a setting was before there was a choice.
                earlier = {**asdict(QuickstartSettings()), **known["request"]}
                self.seconds = known["seconds"]
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise StoreError(
                    f"{str(self.path)!r} cannot be read ({error}); name another --out"
                ) from error
            for name, asked in request.items():
                if earlier.get(name) != asked:
                    raise StoreError(
                        f"{str(folder)!r} holds a quickstart with {name} {earlier.get(name)!r}, "
                        f"not {asked!r}; name another --out, or ask for the same"
                    )

    def spend(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        content = {"format": 1, "request": self.request, "seconds": self.seconds}
        write_file(self.path, json.dumps(content, indent=1).encode())


def quickstart(
    out: str | Path = "quickstart",
    *,
    device: str = "cpu",
    data: str | None = None,
    seed: int = 0,
    settings: QuickstartSettings | None = None,
    progress: ProgressCallback | None = None,
) -> QuickstartResult:
    """Do the main job: train, profile, effects, reduce, search, report.

    Every stage leaves its result in ``out`` and is skipped when it is there: interrupted and
    called again, the job goes on.

    Args:
        out: the folder.
        device: a name that ``hwprof devices`` lists.
        data: images to train on; by default scikit-learn's digits.
        seed: fixes everything random.
        settings: sizes of the job.
        progress: called all the time.

    Raises:
        PlanError: there is no such device.
        DeviceUnavailableError: it is not there; nothing has been trained then.
        StoreError: the folder cannot be used, or holds a quickstart that was asked otherwise.
        IncompatibleRunError: it is that of another run, or of a search.
    """
    from hwprof.devices import device_ref

    chosen = settings or QuickstartSettings()
    folder = Path(out)
    refuse_search_folder(folder)
    if os.path.exists(folder / RUN_FILE):
        raise IncompatibleRunError(
            f"{str(folder)!r} is a run of {RunFile.read(folder).kind!r}, not of a quickstart; name "
            "another --out"
        )
    make_folder(folder)
    journal = _Journal(folder, {**asdict(chosen), "device": device, "data": data, "seed": seed})
    # Before minutes of training, not behind them.
    device_fingerprint(device_ref(device, DeviceOptions(batch=chosen.batch)))

    @contextmanager
    def stage(name: str) -> Iterator[ProgressCallback | None]:
        started_s = time.monotonic()
        try:
            yield _prefixed(name, progress)
        finally:
            journal.spend(name, time.monotonic() - started_s)

    checkpoint, run, reduced = folder / "supernet.pt", folder / "profile", folder / "reduced.yaml"
    accuracy = f"supernet:{checkpoint}"
    with stage("train") as p:
        train(
            out=checkpoint,
            space=chosen.space,
            data=data,
            epochs=chosen.epochs,
            seed=seed,
            progress=p,
        )
    with stage("profile") as p:
        profiled = profile(
            space=chosen.space,
            out=run,
            device=device,
            networks=chosen.networks,
            preset=chosen.preset,
            batch=chosen.batch,
            seed=seed,
            progress=p,
        )
    with stage("effects") as p:
        found = effects(run, accuracy=accuracy, data=data, csv=folder / "effects.csv", progress=p)
    with stage("reduce") as p:
        reduction = reduce(
            run,
            accuracy=accuracy,
            data=data,
            max_accuracy_drop_pp=chosen.max_accuracy_drop_pp,
            out=reduced,
            progress=p,
        )
    searches: dict[str, SearchResult] = {}
    spaces = {"full": chosen.space, "reduced": str(reduced)}
    for (label, space), strategy in product(spaces.items(), STRATEGIES):
        name = f"{label}-{strategy}"
        place = folder / "search" / name
        with stage("search") as p:
            if (place / "search.json").exists():
                searches[name] = load_search(place)
                continue
            searches[name] = search(
                space=space,
                latency=run,
                accuracy=accuracy,
                out=place,
                strategy=strategy,
                max_evals=chosen.max_evals,
                measure_on=device,
                n_finalists=chosen.n_finalists,
                preset=chosen.preset,
                batch=chosen.batch,
                data=data,
                seed=seed,
                progress=p,
            )
    reference = hypervolume_reference(list(searches.values()))
    with stage("report") as p:
        page = report([folder], out=folder / "report", progress=p)
    return QuickstartResult(
        page=page,
        seconds={name: round(journal.seconds[name], 1) for name in STAGES},
        n_networks=found.n_networks,
        holdout=profiled.holdout.to_json() if profiled.holdout else None,
        hypervolume={
            name: front_hypervolume(result, reference)
            for name, result in searches.items()
            if reference is not None
        },
        n_drops=len(reduction.drops),
    )


def _prefixed(stage: str, progress: ProgressCallback | None) -> ProgressCallback | None:
    """Number the stages in what is shown, so that it is visible how many are left."""
    if progress is None:
        return None
    number = f"[{STAGES.index(stage) + 1}/{len(STAGES)}]"

    def show(event: Progress) -> None:
        progress(replace(event, stage=f"{number} {event.stage}"))

    return show
