"""What the effects of blocks cost in measured seconds: shared design beside the pinned one.

    python tests/bench/bench_effects_cost.py SHARED_RUN PINNED_RUN

Both folders are profiles of one space on one device with one set of options (``hwprof profile
--design shared`` and ``--design pinned``). The error is the root mean square standard error of the
effects of blocks at their slots, from each estimator's own covariance; seconds are those of the
bursts that timed the networks. A standard error falls with the square root of the time, so error
squared times seconds is the price of an effect, whatever the two runs' sizes, and the ratio of
prices is how many times fewer seconds the shared design needs at equal error. As a check on the
standard errors, the rms difference between the two runs' effects stands beside what they predict.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwprof.api.runs import open_run
from hwprof.estimate.responses import Friendliness
from hwprof.estimate.run_analysis import run_friendliness, run_samples

BAR = 20.0


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Effects of one run, and what they cost."""

    friendliness: Friendliness
    seconds: float
    n_networks: int

    @property
    def rows(self) -> list[int]:
        """Positions of the effects of blocks at their slots."""
        return [i for i, e in enumerate(self.friendliness.effects) if e.kind == "block"]

    @property
    def error_s(self) -> float:
        """Root mean square standard error, seconds."""
        variances = np.diag(self.friendliness.latency.covariance)[self.rows]
        return float(np.sqrt(variances.mean()))

    @property
    def price(self) -> float:
        """Error squared times seconds."""
        return self.error_s**2 * self.seconds


def read(path: Path) -> Spent:
    """Return the effects of a run with the seconds of its networks' bursts."""
    with open_run(path) as run:
        networks = [m for m in run.measurements() if m.workload.role == "network"]
        seconds = sum(
            float(labelled.burst.duration_ns.sum()) * 1e-9
            for m in networks
            for labelled in m.bursts
        )
        found = run_friendliness(run, run_samples(run))
    return Spent(friendliness=found, seconds=seconds, n_networks=len(networks))


def main() -> None:
    """Print both runs and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("pinned", type=Path)
    args = parser.parse_args()
    shared, pinned = read(args.shared), read(args.pinned)
    for name, spent in (("shared", shared), ("pinned", pinned)):
        print(
            f"{name}: {spent.n_networks} networks, {spent.seconds:.1f} s, rms standard error "
            f"{spent.error_s * 1e6:.3g} µs"
        )
    ratio = pinned.price / shared.price
    values = [s.friendliness.latency.values[s.rows] for s in (shared, pinned)]
    seen = float(np.sqrt(np.mean((values[0] - values[1]) ** 2)))
    expected = float(np.hypot(shared.error_s, pinned.error_s))
    print(f"rms difference of the effects {seen * 1e6:.3g} µs; expected {expected * 1e6:.3g} µs")
    print(f"at equal error {ratio:.1f} times fewer seconds; bar {BAR:g}: {ratio >= BAR}")


if __name__ == "__main__":
    main()
