"""Synthetic results of a realistic shape, seeded, so that every part of a report can be drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwprof.estimate.crossval import HeldOut
from hwprof.interval import Interval
from hwprof.measure.records import Failure, Fingerprint
from hwprof.reports.places import Place, Timed
from hwprof.reports.views import (
    Campaign,
    Hypervolume,
    IsolatedBlock,
    ReportData,
    VerdictCount,
)
from hwprof.results import CoursePoint, Effect, Holdout, SearchCourse, SearchResult, Trial
from hwprof.space import Architecture, Slot, network_id
from hwprof.space.reduction import Drop, Reduction
from hwprof.workload import Workload

BLOCKS = tuple(f"mbconv_k{k}_e{e}" for e in (3, 4, 6) for k in (3, 5, 7))
DEPTHS = (4, 4, 4, 4, 4)


def around(value: float, half: float) -> Interval:
    return Interval(value, value - half, value + half)


def make_architecture(
    rng: np.random.Generator, blocks: tuple[str, ...] = BLOCKS, depths: tuple[int, ...] = DEPTHS
) -> Architecture:
    units = tuple(
        tuple(str(b) for b in rng.choice(blocks, size=int(rng.integers(2, depth + 1))))
        for depth in depths
    )
    return Architecture(space="ofa-mbv3-w1.2", resolution_px=224, units=units)


def block_cost(name: str, unit: int) -> tuple[float, float]:
    """A block's centred latency (s) and accuracy (pp), growing with kernel and expansion."""
    kernel, expand = int(name[8]), int(name[-1])
    latency_s = ((expand - 4.33) * 0.55 + (kernel - 5) * 0.25 * expand / 4) * 1e-3 / (1 + unit / 2)
    accuracy_pp = (expand - 4.33) * 0.04 * (1 + unit / 3) + (kernel - 5) * 0.01
    return latency_s, accuracy_pp


def make_effects(rng: np.random.Generator) -> tuple[Effect, ...]:
    effects = []
    for unit, depth in enumerate(DEPTHS):
        for layer in range(depth):
            half = 0.12 if layer < 2 else 0.2
            for block in BLOCKS:
                latency_s, accuracy_pp = block_cost(block, unit)
                effects.append(
                    Effect(
                        kind="block",
                        unit=unit,
                        layer=layer,
                        depth=None,
                        block=block,
                        latency=around(latency_s + rng.normal(0, half / 2) * 1e-3, half * 1e-3),
                        accuracy=around(accuracy_pp + rng.normal(0, 0.02), 0.04),
                        n_networks=513,
                    )
                )
        for reached in (3, 4):
            effects.append(
                Effect(
                    kind="depth",
                    unit=unit,
                    layer=None,
                    depth=reached,
                    block=None,
                    latency=around((4.5 / (1 + unit / 2)) * 1e-3, 2e-4),
                    accuracy=around(0.3 / (reached - 2), 0.05),
                    n_networks=513,
                )
            )
    for block in BLOCKS:
        latency_s = 15 * sum(block_cost(block, u)[0] for u in range(5)) / 5
        accuracy_pp = 15 * sum(block_cost(block, u)[1] for u in range(5)) / 5
        effects.append(
            Effect(
                kind="network",
                unit=None,
                layer=None,
                depth=None,
                block=block,
                latency=around(latency_s, 6e-4),
                accuracy=around(accuracy_pp, 0.15),
                n_networks=513,
            )
        )
    return tuple(effects)


def make_search(rng: np.random.Generator, strategy: str, *, reduced: bool) -> SearchResult:
    offset = 0.5 * reduced + 0.6 * (strategy == "nsga2")
    trials = []
    for latency_s in np.linspace(0.022, 0.056, 9 + 3 * (strategy == "nsga2")):
        measured_s = float(latency_s + rng.normal(0, 4e-4))
        trials.append(
            Trial(
                arch=make_architecture(rng),
                accuracy_pct=float(79.2 - 60 * np.exp(-latency_s * 130) + offset),
                accuracy_source="supernet:mini.pt",
                latency_s=measured_s,
                latency_source="measured",
                macs=int(latency_s * 1.5e10),
                params=int(4e6 + latency_s * 1e8),
                predicted_s=float(latency_s),
                ci95_s=(measured_s * 0.995, measured_s * 1.006),
                verdict="clean",
            )
        )
    return SearchResult(
        space="ofa-mbv3-w1.2",
        reduced=reduced,
        strategy=strategy,
        seed=0,
        device="cpu",
        front=tuple(trials),
        finalists=tuple(trials),
        trials=tuple(trials),
        confirmed=True,
        ledger={"evaluations": 200, "seconds": 61.0},
    )


