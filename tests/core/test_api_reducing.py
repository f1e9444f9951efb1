"""What is said of a run: intervals of times that can be, and of how many networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwprof import api
from hwprof.campaign import sample_networks
from hwprof.errors import PlanError, SpaceError
from hwprof.space import get_space


def test_no_interval_reaches_below_no_time_at_all(tmp_path: Path) -> None:
    """Ten networks whose latency no block explains: the model knows next to nothing."""
    space, rng = get_space("nasbench201"), np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(12)]
    lines = [f"{a.cell},{ms}" for a, ms in zip(archs, rng.lognormal(0.0, 1.5, 12), strict=True)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["arch,latency_ms", *lines]) + "\n")
    run = api.import_(table, space="nasbench201", device_name="board", out=tmp_path / "run")
    found = api.predict(run, archs)
    assert any(p.lo_s == 0.0 for p in found)
    for prediction in found:
        assert min(prediction.latency_s, 0.0) <= prediction.lo_s <= prediction.latency_s
        assert prediction.lo_s <= prediction.hi_s


def test_a_network_that_is_not_predicted_is_told_before_the_model_is_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitting takes minutes where a run holds hundreds of networks."""
    run = imported(tmp_path, 0)
    monkeypatch.setattr("hwprof.api.reducing.latency_model", lambda run: pytest.fail("fitted"))
    with pytest.raises(SpaceError, match="expected mobile-mini at 32 px"):
        api.predict(run, [get_space("nasbench201").sample(np.random.default_rng(0))])


def imported(folder: Path, n_scored: int) -> Path:
    """Import 200 networks of mobile-mini, the first of them with accuracies."""
    space, rng = get_space("mobile-mini"), np.random.default_rng(0)
    lines = ["arch,latency_ms,accuracy_pct"]
    for i, arch in enumerate(sample_networks(space, 0, 200)):
        text = arch.canonical_json().replace('"', '""')
        accuracy = 60.0 + rng.normal() if i < n_scored else ""
        lines.append(f'"{text}",{10.0 + rng.normal()},{accuracy}')
    table = folder / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    return api.import_(table, space="mobile-mini", device_name="board", out=folder / "run")


@pytest.mark.parametrize(("n_scored", "said"), [(200, False), (150, True), (0, False)])
def test_effects_say_where_accuracies_are_of_fewer_networks(
    tmp_path: Path, n_scored: int, said: bool
) -> None:
    found = api.effects(imported(tmp_path, n_scored))
    note = "effects on accuracy rest on 150 networks, those on latency on 200"
    assert any(n.startswith(note) for n in found.notes) is said
    assert (found.accuracy is not None) is bool(n_scored)


def test_a_space_beside_a_run_has_to_be_the_runs(tmp_path: Path) -> None:
    run = imported(tmp_path, 0)
    assert api.reduce(run, space="mobile-mini").space == "mobile-mini"
    with pytest.raises(
        PlanError, match=r"not what the run was made in \(mobile-mini\); leave it out"
    ):
        api.reduce(run, space="nasbench201")


def test_images_that_nothing_looks_at_are_refused(tmp_path: Path) -> None:
    run, csv = imported(tmp_path, 0), tmp_path / "effects.csv"
    api.effects(run, csv=csv)
    for call in (api.effects, api.reduce):
        with pytest.raises(PlanError, match=r"--data 'images' .* no accuracy source is named"):
            call(run, data="images")
    with pytest.raises(PlanError, match="accuracies of its own; leave out --data"):
        api.reduce(effects=csv, space="mobile-mini", data="images")
