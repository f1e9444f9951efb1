"""A value with its 95 % interval."""

from __future__ import annotations

from typing import NamedTuple

NORMAL_975 = 1.959963984540054
"""97.5 % quantile of the normal distribution: standard deviations that a 95 % interval reaches either
way."""


class Interval(NamedTuple):
    """A value with its 95 % interval, all in one unit."""

    value: float
    lo: float
    hi: float

    @property
    def half_width(self) -> float:
        """Half the interval's width."""
        return 0.5 * (self.hi - self.lo)

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign is settled."""
        return self.lo > 0.0 or self.hi < 0.0
