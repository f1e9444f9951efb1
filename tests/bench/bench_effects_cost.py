"""What the effects of blocks cost in measured seconds: shared design beside the pinned one.

    python -m tests.bench.bench_effects_cost SHARED_RUN PINNED_RUN

Both folders are profiles of one space on one device with one set of options (``hwprof profile
--no-isolated --design shared`` and ``--design pinned``), each measured in one go. The error is the
root mean square standard error of the effects of blocks at their slots, from each estimator's own
covariance. A standard error falls with the square root of the time (that of the shared design, which
fits coefficients, falls faster at first), so error squared times seconds is the price of an effect,
whatever the two runs' sizes, and the ratio of prices is how many times fewer seconds the shared
design needs at equal error. It is given for the seconds that a user waits, from the first burst to
the last with everything in between, and for those of the bursts alone. Its interval is a bootstrap
over networks: what the effects leave unexplained of each network is drawn anew, in both designs. As
a check on the standard errors, the rms difference between the two runs' effects stands beside what
they predict.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.least_squares import hc3_covariance, ordinary_fit
from hwprof.estimate.pinned import PinnedValues
from hwprof.estimate.pinned_effects import pinned_latencies, pinned_response
from hwprof.estimate.responses import Response
from hwprof.estimate.run_analysis import run_friendliness, run_samples
from hwprof.store import Run
from tests.bench.waiting import burst_seconds, waited_seconds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwprof.results import Sample

    Floats = NDArray[np.float64]

BAR = 20.0
DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Effects of one run, and what they cost."""

    response: Response
    design: DesignMatrix
    burst_s: float
    waited_s: float
    n_networks: int
    drawn: Floats
    """``float64[draws]``, mean variance of the effects in bootstrap samples."""

    @property
    def error_s(self) -> float:
        """Root mean square standard error of the effects of blocks at their slots, seconds."""
        return float(np.sqrt(mean_variance(self.design, self.response.covariance)))


def block_rows(design: DesignMatrix) -> list[int]:
    """Return the positions of the effects of blocks at their slots."""
    return [i for i, term in enumerate(design.terms) if term.kind == "block"]


def mean_variance(design: DesignMatrix, covariance: Floats) -> float:
    """Return the mean variance of the effects of blocks at their slots."""
    return float(np.diag(covariance)[block_rows(design)].mean())


def shared_draws(
    design: DesignMatrix, samples: Sequence[Sample], rng: np.random.Generator, n: int = DRAWS
) -> Floats:
    """Return ``float64[n]``, the mean variance for residuals drawn anew with replacement.

    Networks themselves are not drawn: with so few a coefficient, a sample with doubles would be
    another design. Residuals are brought to the size of what they estimate by their leverage.
    """
    timed = [s for s in samples if s.latency_s is not None]
    X = design.rows(design.encode([s.arch for s in timed]))
    y = np.array([s.latency_s for s in timed], dtype=np.float64)
    fit = ordinary_fit(X, y)
    own = fit.residuals / np.sqrt(np.maximum(1.0 - fit.leverage, 1e-8))
    explained = y - fit.residuals
    weights = design.expansion[block_rows(design)]

    def once() -> float:
        drawn = hc3_covariance(X, ordinary_fit(X, explained + rng.choice(own, len(own))))
        return float(np.einsum("ij,jk,ik->i", weights, drawn, weights).mean())

    return np.array([once() for _ in range(n)])


def pinned_draws(
    design: DesignMatrix, values: PinnedValues, rng: np.random.Generator, n: int = DRAWS
) -> Floats:
    """Return ``float64[n]``, the mean variance for deviations from each pin's mean drawn anew.

    All pins' deviations are drawn from together, since a few networks of one pin are no
    distribution.
    """
    own = np.concatenate(
        [(v - v.mean()) * np.sqrt(len(v) / (len(v) - 1.0)) for v in values.values.values()]
    )

    def once() -> float:
        drawn = {pin: rng.choice(own, len(v)) for pin, v in values.values.items()}
        return mean_variance(design, pinned_response(design, PinnedValues(values=drawn)).covariance)

    return np.array([once() for _ in range(n)])


def read(path: Path, rng: np.random.Generator) -> Spent:
    """Return the effects of a run with what its networks took."""
    with Run.open(path) as run:
        networks = [m for m in run.measurements() if m.workload.role == "network"]
        samples = run_samples(run)
        found = run_friendliness(run, samples)
        burst_s, waited_s = burst_seconds(networks), waited_seconds(networks)
        drawn = _draws(run, found.design, samples, rng)
    return Spent(
        response=found.latency,
        design=found.design,
        burst_s=burst_s,
        waited_s=waited_s,
        n_networks=len(networks),
        drawn=drawn,
    )


def _draws(
    run: Run, design: DesignMatrix, samples: Sequence[Sample], rng: np.random.Generator
) -> Floats:
    if run.request["design"] != "pinned":
        return shared_draws(design, samples, rng)
    values = pinned_latencies(
        design.space,
        samples,
        n_per_pin=int(run.request["networks"]),
        seed=int(run.request["seed"]),
    )
    return pinned_draws(design, values, rng)


def main() -> None:
    """Print both runs and the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("pinned", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    shared, pinned = read(args.shared, rng), read(args.pinned, rng)
    for name, spent in (("shared", shared), ("pinned", pinned)):
        print(
            f"{name}: {spent.n_networks} networks, {spent.waited_s:.1f} s waited for, "
            f"{spent.burst_s:.1f} s of bursts, rms standard error {spent.error_s * 1e6:.3g} µs"
        )
    rows = block_rows(shared.design)
    values = [s.response.values[rows] for s in (shared, pinned)]
    seen = float(np.sqrt(np.mean((values[0] - values[1]) ** 2)))
    expected = float(np.hypot(shared.error_s, pinned.error_s))
    print(f"rms difference of the effects {seen * 1e6:.3g} µs; expected {expected * 1e6:.3g} µs")
    variances = (pinned.error_s / shared.error_s) ** 2
    low, high = np.quantile(pinned.drawn / shared.drawn, [0.025, 0.975])
    for name, seconds in (
        ("seconds waited for", pinned.waited_s / shared.waited_s),
        ("seconds of bursts", pinned.burst_s / shared.burst_s),
    ):
        ratio = variances * seconds
        print(
            f"at equal error {ratio:.1f} [{low * seconds:.1f}, {high * seconds:.1f}] times fewer "
            f"{name}; bar {BAR:g}: {'met' if ratio >= BAR else 'NOT MET'}"
        )


if __name__ == "__main__":
    main()
