"""Contract tests for search strategies, shipped so that strategies in other packages can run them.

It needs pytest, which hwprof itself does not bring.

    @pytest.fixture
    def opens():
        return MyStrategy

    class TestContract(StrategyContract):
        pass

Networks are judged by a rule without meaning that refuses some of them at every stage, so that no
strategy can rest on more than the runner promises.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pytest

from hwprof.results import Trial
from hwprof.search.strategy import Evaluated, Refusal, Strategy
from hwprof.space import Architecture, DesignSpace, get_space

MINI, CELLS = get_space("mobile-mini"), get_space("nasbench201")
SPACES: dict[str, DesignSpace] = {
    "mini": MINI,
    # Two candidates a slot (skip where there is one), so that most networks are illegal.
    "mini-reduced": MINI.restrict({slot: MINI.choices(slot)[-2:] for slot in MINI.slots}),
    "cells": CELLS,
}
TARGET_S = 0.4
SLOWEST_S = 0.5


class Opens(Protocol):
    """A strategy's class, or what calls it."""

    def __call__(
        self, space: DesignSpace, rng: np.random.Generator, /, *, target_s: float | None
    ) -> Strategy:
        """Open the strategy."""
        ...


def tiny_cells(n_free: int) -> DesignSpace:
    """Return cells whose last ``n_free`` edges are a 1×1 or a 3×3 convolution, the others 3×3."""
    kept = {
        slot: ("nor_conv_3x3",) if slot.layer < 6 - n_free else ("nor_conv_1x1", "nor_conv_3x3")
        for slot in CELLS.slots
    }
    return CELLS.restrict(kept)


def judge(space: DesignSpace, arch: Architecture) -> Trial | Refusal:
    """Judge by a rule without meaning, and refuse some, as the runner would."""
    code = space.encode(arch).clip(0)
    latency_s = 1e-3 * (1.0 + float(code @ np.arange(1, code.size + 1)))
    if int(code.sum()) % 7 == 0:
        return Refusal(arch=arch, stage="accuracy", reason="made up", latency_s=latency_s)
    if int(code.sum()) % 7 == 1:
        return Refusal(arch=arch, stage="latency", reason="made up")
    if latency_s > SLOWEST_S:
        return Refusal(arch=arch, stage="target", reason="made up", latency_s=latency_s)
    return Trial(
        arch=arch,
        accuracy_pct=50.0 + float(np.sin(code * 1.7).sum()),
        accuracy_source="made up",
        latency_s=latency_s,
        latency_source="predicted",
        macs=1,
        params=1,
    )


def run(strategy: Strategy, space: DesignSpace, n: int, portion: int = 8) -> Iterator[Architecture]:
    """Yield the first ``n`` networks that a strategy asks for, at most ``portion`` a request."""
    asked = 0
    while asked < n and not strategy.done:
        request = strategy.ask(min(portion, n - asked))
        assert len(request.archs) <= min(portion, n - asked)
        strategy.tell(Evaluated(outcomes=tuple(judge(space, a) for a in request.archs)))
        assert request.archs or strategy.done, "it asks for nothing and is not done"
        asked += len(request.archs)
        yield from request.archs


def opened(opens: Opens, space: DesignSpace, seed: int = 7) -> Strategy:
    """Return a fresh strategy."""
    return opens(space, np.random.default_rng(seed), target_s=TARGET_S)


class StrategyContract:
    """What every strategy must do. Give a fixture ``opens`` that returns its class."""

    @pytest.fixture(params=sorted(SPACES))
    def space(self, request: pytest.FixtureRequest) -> DesignSpace:
        """One of :data:`SPACES`."""
        return SPACES[request.param]

    def test_its_name_is_said_and_its_settings_are_plain_data(self, opens: Opens) -> None:
        """Both are written beside what was found."""
        strategy = opened(opens, MINI)
        assert isinstance(strategy.name, str)
        assert strategy.name
        assert json.loads(json.dumps(dict(strategy.settings))) == strategy.settings

    def test_same_seed_same_networks(self, opens: Opens, space: DesignSpace) -> None:
        """The generator is the only source of chance."""
        first = list(run(opened(opens, space), space, 70))
        assert first == list(run(opened(opens, space), space, 70))
        assert first != list(run(opened(opens, space, seed=8), space, 70))

    def test_portions_do_not_matter(self, opens: Opens, space: DesignSpace) -> None:
        """The runner says how many are judged at a time, by what is left of the budget."""
        whole = list(run(opened(opens, space), space, 70, portion=70))
        assert whole == list(run(opened(opens, space), space, 70, portion=3))

    def test_networks_are_valid_and_never_come_again(
        self, opens: Opens, space: DesignSpace
    ) -> None:
        """A budget counts distinct networks of the space."""
        strategy = opened(opens, space)
        archs = list(run(strategy, space, 150))
        for arch in archs:
            space.require_searchable(arch)
            assert arch.space == space.name
        assert len({space.canonical(a) for a in archs}) == len(archs)
        assert len(archs) == 150 or strategy.done

    @pytest.mark.parametrize("stop", [8, 50])
    def test_it_goes_on_from_its_state(self, opens: Opens, space: DesignSpace, stop: int) -> None:
        """A killed search comes to what it would have come to."""
        uninterrupted = list(run(opened(opens, space), space, 110))
        before = opened(opens, space)
        first = list(run(before, space, stop))
        state = json.loads(json.dumps(before.state_dict()))
        after = opened(opens, space, seed=12345)
        after.load_state_dict(state)
        assert first + list(run(after, space, 110 - stop)) == uninterrupted

    @pytest.mark.parametrize("n_free", [0, 1, 3, 5])
    def test_it_ends_where_nothing_new_comes_up(self, opens: Opens, n_free: int) -> None:
        """In a space of 2 to the power ``n_free`` networks."""
        tiny = tiny_cells(n_free)
        strategy = opened(opens, tiny)
        archs = list(run(strategy, tiny, 1000))
        assert 1 <= len(archs) <= 2**n_free
        assert strategy.done
        assert strategy.ask(5).archs == ()