def make_places(rng: np.random.Generator) -> tuple[Place, ...]:
    """Two devices, with a search for each, all of whose networks were timed on both."""
    searches = [make_search(rng, "nsga2", reduced=False) for _ in range(2)]
    trials = [t for s in searches for t in s.front]
    return tuple(
        Place(
            label=f"cpu (batch {batch})",
            digest=f"{batch:016x}",
            facts={"device": "cpu", "batch": batch, "threads": 1},
            searches=(search,),
            timed={
                network_id(t.arch): Timed(
                    level=around(t.latency_s * batch * rng.uniform(0.9, 1.1), 1e-4), verdict="clean"
                )
                for t in trials
            },
            side_by_side=True,
        )
        for batch, search in zip((1, 8), searches, strict=True)
    )


def make_course(rng: np.random.Generator, name: str, measured_s: float | None) -> SearchCourse:
    return SearchCourse(
        name=name,
        points=tuple(
            CoursePoint(
                step=100 * (i + 1),
                mean_entropy_nat=float(1.79 * np.exp(-i / 5)),
                expected_s=0.040 - 0.001 * i,
                argmax_s=0.038 - 0.001 * i,
                argmax_accuracy_pct=50.0 + 2.0 * i,
            )
            for i in range(8)
        ),
        arch=make_architecture(rng),
        measured_s=measured_s,
        accuracy_pct=70.0,
    )


def make_reduction() -> Reduction:
    kept = tuple(b for b in BLOCKS if "_k7_" not in b or b.endswith("e6"))
    alive = {
        Slot(unit, layer): kept
        for unit, depth in enumerate((4, 3, 4, 4, 4))
        for layer in range(depth)
    }
    return Reduction(
        space="ofa-mbv3-w1.2",
        resolution_px=224,
        device="cpu",
        fingerprint={"device": "cpu"},
        alive=alive,
        max_depth=(4, 3, 4, 4, 4),
        accuracy_budget_points=0.5,
        drops=(
            Drop(
                rule="R1 costly",
                block="mbconv_k7_e3",
                latency_s=around(6.46e-3, 9e-4),
                accuracy_pct=around(-0.05, 0.2),
                why="mbconv_k5_e3 is faster by more than 20 % of the mean and no less accurate",
            ),
            Drop(
                rule="R1 costly",
                block="mbconv_k7_e4",
                latency_s=around(7.9e-3, 9e-4),
                accuracy_pct=around(0.08, 0.21),
                why="mbconv_k5_e4 is faster by more than 20 % of the mean and no less accurate",
            ),
            Drop(
                rule="R3 depth",
                unit=1,
                depth=4,
                latency_s=around(3.0e-3, 2e-4),
                accuracy_pct=around(0.15, 0.05),
                why="accuracy per millisecond is below the average over all units",
            ),
        ),
        notes=("The accuracy budget is kept along the whole front of the fitted model.",),
    )


def make_fingerprint(**extra: Any) -> Fingerprint:
    return Fingerprint(
        stable={
            "device": "cpu",
            "hardware": "Intel Xeon Platinum 8481C",
            "cores": 2,
            "memory_bytes": 8_321_499_136,
            "os": "Debian GNU/Linux 12",
            "kernel": "6.1.0-28-amd64",
            "runtime": "onnxruntime",
            "runtime_version": "1.30.1",
            "provider": "CPUExecutionProvider",
            "threads": 1,
            "batch": 1,
            "precision": "fp32",
            **extra,
        },
        volatile={"steal_pct": 0.4, "load_1m": 0.31, "governor": None, "hwprof": "0.1.0"},
    )


