"""Campaigns of the pinned design, and of a half-width, over a priced engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from hwprof import api
from hwprof.api.profiling import ProfileResult
from hwprof.campaign import plan_campaign
from hwprof.errors import IncompatibleRunError, PlanError
from hwprof.estimate.design_matrix import DesignMatrix, n_coefficients
from hwprof.estimate.pinning import pins_of
from hwprof.estimate.precision import pilot_size
from hwprof.measure import engine
from hwprof.measure.records import Fingerprint, Measurement, MeasurePlan, Result
from hwprof.protocols import Sink
from hwprof.space import DesignSpace, get_space
from hwprof.store import Run
from hwprof.workload import Workload
from tests.core.pinned_truth import additive, design_of, tiny_space
from tests.made import measurement

FINGERPRINT = Fingerprint(stable={"device": "null", "runtime": "null"})


class PricedEngine:
    """Stands for the engine: every network takes what an additive truth says, plus noise."""

    def __init__(self, space: DesignSpace, noise_s: float = 1e-4) -> None:
        self.design = DesignMatrix(space)
        self.coefficients = additive(self.design)
        self.noise_s = noise_s
        self.n_measured = 0
        self.stop_after: int | None = None

    def __call__(
        self,
        workloads: Sequence[Workload],
        device: object,
        plan: MeasurePlan,
        *,
        sink: Sink,
        **_: object,
    ) -> Iterator[Result]:
        for workload in workloads[: self.stop_after]:
            self.n_measured += 1
            sink.opened(FINGERPRINT)
            result = self.measurement(workload, plan)
            sink.done(result)
            yield result

    def measurement(self, workload: Workload, plan: MeasurePlan) -> Measurement:
        level = 1e-3
        if workload.arch is not None:
            noise = np.random.default_rng(int(workload.key, 16)).normal(0.0, self.noise_s)
            codes = self.design.encode([workload.arch])
            level = float(self.design.predictions(self.coefficients, codes)[0]) + noise
        ci95_s = (0.99 * level, 1.01 * level)
        return measurement(workload, level, ci95_s, plan=plan, fingerprint=FINGERPRINT)


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> PricedEngine:
    made = PricedEngine(tiny_space())
    monkeypatch.setattr(engine, "measure", made)
    return made


def test_a_pinned_campaign_grows_and_keeps_its_design() -> None:
    space = get_space("mobile-mini")
    few = plan_campaign(space, seed=1, n_networks=2, isolated=False, design="pinned")
    more = plan_campaign(space, seed=1, n_networks=5, isolated=False, design="pinned")
    assert few.networks == more.networks[: len(few.networks)]
    n_samples = 1 + len(pins_of(design_of("mobile-mini")))
    assert 0.9 * 2 * n_samples < len(few.networks) <= 2 * n_samples
    assert few.n_networks == 2
    with pytest.raises(PlanError, match="expected shared or pinned"):
        plan_campaign(space, design="factorial")


def test_a_pinned_profile_gives_effects(priced: PricedEngine, tmp_path: Path) -> None:
    space, out = tiny_space(), tmp_path / "run"
    result = api.profile(
        space=space, out=out, device="null", design="pinned", networks=40, isolated=False
    )
    assert result.n_left == 0
    found = api.effects(out)
    assert dict(found.space.alive) == dict(space.alive)
    truth = priced.design.expansion @ priced.coefficients
    np.testing.assert_allclose(found.latency.values, truth, atol=1.5e-3)
    assert np.corrcoef(found.latency.values, truth)[0, 1] > 0.9
    assert any("one-factor" in note for note in found.notes)
    with Run.open(out) as run:
        assert run.request["design"] == "pinned"
        assert run.request["networks"] == 40
    with pytest.raises(IncompatibleRunError, match="design"):
        api.profile(space=space, out=out, device="null", networks=40)


def test_a_half_width_chooses_the_networks(
    priced: PricedEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    space = get_space("mobile-mini")
    made = PricedEngine(space, noise_s=1e-3)
    monkeypatch.setattr(engine, "measure", made)
    said: list[str] = []

    def ask() -> ProfileResult:
        return api.profile(
            space=space,
            out=tmp_path / "run",
            device="null",
            half_width=0.015,
            isolated=False,
            on_plan=lambda plan: said.append(str(plan)),
        )

    made.stop_after = 30
    result = ask()
    assert result.precision is None, "the pilot is not done"
    assert result.n_left == pilot_size(space) - 30
    made.stop_after = None
    result = ask()
    assert result.precision is not None
    assert (
        result.precision.n_pilot
        == pilot_size(space)
        == made.n_measured - (result.precision.n_networks - pilot_size(space))
    )
    assert result.n_done == result.precision.n_networks > n_coefficients(space)
    assert said[0].startswith(f"{result.precision.n_networks} networks give every slot effect")
    assert result.to_json()["precision"]["slot"] == str(result.precision.slot)
    before = made.n_measured
    assert ask().precision == result.precision
    assert made.n_measured == before, "nothing new: the same pilot gives the same plan"
    sequence = plan_campaign(space, n_networks=result.n_done, isolated=False).networks
    with Run.open(tmp_path / "run") as run:
        assert run.measured_keys() == {w.key for w in sequence}


@pytest.mark.parametrize("more", [{"networks": 5}, {"design": "pinned"}])
def test_a_half_width_leaves_no_other_choice(
    more: Mapping[str, object], priced: PricedEngine, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=f"leave out --{next(iter(more))}"):
        api.profile(  # type: ignore[call-overload, unused-ignore]
            space=tiny_space(),
            out=tmp_path / "run",
            device="null",
            half_width=0.01,
            **more,  # type: ignore[arg-type]
        )
    assert priced.n_measured == 0
