"""The interface of a search strategy: it decides, and others do the work.

A strategy asks for work in requests and is told the outcomes. It touches no data loader, clock,
device or global random state, so that a table can stand in for training and measuring, and a
killed search can go on. The runner (:mod:`hwprof.search.runner`) owns budget, log and
checkpoints.

Requests are a closed union, each with its own outcome, and the runner knows how to carry out
every one of them. A strategy's file registers under its name in :data:`STRATEGIES`; the contract
tests run over all of them. Another package adds one with an entry point in the group
``hwprof.strategies``: ``my-way = "my_package.strategy:MyWay"``.
"""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from hwprof.errors import PlanError

if TYPE_CHECKING:
    import numpy as np

    from hwprof.results import Trial
    from hwprof.space import Architecture, DesignSpace

log = logging.getLogger(__name__)

RefusalStage = Literal["latency", "target", "accuracy"]

MAX_TRIES = 200
"""Draws for one new network before a strategy takes its neighbourhood for exhausted."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Judge these networks: predicted latency, then accuracy."""

    archs: tuple[Architecture, ...]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a network was not judged: a state with a reason, never a number.

    ``latency``: the latency source has no prediction. ``target``: it is surely slower than what
    is wanted, so that no time was spent on its accuracy; ``latency_s`` says how slow.
    ``accuracy``: the accuracy source cannot score it.
    """

    arch: Architecture
    stage: RefusalStage
    reason: str
    latency_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The outcome of :class:`Evaluate`, in the order of its networks."""

    outcomes: tuple[Trial | Refusal, ...]


Request = Evaluate
"""Everything a strategy may ask for."""

Outcome = Evaluated
"""What it is told: one type for every type of request."""


class Strategy(Protocol):
    """Decides what is judged next.

    What is proposed depends on the settings, the generator and the outcomes alone: not on how
    the networks are portioned into requests, nor on whether the search was interrupted.
    """

    @property
    def name(self) -> str:
        """The name that it is registered under."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings in force, as plain data."""
        ...

    @property
    def done(self) -> bool:
        """Whether there is nothing left to ask for."""
        ...

    def ask(self, n: int) -> Request:
        """Return the next request, of at most ``n`` networks.

        Every network is valid in the space and was never asked for before, whatever its
        encoding (:class:`NewNetworks` sees to it). A request without networks means that no new
        one comes up; from then on the strategy is done.
        """
        ...

    def tell(self, outcome: Outcome) -> None:
        """Take the outcome of the last request."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on, as plain JSON data."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned; settings and space are the caller's."""
        ...


Foresight = Callable[[Sequence["Architecture"]], Sequence[float | None]]
"""Predicts the latency of networks in seconds without judging them; None where it cannot."""


@runtime_checkable
class UsesForesight(Protocol):
    """A strategy that makes use of latencies being known before a network is judged."""

    def foresee(self, predict: Foresight) -> None:
        """Take the prediction; called before the first request, also of a resumed search."""
        ...


STRATEGIES: Mapping[str, str] = {
    "model-guided": "hwprof.search.strategies.model_guided:ModelGuided",
    "evolution": "hwprof.search.strategies.evolution:Evolution",
    "nsga2": "hwprof.search.strategies.nsga2:Nsga2",
    "ddpnas": "hwprof.search.strategies.ddpnas:Ddpnas",
    "random": "hwprof.search.strategies.random_search:RandomSearch",
}
"""Name to ``module:Class``; the class is opened as :func:`make_strategy` says."""
ENTRY_POINTS = "hwprof.strategies"

APART: Mapping[str, str] = {
    "proxyless": "which trains on --data instead",
    "te-nas": "which needs no training and comes to one network of nasbench201",
}
"""Strategies that run a search of their own, and why."""


def registered() -> dict[str, str]:
    """Return name to ``module:Class`` of every strategy: those here, then of other packages."""
    others = {entry.name: entry.value for entry in metadata.entry_points(group=ENTRY_POINTS)}
    return {**STRATEGIES, **{name: others[name] for name in others if name not in STRATEGIES}}


def require_strategy(name: str) -> None:
    """Check that there is a strategy of this name, here or :data:`APART`.

    Raises:
        PlanError: there is none.
    """
    known = [*registered(), *APART]
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? Expected" if close else "expected"
    raise PlanError(f"unknown strategy {name!r}; {hint} one of {', '.join(known)}")


def make_strategy(
    name: str, space: DesignSpace, rng: np.random.Generator, *, target_s: float | None = None
) -> Strategy:
    """Return a registered strategy: its class called as ``Class(space, rng, target_s=target_s)``.

    Args:
        name: one of :func:`registered`.
        space: where to search; reductions are respected.
        rng: the only source of chance.
        target_s: slower networks are not wanted.

    Raises:
        PlanError: the name is unknown, or of a strategy that is :data:`APART`, or its class is not
            where its package says.
    """
    require_strategy(name)
    if name in APART:
        raise PlanError(f"{name}, {APART[name]}, runs a search of its own; expected another name")
    target = registered()[name]
    module, _, attribute = target.partition(":")
    try:
        opened = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PlanError(
            f"cannot load the strategy {name!r} from {target!r} ({error}): expected "
            "package.module:Class; mend or reinstall its package"
        ) from error
    made: Strategy = opened(space, rng, target_s=target_s)
    return made


class NewNetworks:
    """Lets every network of a space through once, whatever its encoding."""

    def __init__(self, space: DesignSpace) -> None:
        self._space = space
        # Insertion order, so that the state is the same text every time it is written.
        self._ids: dict[str, None] = {}

    def first(self, draw: Callable[[], Architecture]) -> Architecture | None:
        """Draw until a network comes up that was not let through before.

        Returns:
            The network in its canonical encoding (as drawn, where a reduced space does not hold
            that encoding); None after :data:`MAX_TRIES` draws.
        """
        for _ in range(MAX_TRIES):
            found = self.admit(draw())
            if found is not None:
                return found
        return None

    def admit(self, drawn: Architecture) -> Architecture | None:
        """Let ``drawn`` through, in the encoding of :meth:`first`, unless it was before."""
        found = self.peek(drawn)
        if found is not None:
            self._ids[self._space.canonical(drawn).arch_id] = None
        return found

    def peek(self, drawn: Architecture) -> Architecture | None:
        """Return what :meth:`admit` would, without letting it through."""
        canonical = self._space.canonical(drawn)
        if canonical.arch_id in self._ids:
            return None
        return canonical if self._space.holds(canonical) else drawn

    def state(self) -> list[str]:
        """Return the identities of all networks let through."""
        return list(self._ids)

    def load(self, ids: list[str]) -> None:
        """Go on from what :meth:`state` returned."""
        self._ids = dict.fromkeys(ids)