def make_report_data(seed: int = 0, **changes: Any) -> ReportData:
    rng = np.random.default_rng(seed)
    effects = make_effects(rng)
    measured = rng.uniform(0.02, 0.075, size=140)
    parts: dict[str, Any] = {
        "title": "Mobile networks on a server CPU",
        "space": "ofa-mbv3-w1.2",
        "resolution_px": 224,
        "fingerprint": make_fingerprint(),
        "campaign": Campaign(
            n_networks=513,
            n_blocks=121,
            failures=(
                Failure(
                    workload=Workload.network(make_architecture(rng)),
                    stage="burst",
                    kind="hung",
                    message="no answer within 120 s; the worker was ended",
                    attempts=2,
                    retryable=True,
                ),
            ),
            seconds={"profile": 1304.2, "effects": 3.1, "search": 244.0},
        ),
        "verdicts": (
            VerdictCount(verdict="clean", n=566),
            VerdictCount(
                verdict="noisy", n=51, evidence=("interval ±2.6 % of the level; asked for ±2 %",)
            ),
            VerdictCount(
                verdict="contaminated",
                n=17,
                evidence=("foreign load of 0.41 cores; limit 0.2", "steal 3.2 %; limit 2 %"),
            ),
        ),
        "effects": effects,
        "mean_latency": around(0.0418, 0.0004),
        "mean_accuracy": around(77.46, 0.08),
        "accuracy_source": "supernet:mini.pt",
        "insights": (
            "Kernel 7 costs 6.2 ms more than kernel 5 and brings no accuracy that can be seen.",
            "Depth matters most in unit 0: its fourth layer adds 4.5 ms.",
        ),
        "isolated": tuple(
            IsolatedBlock(
                slot=Slot(unit, layer),
                block=block,
                isolated_hot_s=around(
                    2.2e-3 + 0.93 * block_cost(block, unit)[0] + rng.normal(0, 4e-5), 2e-5
                ),
            )
            for unit, depth in enumerate(DEPTHS)
            for layer in range(depth)
            for block in BLOCKS
        ),
        "holdout": Holdout(
            n=513,
            median_rel_error=0.013,
            within_5pct=0.97,
            within_10pct=1.0,
            spearman=0.996,
            coverage95=0.955,
        ),
        "predictions": tuple(
            HeldOut(
                actual_s=float(m),
                predicted_s=float(m * (1 + rng.normal(0, 0.018))),
                half_s=float(m * 0.036),
            )
            for m in measured
        ),
        "reduction": make_reduction(),
        "full_searches": tuple(make_search(rng, s, reduced=False) for s in ("random", "nsga2")),
        "reduced_searches": tuple(make_search(rng, s, reduced=True) for s in ("random", "nsga2")),
        "courses": (
            make_course(rng, "recompute-linear-w0", None),
            make_course(rng, "recompute-linear-w0.1", 0.0312),
        ),
        "hypervolumes": tuple(
            Hypervolume(strategy=s, reduced=r, value_s_pct=v)
            for s, r, v in (
                ("random", False, 0.211),
                ("nsga2", False, 0.239),
                ("random", True, 0.234),
                ("nsga2", True, 0.252),
            )
        ),
        "hypervolume_reference": (0.06, 72.0),
        "commands": (
            "hwprof profile --device cpu --space ofa-mbv3-w1.2 --out run",
            "hwprof reduce run --accuracy supernet:mini.pt --out reduced.yaml",
        ),
        "places": make_places(rng),
        "notes": ("Accuracies come from a supernet: they rank networks, they are not final.",),
    }
    return ReportData(**{**parts, **changes})


def shrink(data: ReportData) -> ReportData:
    """Keep the first unit's effects: every kind of figure, in a fraction of the time."""
    return replace(
        data,
        effects=tuple(e for e in data.effects if not e.unit),
        isolated=tuple(i for i in data.isolated if not i.slot.unit),
        predictions=data.predictions[:10],
    )


@pytest.fixture
def make_report() -> Callable[..., ReportData]:
    """Return the seeded builder; keyword arguments replace parts."""
    return make_report_data


@pytest.fixture(scope="session")
def report_data() -> ReportData:
    """Return a complete report's data."""
    return make_report_data()


@pytest.fixture(scope="session")
def small_data(report_data: ReportData) -> ReportData:
    """Return a complete report's data of one unit."""
    return shrink(report_data)


@pytest.fixture(scope="session")
def emulated_data(small_data: ReportData) -> ReportData:
    """Return results that an emulator gave."""
    return replace(small_data, fingerprint=make_fingerprint(emulated=True))


@pytest.fixture(scope="session")
def bare_data() -> ReportData:
    """Return what the smallest run gives: a machine, and nothing measured."""
    return ReportData(
        title="Nothing yet",
        space="mobile-mini",
        resolution_px=64,
        fingerprint=make_fingerprint(),
        campaign=Campaign(n_networks=0, n_blocks=0),
    )
