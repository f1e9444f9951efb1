"""What every registered strategy keeps to, whatever it decides."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hwprof.errors import PlanError
from hwprof.results import Trial
from hwprof.search.strategies.evolution import Evolution, EvolutionSettings, tournament
from hwprof.search.strategies.members import Member
from hwprof.search.strategies.nsga2 import Nsga2, Nsga2Settings
from hwprof.search.strategies.random_search import RandomSearch
from hwprof.search.strategy import (
    STRATEGIES,
    Evaluated,
    NewNetworks,
    Strategy,
    make_strategy,
)
from hwprof.search.testing import (
    CELLS,
    MINI,
    SPACES,
    Opens,
    StrategyContract,
    opened,
    run,
    tiny_cells,
)
from hwprof.space import Architecture, DesignSpace


def made(name: str, space: DesignSpace) -> Strategy:
    return opened(partial(make_strategy, name), space)


@pytest.fixture(params=sorted(STRATEGIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opens(name: str) -> Opens:
    return partial(make_strategy, name)


class TestContract(StrategyContract):
    pass


def test_it_is_called_as_it_is_registered(name: str) -> None:
    assert made(name, MINI).name == name


def test_it_never_ends_while_there_is_more(name: str) -> None:
    space = SPACES["mini-reduced"]
    assert len(list(run(made(name, space), space, 150))) == 150


@pytest.mark.parametrize(
    ("shipped", "own"),
    [
        ("random", set()),
        ("evolution", {"alive", "brood", "n_asked", "n_told"}),
        ("nsga2", {"parents", "children", "n_asked", "n_told"}),
        ("model-guided", {"members", "queue", "weights", "n_learnt"}),
        ("ddpnas", {"theta", "alive", "stage", "accuracy_pct", "queue", "parents", "barren"}),
    ],
)
def test_a_state_keeps_the_keys_that_checkpoints_have(shipped: str, own: set[str]) -> None:
    """As in checkpoint.json, format 1: a search begun with an older version goes on."""
    assert made(shipped, MINI).state_dict().keys() == {"rng", "asked", "done"} | own


@pytest.mark.parametrize("n_free", [0, 1, 3, 5])
def test_a_tiny_space_is_searched_whole(name: str, n_free: int) -> None:
    tiny = tiny_cells(n_free)
    strategy = made(name, tiny)
    assert len(list(run(strategy, tiny, 1000))) == tiny.size().n_distinct


def test_an_unknown_name_is_refused_with_a_hint() -> None:
    listed = "Expected one of model-guided, evolution, nsga2, ddpnas, random, proxyless, te-nas"
    with pytest.raises(PlanError, match=rf"did you mean 'nsga2'\? {listed}$"):
        make_strategy("nsga-2", MINI, np.random.default_rng(0))


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package is installed, with a strategy, one that is gone, and a name that is taken."""
    (tmp_path / "packaged_strategy.py").write_text(
        "from hwprof.search.strategies.random_search import RandomSearch\n\n\n"
        "class Mine(RandomSearch):\n    name = 'mine'\n"
    )
    info = tmp_path / "packaged-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: packaged\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[hwprof.strategies]\nmine = packaged_strategy:Mine\n"
        "gone = packaged_strategy:Gone\nrandom = packaged_strategy:Mine\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("packaged")
def test_a_strategy_of_another_package_is_one() -> None:
    assert [made(name, MINI).name for name in ("mine", "random")] == ["mine", "random"]
    assert len(list(run(made("mine", MINI), MINI, 20))) == 20
    with pytest.raises(PlanError, match=r"'gone' from 'packaged_strategy:Gone'.*reinstall"):
        made("gone", MINI)


def test_new_networks_keep_to_a_reduced_space() -> None:
    """Where the canonical encoding was dropped, the network stands as it was drawn."""
    conv_only = CELLS.restrict(dict.fromkeys(CELLS.slots, ("nor_conv_3x3", "skip_connect")))
    new = NewNetworks(conv_only)
    rng = np.random.default_rng(0)
    found = [new.first(lambda: conv_only.sample(rng)) for _ in range(20)]
    for arch in found:
        assert arch is not None
        conv_only.validate(arch)


def told_nsga2(latencies_s: list[float], target_s: float | None) -> list[int]:
    """Tell one generation, accuracy rising with latency; return the survivors, best first."""
    strategy = Nsga2(
        MINI,
        np.random.default_rng(0),
        target_s=target_s,
        settings=Nsga2Settings(population=len(latencies_s)),
    )
    archs = strategy.ask(len(latencies_s)).archs
    trials = (
        Trial(
            arch=arch,
            accuracy_pct=10.0 * latency_s,
            accuracy_source="",
            latency_s=latency_s,
            latency_source="predicted",
            macs=1,
            params=1,
        )
        for arch, latency_s in zip(archs, latencies_s, strict=True)
    )
    strategy.tell(Evaluated(outcomes=tuple(trials)))
    order = [Architecture.from_json(row["arch"]) for row in strategy.state_dict()["parents"]]
    return [archs.index(a) for a in order]


