"""Latency models against the clock, on networks that none of them has seen.

    python -m tests.bench.bench_latency_model RUN --space proxylessnas [--device cpu]

RUN is a profile at the quick preset: every block alone and ``--fit`` random networks, which make the
models. RUN-truth has ``--test`` other random networks at the standard preset, which judge them: what
the quick preset leaves uncertain of a network is more than a good model errs by. So is what a slow
minute does to all networks that are timed in it: those whose verdict says so (drifting, as a rule), or
that are known beside the others to less than asked, do not judge, and with ``--passes 2`` all are
measured over again (RUN-truth2), and the mean of what was steady judges. What is measured already is read, so that RUN may be anybody's profile of that space.

Compared are the model of ``hwprof predict`` from ever more networks; a straight line through MACs;
the sum of blocks timed alone; and a random forest a kind of block, in the manner of nn-Meter, fitted
to blocks timed alone and summed (whole blocks stand in for nn-Meter's fused kernels), of every block
from the others, and having seen them all. The last three never see a network, so a second row of each
has the scale and the constant that fit the networks best. Brackets are 95 % intervals. Bars: 95 % of
networks within 5 %, 99.5 % within 10 %, rank correlation 0.99, 95 % intervals that cover 90 %, from
at most 300 networks and 30 minutes. Beside the rank correlation stands that of the judging networks
with themselves measured again, as far as their own intervals tell: no model can do better.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from hwprof import api
from hwprof.errors import SpaceError
from hwprof.estimate.crossval import spearman
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.estimate.run_analysis import fitted_model, run_space
from hwprof.graph import architecture_cost, piece_cost
from hwprof.isolated import piece_levels
from hwprof.measure.records import Measurement
from hwprof.results import Sample
from hwprof.space import Architecture, DesignSpace, Piece
from hwprof.space.pieces import SkipPiece
from hwprof.store import Run
from tests.bench.waiting import waited_seconds

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
        "coverage95": np.nan if half is None else float(np.mean(error <= half[known])),
    }


def mac_line(space: DesignSpace, fit: list[Sample], archs: Sequence[Architecture]) -> np.ndarray:
    """Predict from a straight line through MACs."""
    parts = ([s.arch for s in fit], archs)
    macs = [[architecture_cost(space, arch).macs for arch in part] for part in parts]
    slope, offset = np.polyfit(macs[0], [s.latency_s or 0.0 for s in fit], 1)
    return np.asarray(slope * np.array(macs[1]) + offset)


def summed(
    space: DesignSpace, archs: Sequence[Architecture], times: dict[Piece, float]
) -> np.ndarray:
    """Predict by summing pieces; NaN where one was not timed."""
    return np.array([sum(times.get(p, np.nan) for p in parts_of(space, arch)) for arch in archs])


def parts_of(space: DesignSpace, arch: Architecture) -> list[Piece]:
    """Return the pieces of a network that do something."""
    return [p.piece for p in space.pieces(arch) if not isinstance(p.piece, SkipPiece)]


def forest_times(times: dict[Piece, float], n_folds: int) -> dict[Piece, float]:
    """Predict every piece by a forest a kind, from the others of its kind in ``n_folds`` folds.

    With 1 the forest has seen every piece, as nn-Meter's has seen many like them.
    """
    from sklearn.ensemble import RandomForestRegressor

    out: dict[Piece, float] = {}
    for kind in sorted({piece.kind for piece in times}):
        pieces = [piece for piece in times if piece.kind == kind]
        X = np.array([features(piece) for piece in pieces])
        y = np.array([times[piece] for piece in pieces])
        if len(pieces) < 10:
            out.update(zip(pieces, y.tolist(), strict=True))
            continue
        fold = np.random.default_rng(0).permutation(len(pieces)) % n_folds
        for k in range(n_folds):
            train = (fold != k) | (n_folds == 1)
            forest = RandomForestRegressor(n_estimators=100, random_state=0)
            forest.fit(X[train], y[train])
            for i, value in zip(
                np.flatnonzero(fold == k), forest.predict(X[fold == k]), strict=True
            ):
                out[pieces[i]] = float(value)
    return out


def features(piece: Piece) -> list[float]:
    """Return nn-Meter's features of a kernel: its sizes, MACs, parameters; and its activation.

    nn-Meter has a forest for every activation, which so few pieces are too few for.
    """
    values = {f.name: getattr(piece, f.name) for f in fields(piece)}
    sizes = [float(v) for v in values.values() if isinstance(v, int | float)]
    cost = piece_cost(piece)
    hswish = float(values.get("act") == "hswish")
    return [*sizes, hswish, float(cost.macs), float(cost.params)]


def scaled(guess_fit: np.ndarray, actual_fit: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Return guesses with the scale and the constant that suit the fitted networks best."""
    if not np.isfinite(guess_fit).all():
        return np.full_like(guess, np.nan)
    slope, offset = np.polyfit(guess_fit, actual_fit, 1)
    return np.asarray(slope * guess + offset)


