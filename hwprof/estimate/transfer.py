"""A latency model for a new device from about ten networks, by transfer from known devices.

Effects of every donor, as shares of its mean latency, tell what to expect of a device that was
hardly measured. The new device's coefficients β (shares again, X of
:mod:`hwprof.estimate.design_matrix`) have a Gaussian prior around the donors' mean,

    β = mean of donors + donors · w + everywhere · g + own · d,    y / scale = X β + noise,

w reweights the donors, g moves a block in all its places alike, d each effect by itself; g and d
count in the size that effects have at their place on the donors. The four standard deviations
(w, g, d, noise) are those of a small grid, each weighted by how likely it makes the measured
networks; the posterior's moments make a latency model like any other, intervals included.

Effects carry over, but not how a runtime treats the graph. One that prunes it does not run a block
whose output nothing uses (:meth:`hwprof.space.DesignSpace.used_codes`), whatever the donors do. So
X is made both ways, and without those blocks where that makes the measured networks 20 times
likelier; the networks are chosen so that they tell. Where every block is used X is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hwprof.errors import DataError, IncompatibleRunError
from hwprof.estimate.crossval import HeldOut, holdout_figures
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.estimate.least_squares import t_quantile
from hwprof.measure.records import Fingerprint
from hwprof.results import Sample
from hwprof.space import Architecture, DesignSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]

LEAST_NETWORKS = 5
"""Below this the noise cannot be told from the device."""
POOL = 2000
"""Random networks among which those to measure are chosen."""
MIDDLE = (0.1, 0.9)
"""Quantiles of random networks' expected latency that the measured networks must span."""
NEGLIGIBLE = 1e-3
"""Weight of a spread, of the likeliest one's, below which it is left out."""
LEAST_DEGREES = 3.0
"""Of the t intervals: ten networks leave few, however well the donors fit."""


class Spread(NamedTuple):
    """Prior standard deviations: donors' weights, everywhere, each effect, and the noise."""

    donors: float
    everywhere: float
    own: float
    noise: float


