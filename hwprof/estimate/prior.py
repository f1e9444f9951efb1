"""What effects on latency are likely to be before any network was timed.

Blocks that take long alone take long in a network, and so do blocks that multiply more. Neither
gives the figures, yet where networks are few both say much of what effects must be. They enter a
regression as directions: shrinking goes towards the best combination of them instead of towards
blocks that all cost the same, and networks decide how far (:func:`guided_ridge_fit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hwprof.space import Architecture, DesignSpace, Slot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwprof.estimate.design_matrix import DesignMatrix

    Floats = NDArray[np.float64]

NETWORKS_PER_COEFFICIENT = 2
SEED = 0


def directions(
    design: DesignMatrix, alone_s: Mapping[tuple[Slot, str], float] | None = None
) -> Floats:
    """Return what effects look like if latency were proportional to one figure of its blocks.

    Args:
        design: the design matrix of the space.
        alone_s: seconds of every block at every slot when it runs alone; left out where some
            block has none.

    Returns:
        ``float64[p, m]``, a column of coefficients for each figure: MACs, then seconds alone.
        Columns are scaled to a standard deviation of 1 over random networks; a figure that is
        the same for all networks has none.
    """
    space, rng = design.space, np.random.default_rng(SEED)
    archs = [
        space.sample(rng) for _ in range(NETWORKS_PER_COEFFICIENT * design.n_coefficients + 50)
    ]
    codes = design.encode(archs)
    figures = [_macs(space, archs)]
    if alone_s is not None and all(
        (s, b) in alone_s for s in space.slots for b in space.choices(s)
    ):
        figures.append(_summed(design, codes, alone_s))
    X = design.rows(codes)
    found = np.linalg.lstsq(X, np.column_stack(figures), rcond=None)[0]
    found[0] = 0.0
    spread = (X @ found).std(axis=0)
    # Rounding leaves a little where nothing differs.
    means = np.abs(np.mean(figures, axis=1))
    return np.asarray((found / np.where(spread > 0.0, spread, 1.0))[:, spread > 1e-9 * means])


def _macs(space: DesignSpace, archs: list[Architecture]) -> Floats:
    from hwprof.graph import architecture_cost

    return np.array([architecture_cost(space, a).macs for a in archs], dtype=np.float64)


def _summed(
    design: DesignMatrix, codes: NDArray[np.int64], alone_s: Mapping[tuple[Slot, str], float]
) -> Floats:
    total = np.zeros(len(codes))
    for column, decision in zip(codes.T, design.decisions, strict=True):
        slot = decision.slot
        if slot is not None:
            blocks = [alone_s.get((slot, name), 0.0) for name in decision.names]
            total += np.array([0.0, *blocks])[column + 1]
    return total
