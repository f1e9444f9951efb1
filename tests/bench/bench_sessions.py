"""What does it bring to take out of a run what its sessions differ by?

    python -m tests.bench.bench_sessions RUN

Of the networks that a `hwprof profile` timed, in groups of up to 31: how far those lie apart, and,
with that taken out and without, the residual of the sum of effects, the median half-width of the
effects' 95 % intervals, and what cross-validation says of the latency model. Where a machine keeps
still nothing is taken out, and both columns are the same.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.run_analysis import fitted_model, run_space
from hwprof.results import Sample
from hwprof.store import Run
from tests.bench.arguments import existing


def figures(run: Run, samples: list[Sample]) -> dict[str, str]:
    """Return what effects and model are known to, in per cent of the mean latency."""
    space = run_space(run)
    effects = fit_friendliness(space, samples)
    assert effects.mean_latency is not None
    mean_s = effects.mean_latency.value
    halves_s = [e.latency.half_width for e in effects.effects if e.latency is not None]
    held = fitted_model(run, space, samples).holdout
    residual_s = effects.latency.residual_sd if effects.latency is not None else None
    assert residual_s is not None
    found = {
        "residual": f"{residual_s / mean_s:.2%}",
        "median half-width of an effect": f"{np.median(halves_s) / mean_s:.2%}",
    }
    if held is not None:
        found |= {
            "median error of networks not seen": f"{held.median_rel_error:.2%}",
            "rank correlation": f"{held.spearman:.3f}",
            "95 % intervals hold": f"{held.coverage95:.0%}",
            "sessions apart": f"{held.sessions_apart:.2%}",
        }
    return found


def main() -> None:
    """Print both columns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=existing)
    arguments = parser.parse_args()
    with Run.open(arguments.run) as run:
        samples = [s for s in run.networks() if s.latency_s is not None]
        taken_out = figures(run, samples)
        left_in = figures(run, [replace(s, session=None) for s in samples])
    print(f"{len(samples)} networks in {len({s.session for s in samples})} sessions")
    print("| | taken out | left in |\n|---|---:|---:|")
    for name, value in taken_out.items():
        print(f"| {name} | {value} | {left_in[name]} |")


if __name__ == "__main__":
    main()
