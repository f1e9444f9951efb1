"""How much a front is expected to gain from a network whose latency is known.

Where latency t is certain and the score is normal, the expected hypervolume improvement has a
closed form: the front is a staircase over latency, and above each of its steps to the right of t
the gain is the step's width times the expected improvement over its height (Jones et al. 1998;
Emmerich et al. 2006 for the general case of two uncertain goals).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from hwprof.pareto import front_indices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Staircase:
    """The front of the points met so far, above a floor and up to a last latency."""

    def __init__(
        self, latency: Sequence[float] | Floats, score: Sequence[float] | Floats, *, end: float
    ) -> None:
        """Build the front; its floor is the lowest score.

        Args:
            latency: of every point, any unit.
            score: of every point; more is better.
            end: latency beyond which nothing is gained.
        """
        self._latency = np.asarray(latency, dtype=float)
        self._score = np.asarray(score, dtype=float)
        self._floor = float(self._score.min())
        self._end = end
        self._keep_front()

    def add(self, latency: float, score: float) -> None:
        """Take in another point."""
        self._latency = np.append(self._latency, latency)
        self._score = np.append(self._score, score)
        self._keep_front()

    def expected_gain(self, latency: Floats, mean: Floats, sd: Floats) -> Floats:
        """Return the expected growth of the hypervolume, ``float64[n]``.

        Args:
            latency: of every candidate, ``float64[n]``.
            mean: expected score of every candidate.
            sd: its standard deviation, above zero.
        """
        edges = np.minimum(np.concatenate([[-np.inf], self._latency, [self._end]]), self._end)
        heights = np.concatenate([[self._floor], np.maximum(self._score, self._floor)])
        widths = np.clip(edges[1:] - np.maximum(latency[:, None], edges[:-1]), 0.0, None)
        z = (mean[:, None] - heights) / sd[:, None]
        density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
        improvement = sd[:, None] * (z * ndtr(z) + density)
        gains: Floats = (widths * improvement).sum(axis=1)
        return gains

    def _keep_front(self) -> None:
        front = front_indices(self._latency, self._score)
        self._latency, self._score = self._latency[front], self._score[front]