def main() -> None:
    """Print one line a model, and whether the bars are met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--space", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fit", type=int, default=100)
    parser.add_argument("--test", type=int, default=60)
    parser.add_argument("--passes", type=int, default=1, help="over the networks that judge")
    args = parser.parse_args()
    api.profile(space=args.space, device=args.device, out=args.run, networks=args.fit)
    passes = [judges(args, number) for number in range(1, args.passes + 1)]
    archs = list(dict.fromkeys(arch for found in passes for arch in found))
    known = [[found[arch] for found in passes if arch in found] for arch in archs]
    actual = np.array([np.mean([m.level_s for m in measured]) for measured in known])
    with Run.open(args.run) as run:
        space = run_space(run)
        seen = set(archs)
        fit = [s for s in run.networks() if s.latency_s is not None and s.arch not in seen]
        times = {piece: one.level.value for piece, one in piece_levels(run).items()}
        sizes = [n for n in (50, 100, 150, 200, 300) if n < len(fit)]
        models = {n: fitted_model(run, space, fit[:n]) for n in (*sizes, len(fit))}
        waited_s = waited_seconds(run.measurements())
    fitted = np.array([s.latency_s for s in fit], dtype=np.float64)
    forests = [forest_times(times, n_folds) for n_folds in (5, 1)]
    found = {}
    for n, model in models.items():
        found[f"hwprof, {n} networks"] = figures(
            *_known_only(model, archs, actual)  # a block that no network had is refused
        )
    found["MACs only"] = figures(mac_line(space, fit, archs), actual, None)
    for name, prices in (
        ("sum of isolated blocks", times),
        ("random forest, summed", forests[0]),
        ("random forest that saw all", forests[1]),
    ):
        guesses = [summed(space, part, prices) for part in ([s.arch for s in fit], archs)]
        found[name] = figures(guesses[1], actual, None)
        found[f"{name}, scaled"] = figures(scaled(guesses[0], fitted, guesses[1]), actual, None)
    half_pct = np.median([50 * (m.ci95_s[1] - m.ci95_s[0]) / m.level_s for ms in known for m in ms])
    print(
        f"{space.name} on {args.device}: {len(fit)} networks to fit, measured in "
        f"{waited_s / 60:.1f} minutes; {len(archs)} of {args.test} to judge, steady and known to "
        f"±{half_pct:.1f} % (median), {np.mean(actual) * 1e3:.1f} ms ± "
        f"{100 * np.std(actual) / np.mean(actual):.0f} %"
    )
    print(pd.DataFrame(found).T.to_string(float_format="{:.4f}".format))
    last = found[f"hwprof, {len(fit)} networks"]
    for name, bar in BARS.items():
        low, high = interval(name, last[name], len(archs))
        met = "met" if last[name] >= bar else "NOT MET"
        print(f"{name}: {last[name]:.3f} [{low:.3f}, {high:.3f}], bar {bar}: {met}")
    again = passes_agree(passes) if args.passes > 1 else intervals_agree(known)
    once = float(np.mean(again))
    # Spearman and Brown: how a mean of passes correlates with another such; its root, with the truth.
    most = np.sqrt(args.passes * once / (1.0 + (args.passes - 1) * once))
    print(f"spearman of one pass with another: {once:.3f}; of a perfect model: {most:.3f}")
    for what, spent, limit in (("networks", len(fit), 300), ("minutes", waited_s / 60.0, 30)):
        print(f"{what}: {spent:.4g}, at most {limit}: {'met' if spent <= limit else 'NOT MET'}")


def judges(args: argparse.Namespace, number: int) -> dict[Architecture, Measurement]:
    """Measure the networks that judge, in one pass of several; return those that are steady."""
    out = args.run.with_name(f"{args.run.name}-truth{number if number > 1 else ''}")
    api.profile(
        space=args.space,
        device=args.device,
        out=out,
        networks=args.test,
        isolated=False,
        preset="standard",
        seed=1,
    )
    with Run.open(out) as run:
        networks = [m for m in run.measurements() if m.workload.role == "network"]
    return {m.workload.arch: m for m in networks if m.workload.arch and is_steady(m)}


def is_steady(m: Measurement) -> bool:
    """Return whether a network is known beside the others as well as asked.

    What sessions differ by moves all that judge alike, so that it is left out.
    """
    low, high = m.beside_ci95_s
    is_narrow = high - low <= 2 * m.plan.target_for(m.workload) * m.level_s
    return m.verdict in ("clean", "noisy") and is_narrow


def passes_agree(passes: Sequence[dict[Architecture, Measurement]]) -> list[float]:
    """Return the rank correlation of every pass with every other."""
    archs = [arch for arch in passes[0] if all(arch in found for found in passes)]
    levels = [np.array([found[arch].level_s for arch in archs]) for found in passes]
    return [spearman(one, other) for one, other in combinations(levels, 2)]


def intervals_agree(known: Sequence[Sequence[Measurement]]) -> list[float]:
    """Return the rank correlations that measuring again would give, as far as intervals tell."""
    levels = np.array([m.level_s for (m,) in known])
    se_s = np.array([(m.beside_ci95_s[1] - m.beside_ci95_s[0]) / (2 * 1.96) for (m,) in known])
    rng = np.random.default_rng(0)
    return [spearman(levels, levels + rng.normal(0.0, se_s)) for _ in range(500)]


def interval(name: str, value: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a figure over n networks: Clopper-Pearson, or Bonett-Wright."""
    if name == "spearman":
        half = 1.96 * np.sqrt((1.0 + value**2 / 2.0) / (n - 3))
        centre = np.arctanh(min(value, 1.0 - 1e-12))
        return float(np.tanh(centre - half)), float(np.tanh(centre + half))
    found = binomtest(round(value * n), n).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def _known_only(
    model: AdditiveLatencyModel, archs: Sequence[Architecture], actual: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    predicted, half = np.full(len(archs), np.nan), np.full(len(archs), np.nan)
    for i, arch in enumerate(archs):
        with suppress(SpaceError):
            predicted[i], half[i] = model.predict_s(arch)
    return predicted, actual, half


if __name__ == "__main__":
    main()
