"""Block effects on a GPU: is the choice of blocks flat and depth dominant, and until which batch?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hwprof.campaign import plan_campaign, run_campaign
from hwprof.devices import device_ref
from hwprof.errors import DataError
from hwprof.estimate.run_analysis import run_friendliness
from hwprof.measure.records import DeviceOptions, MeasurePlan
from hwprof.results import Effect, Sample
from hwprof.space import SKIP, get_space
from hwprof.store import Run
from tests.hardware.gpu_sections import Row

SPACES = ("ofa-mbv3-w1.2", "ofa-proxylessnas-w1.3")
DEVICE = "cuda"
PLAN = MeasurePlan(preset="gpu-check", workers=1, looks=(2,), burst_s=0.02, warmup_s=0.02)
"""One process and two bursts a network: what a network's own level lacks in certainty the
regression over all networks makes up for."""


def effects(out: Path, networks: int, batches: Sequence[int], deadline_s: float) -> Iterator[Row]:
    """Profile both spaces at every batch size, each with its share of the time that is left."""
    todo = [(space, batch) for batch in batches for space in SPACES]
    for number, (name, batch) in enumerate(todo):
        share_s = (deadline_s - time.monotonic()) / (len(todo) - number)
        what = f"{name}, batch {batch}"
        if share_s <= 0:
            yield Row(section="effects", what=f"{what}: no time was left", value="-", holds=False)
            continue
        yield from _effects(what, out / f"{name}-batch{batch}", name, batch, networks, share_s)


def _effects(
    what: str, folder: Path, name: str, batch: int, networks: int, share_s: float
) -> Iterator[Row]:
    campaign = plan_campaign(get_space(name), 0, networks, isolated=False)
    device = device_ref(DEVICE, DeviceOptions(batch=batch))
    with Run.create_or_resume(folder, "profile", campaign.request(device, PLAN)) as run:
        done = run_campaign(run, campaign, device, PLAN, max_time_s=share_s)
        samples = [s for s in run.networks() if s.latency_s is not None]
        yield Row(
            section="effects",
            what=f"{what}: networks measured ({done.n_failed} failed)",
            value=f"{len(samples)} of {networks}",
            bar=f"{done.n_left} left",
            holds=done.n_left == 0 and done.n_failed == 0,
        )
        if not samples:
            return
        yield _depths_share(what, samples)
        try:
            found = run_friendliness(run, samples).effects
        except DataError as error:  # the time was too short for that many coefficients
            yield Row(section="effects", what=f"{what}: {error}", value="-", holds=False)
            return
    mean_s = float(np.mean([s.latency_s for s in samples if s.latency_s is not None]))
    for kind, words in (("block", "a block's effect in its slot"), ("depth", "a layer more")):
        yield from _spread(what, kind, words, found, mean_s)


def _spread(
    what: str, kind: str, words: str, found: Sequence[Effect], mean_s: float
) -> Iterator[Row]:
    values = [100 * e.latency.value / mean_s for e in found if e.kind == kind and e.latency]
    if values:
        yield Row(
            section="effects",
            what=f"{what}: {words}, root mean square",
            value=f"{np.sqrt(np.mean(np.square(values))):.2f} % of the mean",
            bar=f"{min(values):+.1f} to {max(values):+.1f} %",
        )


def _depths_share(what: str, samples: Sequence[Sample]) -> Row:
    """Return how much of the latencies' variance the units' depths alone explain (R²)."""
    return Row(
        section="effects",
        what=f"{what}: variance that depths alone explain",
        value=f"{depths_r2(samples):.1%}",
    )


def depths_r2(samples: Sequence[Sample]) -> float:
    """Regress latency on every unit's number of layers, and return R²."""
    latency = np.array([s.latency_s for s in samples], dtype=np.float64)
    depths = [[sum(b != SKIP for b in unit) for unit in s.arch.units] for s in samples]
    design = np.column_stack([np.ones(len(samples)), np.array(depths, dtype=np.float64)])
    fitted = design @ np.linalg.lstsq(design, latency, rcond=None)[0]
    spread = float(np.square(latency - latency.mean()).sum())
    return 1.0 - float(np.square(latency - fitted).sum()) / spread if spread > 0 else 0.0