PRUNES = 0.5
"""Standard deviation of a quantity that is 0 or 1 alike: whether unused blocks run."""
CONVINCED = float(np.log(20.0))
"""Log odds from which unused blocks are taken not to run: most runtimes take a graph as it is."""
FIRST_GUESS = Spread(donors=0.3, everywhere=0.3, own=0.1, noise=0.03)
"""What networks are chosen under, before anything is measured."""
SPREADS = tuple(
    Spread(*values)
    for values in product(
        (0.03, 0.1, 0.3, 1.0),
        (0.03, 0.1, 0.3, 1.0),
        (0.01, 0.03, 0.1, 0.3),
        (0.01, 0.03, 0.06, 0.12, 0.24),
    )
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Donors:
    """What devices with a model of their own say about one that has none.

    Raises:
        IncompatibleRunError: the models are not of one space at one input size.
    """

    models: tuple[AdditiveLatencyModel, ...]

    def __post_init__(self) -> None:
        if not self.models:
            raise DataError("a transfer needs at least one run to start from; name it with --from")
        first = self.space
        for model in self.models[1:]:
            other = model.space
            if (first.name, first.resolution_px, dict(first.alive)) != (
                other.name,
                other.resolution_px,
                dict(other.alive),
            ):
                raise IncompatibleRunError(
                    f"the runs to start from are of {first.name} at {first.resolution_px} px and "
                    f"of {other.name} at {other.resolution_px} px; expected the same space, "
                    "input size and candidates"
                )
        for model in self.models:
            if not model.coefficients[0] > 0.0:
                raise DataError(
                    "a run to start from has no mean latency, because it is a table of blocks "
                    "without stem, first, head or fixed part; add that line, or leave the run out"
                )

    @property
    def space(self) -> DesignSpace:
        """The space of all donors."""
        return self.models[0].space

    @cached_property
    def design(self) -> DesignMatrix:
        """The design matrix of the space."""
        return DesignMatrix(self.space)

    @cached_property
    def mean(self) -> Floats:
        """``float64[p]``: coefficients as shares of the mean latency, averaged over donors."""
        return np.asarray(self._shares.mean(axis=1))

    @cached_property
    def seen(self) -> tuple[NDArray[np.int64], ...]:
        """For every decision, in how many networks of the poorest donor each row stood."""
        return tuple(
            np.min(counts, axis=0) for counts in zip(*(m.seen for m in self.models), strict=True)
        )

    def covariance(self, spread: Spread) -> Floats:
        """Return the ``float64[p, p]`` prior covariance of the shares."""
        donors, everywhere, own = self._parts
        total = spread.donors**2 * donors + spread.everywhere**2 * everywhere + spread.own**2 * own
        total[0, 0] = 1.0  # the parts know nothing of the mean
        return np.asarray(total)

    @cached_property
    def _shares(self) -> Floats:
        # Interaction terms, which come last, are left to each device.
        own = [m.coefficients[: self.design.n_coefficients] for m in self.models]
        return np.stack([c / c[0] for c in own], axis=1)

    @cached_property
    def _parts(self) -> tuple[Floats, Floats, Floats]:
        """Return the prior covariances of donors' weights, everywhere and own, at unit spread."""
        design = self.design
        rows = [i for i, term in enumerate(design.terms) if term.kind != "network"]
        terms = [design.terms[i] for i in rows]
        expansion = design.expansion[rows, 1:]
        back = np.linalg.pinv(expansion)
        sizes = np.sqrt(np.mean((expansion @ self._shares[1:]) ** 2, axis=1))
        places: dict[object, list[int]] = {}
        for i, term in enumerate(terms):
            factor = str(term.block).split("=")[0] if term.kind == "factor" else None
            places.setdefault((term.kind, term.unit, term.layer, factor), []).append(i)
        for members in places.values():
            sizes[members] = np.sqrt(np.mean(sizes[members] ** 2))
        alike: dict[object, Floats] = {}
        for i, term in enumerate(terms):
            key = term.block if term.kind != "depth" else "depth"
            alike.setdefault((term.kind, key), np.zeros(len(terms)))[i] = sizes[i]
        everywhere = back @ np.stack(list(alike.values()), axis=1)
        own = back * sizes
        weights = self._shares[1:]
        return tuple(_padded(part @ part.T) for part in (weights, everywhere, own))  # type: ignore[return-value]


def choose_networks(donors: Donors, n: int, rng: np.random.Generator) -> list[Architecture]:
    """Return the networks whose measurement tells most about a new device, at every latency.

    Random networks are sorted by the latency that donors expect into ``n`` strata; from each,
    outermost first, comes the network whose latency is least certain given those already chosen
    (greedy D-optimal design under the prior, with whether unused blocks run as one unknown more).

    Args:
        donors: the devices to start from.
        n: how many, at least :data:`LEAST_NETWORKS`.
        rng: draws the random networks.

    Raises:
        DataError: fewer are asked for, or the space holds fewer.
    """
    if n < LEAST_NETWORKS:
        raise DataError(
            f"{n} networks cannot tell a device from noise; measure at least {LEAST_NETWORKS} "
            "(--networks)"
        )
    drawn = _known(donors, (donors.space.sample(rng) for _ in range(POOL)))
    pool = list({arch.arch_id: arch for arch in drawn}.values())
    if len(pool) < n:
        raise DataError(
            f"{donors.space.name} holds {len(pool)} networks that the donors can predict; "
            f"expected at least {n}: measure them all with `hwprof profile`"
        )
    codes = donors.design.encode(pool)
    X = donors.design.rows(codes)
    unused = (X - donors.design.rows(donors.space.used_codes(codes))) @ donors.mean
    strata = np.array_split(np.argsort(X @ donors.mean, kind="stable"), n)
    X = np.column_stack([X, unused])
    covariance = np.pad(donors.covariance(FIRST_GUESS), (0, 1))
    covariance[-1, -1] = PRUNES**2
    noise = FIRST_GUESS.noise**2
    chosen = []
    for position in sorted(range(n), key=lambda i: -abs(i - (n - 1) / 2)):
        rows = X[strata[position]]
        best = int(np.einsum("ij,jk,ik->i", rows, covariance, rows, optimize=True).argmax())
        gain = covariance @ rows[best]
        covariance = covariance - np.outer(gain, gain) / (rows[best] @ gain + noise)
        chosen.append(pool[int(strata[position][best])])
    return chosen


def adapt_model(
    donors: Donors, samples: Sequence[Sample], fingerprint: Fingerprint | None = None
) -> AdditiveLatencyModel:
    """Return the latency model of a new device from a few measured networks.

    Its ``holdout`` predicts every measured network from the others.

    Args:
        donors: the devices to start from.
        samples: networks measured on the new device, best those of :func:`choose_networks`.
        fingerprint: of the new device.

    Raises:
        DataError: too few networks have a latency, or they span too little, so that most
            predictions would be extrapolated.
        SpaceError: a network is not of the donors' space, or holds a block that no donor knows.
    """
    timed = [s for s in samples if s.latency_s is not None]
    if len(timed) < LEAST_NETWORKS:
        raise DataError(
            f"{len(timed)} networks were measured; a transfer needs at least {LEAST_NETWORKS}"
        )
    codes = donors.design.encode([s.arch for s in timed])
    for model in donors.models:
        model.predict_encoded(codes)
    y = np.array([s.latency_s for s in timed], dtype=np.float64)
    _require_span(donors, donors.design.rows(codes))
    heldout = tuple(_left_out(donors, codes, y))
    codes, drops_unused = _what_runs(donors, codes, y)
    posterior = _posterior(donors, donors.design.rows(codes), y)
    return AdditiveLatencyModel(
        space=donors.space,
        coefficients=posterior.coefficients,
        inverse=posterior.covariance / posterior.noise_s**2,
        residual_sd_s=posterior.noise_s,
        degrees=posterior.degrees,
        penalty=0.0,
        n_networks=len(y),
        seen=donors.seen,
        fingerprint=fingerprint,
        holdout=holdout_figures(heldout),
        heldout=heldout,
        drops_unused=drops_unused,
        # As of a profile's networks: what sessions differ by is in no residual.
        common_sd=max(s.session_sd for s in timed),
    )


def _what_runs(donors: Donors, codes: Codes, y: Floats) -> tuple[Codes, bool]:
    """Return the blocks that run, and whether those are fewer than the networks were written with."""
    used = donors.space.used_codes(codes)
    if np.array_equal(used, codes):
        return codes, False
    as_written, pruned = (
        _posterior(donors, donors.design.rows(c), y).log_evidence for c in (codes, used)
    )
    return (used, True) if pruned - as_written > CONVINCED else (codes, False)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Posterior:
    """Coefficients in seconds, their covariance in s², the noise in s."""

    coefficients: Floats
    covariance: Floats
    noise_s: float
    degrees: float
    log_evidence: float
    """Of the latencies, up to a constant; all spreads together."""


def _posterior(donors: Donors, X: Floats, y: Floats) -> _Posterior:
    """Return the moments of the posterior, over all spreads."""
    scale = float(y.sum() / (X @ donors.mean).sum())
    off = y / scale - X @ donors.mean
    evidence = np.array([_log_evidence(donors, s, X, off) for s in SPREADS])
    weights = np.exp(evidence - evidence.max())
    likely = np.flatnonzero(weights > NEGLIGIBLE)
    single = [_given(donors, SPREADS[i], X, off) for i in likely]
    shares = weights[likely] / weights[likely].sum()
    moves = np.stack([given.move for given in single])
    move = shares @ moves
    apart = moves - move
    covariance = (apart * shares[:, None]).T @ apart
    for share, given in zip(shares, single, strict=True):
        covariance += share * given.covariance
    noise = np.sqrt(sum(w * SPREADS[i].noise ** 2 for w, i in zip(shares, likely, strict=True)))
    used_up = float(shares @ [given.degrees for given in single])
    return _Posterior(
        coefficients=scale * (donors.mean + move),
        # Half of the sum with its transpose: rounding must not make it asymmetric.
        covariance=scale**2 * (covariance + covariance.T) / 2.0,
        noise_s=scale * float(noise),
        degrees=max(LEAST_DEGREES, len(y) - used_up),
        # The latencies are y, not y / scale: hence the last term.
        log_evidence=float(np.log(weights.sum()) + evidence.max() - len(y) * np.log(scale)),
    )


class _Given(NamedTuple):
    """The posterior under one spread: shares less the donors' mean, and what fitting used up."""

    move: Floats
    covariance: Floats
    degrees: float


def _given(donors: Donors, spread: Spread, X: Floats, off: Floats) -> _Given:
    prior = donors.covariance(spread)
    signal = X @ prior @ X.T
    total = signal + spread.noise**2 * np.eye(len(off))
    gain = np.linalg.solve(total, X @ prior).T
    return _Given(
        move=gain @ off,
        covariance=prior - gain @ X @ prior,
        degrees=float(np.trace(np.linalg.solve(total, signal))),
    )


def _log_evidence(donors: Donors, spread: Spread, X: Floats, off: Floats) -> float:
    """Return log p(off | spread) up to a constant."""
    total = X @ donors.covariance(spread) @ X.T + spread.noise**2 * np.eye(len(off))
    root = np.linalg.cholesky(total)
    white = np.linalg.solve(root, off)
    return float(-0.5 * white @ white - np.log(np.diag(root)).sum())


def _left_out(donors: Donors, codes: Codes, y: Floats) -> Iterator[HeldOut]:
    """Predict every network from the others, which alone say whether unused blocks run."""
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        runs, drops_unused = _what_runs(donors, codes[others], y[others])
        found = _posterior(donors, donors.design.rows(runs), y[others])
        own = donors.space.used_codes(codes[[i]]) if drops_unused else codes[[i]]
        x = donors.design.rows(own)[0]
        variance = found.noise_s**2 + float(x @ found.covariance @ x)
        yield HeldOut(
            actual_s=float(y[i]),
            predicted_s=float(x @ found.coefficients),
            half_s=t_quantile(0.975, found.degrees) * float(np.sqrt(variance)),
        )


def _require_span(donors: Donors, X: Floats) -> None:
    """Refuse networks that are all alike: the rest of the space would be extrapolated."""
    rng = np.random.default_rng(0)
    random = _known(donors, (donors.space.sample(rng) for _ in range(POOL)))
    expected = donors.design.rows(donors.design.encode(random)) @ donors.mean
    low, high = np.quantile(expected, MIDDLE)
    measured = X @ donors.mean
    if measured.min() > low or measured.max() < high:
        raise DataError(
            f"the {len(X)} measured networks are expected at {measured.min():.3g} to "
            f"{measured.max():.3g} of the mean latency; expected a span of at least {low:.3g} to "
            f"{high:.3g}, or most predictions would be extrapolated: measure faster and slower ones"
        )


def _known(donors: Donors, archs: Iterator[Architecture]) -> list[Architecture]:
    """Return the networks of which every donor has seen every block."""
    found = list(archs)
    codes = donors.design.encode(found)
    can = np.ones(len(found), dtype=np.bool_)
    for column, seen in zip(codes.T, donors.seen, strict=True):
        can &= seen[column + 1] > 0
    return [arch for arch, ok in zip(found, can, strict=True) if ok]


def _padded(covariance: Floats) -> Floats:
    return np.pad(covariance, ((1, 0), (1, 0)))
