"""Effects that are known, planted into random networks of a small space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.responses import Friendliness
from hwprof.results import Sample
from hwprof.space import DesignSpace, get_space

MINI = "mobile-mini"
BLOCKS = ("mbconv_k3_e3", "mbconv_k5_e3", "mbconv_k7_e3", "mbconv_k3_e6", "mbconv_k5_e6")
LAST = "mbconv_k7_e6"


def coefficients(
    design: DesignMatrix,
    mean: float,
    depth: float,
    blocks: dict[str, float],
    rng: np.random.Generator | None = None,
    spread: float = 0.0,
) -> np.ndarray:
    """Return free coefficients in which every slot has these block effects (centred).

    With ``rng`` every slot's own effects differ from them by normal noise of sd ``spread``.
    """
    out = np.zeros(design.n_coefficients)
    out[0] = mean
    for decision in design.decisions:
        if decision.slot is None:
            continue
        if decision.has_depth:
            out[decision.columns.start] = depth
        alive = design.space.choices(decision.slot)
        values = np.array([blocks.get(b, 0.0) for b in alive])
        if rng is not None:
            values = values + rng.normal(0.0, spread, len(values))
        values = values - values.mean()
        out[decision.columns.start + decision.has_depth : decision.columns.stop] = values[:-1]
    return out


def measured(
    space: DesignSpace,
    seconds: np.ndarray,
    points: np.ndarray | None,
    *,
    seed: int,
    n: int = 200,
    noise_s: float = 5e-5,
    noise_pct: float = 0.3,
) -> Friendliness:
    design = DesignMatrix(space)
    rng = np.random.default_rng(seed)
    archs = [space.sample(rng) for _ in range(n)]
    X = design.rows(design.encode(archs))
    latency = X @ seconds + rng.normal(0.0, noise_s, n)
    accuracy = [None] * n if points is None else X @ points + rng.normal(0.0, noise_pct, n)
    samples = [
        Sample(arch=a, latency_s=float(y), accuracy_pct=None if p is None else float(p))
        for a, y, p in zip(archs, latency, accuracy, strict=True)
    ]
    found = fit_friendliness(space, samples)
    return replace(found, device="dev", fingerprint={"digest": "d"})


def random_truth(seed: int) -> tuple[DesignSpace, np.ndarray, np.ndarray]:
    """A small space as a laptop shows it: bigger blocks slower and mostly better."""
    space = get_space(MINI)
    design = DesignMatrix(space)
    rng = np.random.default_rng(seed)
    size = {b: i for i, b in enumerate((*BLOCKS, LAST))}
    slower, better = (
        {b: 0.12e-3 * i for b, i in size.items()},
        {b: 0.1 * i for b, i in size.items()},
    )
    seconds = coefficients(design, 10e-3, 1.2e-3, slower, rng, 0.05e-3)
    points = coefficients(design, 70.0, 0.7, better, rng, 0.2)
    return space, seconds, points


def noisy(seed: int, noise_pct: float = 1.5) -> Friendliness:
    space, seconds, points = random_truth(seed)
    return measured(
        space, seconds, points, seed=1000 + seed, n=160, noise_s=1.5e-4, noise_pct=noise_pct
    )