def test_nsga2_prefers_what_is_within_the_target_then_what_violates_least() -> None:
    assert told_nsga2([4.0, 1.0, 3.0, 2.0], target_s=2.5)[2:] == [2, 0]
    assert set(told_nsga2([4.0, 1.0, 3.0, 2.0], target_s=2.5)[:2]) == {1, 3}


def test_nsga2_prefers_the_lonely_on_one_front() -> None:
    # All on one front: the ends first, then by the gap between the neighbours.
    assert told_nsga2([1.0, 1.5, 2.0, 6.0, 9.0], target_s=None) == [0, 4, 3, 2, 1]


@pytest.mark.parametrize("settings", [{"population": 1}, {"crossover": 1.5}, {"mutation": -0.1}])
def test_nsga2_refuses_settings_without_sense(settings: dict[str, float]) -> None:
    with pytest.raises(PlanError, match=next(iter(settings))):
        Nsga2Settings(**settings)  # type: ignore[arg-type]


def member(arch: Architecture, latency_s: float, accuracy_pct: float | None) -> Member:
    return Member(arch=arch, latency_s=latency_s, accuracy_pct=accuracy_pct)


class TestTournament:
    """Winners by hand; networks are told apart by their place."""

    ARCHS = tuple(MINI.sample(np.random.default_rng(seed)) for seed in range(4))

    def winner(
        self,
        points: list[tuple[float, float | None]],
        angle: float = 0.0,
        target_s: float | None = None,
    ) -> int:
        entrants = [member(a, *point) for a, point in zip(self.ARCHS, points, strict=False)]
        return self.ARCHS.index(tournament(entrants, angle, target_s))

    def test_the_angle_goes_from_accuracy_to_latency(self) -> None:
        points: list[tuple[float, float | None]] = [(1.0, 60.0), (2.0, 68.0), (5.0, 70.0)]
        assert self.winner(points, 0.0) == 2
        assert self.winner(points, np.pi / 2) == 0
        # On scaled goals they are (0, 0), (1/4, 4/5), (1, 1): at 45 degrees the middle one leads.
        assert self.winner(points, np.pi / 4) == 1

    def test_too_slow_loses_to_all_others(self) -> None:
        points: list[tuple[float, float | None]] = [(3.0, 90.0), (1.0, 50.0), (1.5, 60.0)]
        assert self.winner(points, target_s=2.0) == 2

    def test_of_the_too_slow_the_least_violation_wins(self) -> None:
        points: list[tuple[float, float | None]] = [(9.0, None), (4.0, 50.0), (3.0, None)]
        assert self.winner(points, target_s=2.0) == 2


def test_evolution_lets_the_oldest_die() -> None:
    """Real et al. 2019: the first network dies although it is the best of all."""
    settings = EvolutionSettings(population=8, sample=4)
    strategy = Evolution(MINI, np.random.default_rng(0), settings=settings)

    def generation(accuracies_pct: list[float]) -> list[dict[str, object]]:
        archs = strategy.ask(8).archs
        assert len(archs) == 8
        strategy.tell(
            Evaluated(
                outcomes=tuple(
                    Trial(
                        arch=arch,
                        accuracy_pct=pct,
                        accuracy_source="",
                        latency_s=1.0,
                        latency_source="predicted",
                        macs=1,
                        params=1,
                    )
                    for arch, pct in zip(archs, accuracies_pct, strict=True)
                )
            )
        )
        alive: list[dict[str, object]] = strategy.state_dict()["alive"]
        return alive

    first = generation([99.0] + [50.0] * 7)
    second = generation([40.0] * 8)
    assert [row["accuracy_pct"] for row in first] == [99.0] + [50.0] * 7
    assert [row["accuracy_pct"] for row in second] == [40.0] * 8


@pytest.mark.parametrize(
    "settings", [{"population": 1}, {"sample": 0}, {"population": 10, "sample": 11}]
)
def test_evolution_refuses_settings_without_sense(settings: dict[str, int]) -> None:
    with pytest.raises(PlanError, match=r"population|sample"):
        EvolutionSettings(**settings)


class Endless(RandomSearch):
    """Never done, even where it has nothing to ask for."""

    done = False


def test_the_contract_ends_with_a_strategy_that_never_does() -> None:
    with pytest.raises(AssertionError, match="asks for nothing"):
        list(run(opened(Endless, tiny_cells(1)), tiny_cells(1), 5))
