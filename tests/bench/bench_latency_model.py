"""Latency models against the clock, on networks that none of them has seen.

    python tests/bench/bench_latency_model.py RUN                      # a profile's folder
    python tests/bench/bench_latency_model.py RUN --space proxylessnas --device cpu  # measures it

The first ``--fit`` networks of the run (300 at most count towards the bars) make the models, the
``--test`` after them judge: both are random networks of the space in a fixed order. Compared are
the model of ``hwprof predict``; a straight line through MACs; the sum of blocks timed alone; and a
random forest a kind of block, in the manner of nn-Meter, fitted to blocks timed alone and summed
(whole blocks stand in for nn-Meter's fused kernels). Bars: 95 % of networks within 5 %, 99.5 %
within 10 %, rank correlation 0.99, 95 % intervals that cover 90 %.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hwprof import api
from hwprof.api.runs import open_run, run_space
from hwprof.estimate.crossval import spearman
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.graph import architecture_cost, piece_cost
from hwprof.isolated import piece_levels
from hwprof.results import Sample
from hwprof.space import Architecture, DesignSpace, Piece
from hwprof.space.pieces import SkipPiece

BARS = {"within_5pct": 0.95, "within_10pct": 0.995, "spearman": 0.99, "coverage95": 0.90}


def figures(predicted: np.ndarray, actual: np.ndarray, half: np.ndarray | None) -> dict[str, Any]:
    """Return what the bars ask of one model's predictions; NaN where it has none."""
    known = np.isfinite(predicted)
    if not known.any():
        return {"n": 0}
    error = np.abs(predicted[known] - actual[known])
    return {
        "n": int(known.sum()),
        "median_rel_error": float(np.median(error / actual[known])),
        "within_5pct": float(np.mean(error <= 0.05 * actual[known])),
        "within_10pct": float(np.mean(error <= 0.10 * actual[known])),
        "spearman": spearman(predicted[known], actual[known]),
        "coverage95": None if half is None else float(np.mean(error <= half[known])),
    }


def mac_line(space: DesignSpace, fit: list[Sample], test: list[Sample]) -> np.ndarray:
    """Predict from a straight line through MACs."""
    macs = [[architecture_cost(space, s.arch).macs for s in part] for part in (fit, test)]
    slope, offset = np.polyfit(macs[0], [s.latency_s or 0.0 for s in fit], 1)
    return np.asarray(slope * np.array(macs[1]) + offset)


def summed(space: DesignSpace, test: list[Sample], times: dict[Piece, float]) -> np.ndarray:
    """Predict by summing pieces; NaN where one was not timed."""
    return np.array(
        [sum(times.get(p, np.nan) for p in parts_of(space, sample.arch)) for sample in test]
    )


def parts_of(space: DesignSpace, arch: Architecture) -> list[Piece]:
    """Return the pieces of a network that do something."""
    return [p.piece for p in space.pieces(arch) if not isinstance(p.piece, SkipPiece)]


def forest_times(times: dict[Piece, float]) -> dict[Piece, float]:
    """Predict every piece from the others of its kind: a forest a kind, five folds."""
    from sklearn.ensemble import RandomForestRegressor

    out: dict[Piece, float] = {}
    for kind in sorted({piece.kind for piece in times}):
        pieces = [piece for piece in times if piece.kind == kind]
        X = np.array([features(piece) for piece in pieces])
        y = np.array([times[piece] for piece in pieces])
        if len(pieces) < 10:
            out.update(zip(pieces, y.tolist(), strict=True))
            continue
        fold = np.random.default_rng(0).permutation(len(pieces)) % 5
        for k in range(5):
            forest = RandomForestRegressor(n_estimators=100, random_state=0)
            forest.fit(X[fold != k], y[fold != k])
            for i, value in zip(
                np.flatnonzero(fold == k), forest.predict(X[fold == k]), strict=True
            ):
                out[pieces[i]] = float(value)
    return out


def features(piece: Piece) -> list[float]:
    """Return nn-Meter's features of a kernel: its sizes, MACs and parameters."""
    sizes = [
        float(getattr(piece, f.name))
        for f in fields(piece)
        if isinstance(getattr(piece, f.name), int | float)
    ]
    cost = piece_cost(piece)
    return [*sizes, float(cost.macs), float(cost.params)]


def main() -> None:
    """Print one line a model, and whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--space", help="measure this space first, if the run is not complete")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fit", type=int, default=300)
    parser.add_argument("--test", type=int, default=100)
    args = parser.parse_args()
    if args.space is not None:
        api.profile(
            space=args.space, device=args.device, out=args.run, networks=args.fit + args.test
        )
    with open_run(args.run) as run:
        space = run_space(run)
        timed = [s for s in run.networks() if s.latency_s is not None]
        times = {piece: level.value for piece, level in piece_levels(run).items()}
    fit, test = timed[: args.fit], timed[args.fit : args.fit + args.test]
    if not test:
        parser.error(f"{args.run} has {len(timed)} networks; expected over {args.fit} (--fit)")
    actual = np.array([s.latency_s for s in test], dtype=np.float64)
    model = AdditiveLatencyModel.fit(space, fit)
    predicted, half = model.predict_many([s.arch for s in test])
    found = {
        "hwprof": figures(predicted, actual, half),
        "MACs only": figures(mac_line(space, fit, test), actual, None),
        "sum of isolated blocks": figures(summed(space, test, times), actual, None),
        "random forest, summed": figures(summed(space, test, forest_times(times)), actual, None),
    }
    print(f"{space.name}, {len(fit)} networks to fit, {len(test)} to judge; {model.interaction=}")
    print(pd.DataFrame(found).T.to_string())
    for name, bar in BARS.items():
        value = found["hwprof"][name]
        print(f"{name}: {value:.3f}, bar {bar}: {'met' if value >= bar else 'NOT MET'}")


if __name__ == "__main__":
    main()
