"""What a search has spent."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field


@dataclass(kw_only=True)
class Ledger:
    """Counts and seconds; those of an interrupted search are carried on.

    ``evaluations`` counts distinct networks handed to the accuracy source: what a budget limits.
    ``proposals`` counts all that the strategy asked for, ``refused`` those that got no verdict.
    """

    evaluations: int = 0
    proposals: int = 0
    refused: int = 0
    accuracy_s: float = 0.0
    measured: int = 0
    """Finalists measured on the device."""
    measuring_s: float = 0.0
    training_s: float = 0.0
    """Training that the search did itself, before it judged; apart from ``wall_s``."""
    wall_s: float = 0.0
    _since_s: float = field(default_factory=time.monotonic, repr=False)

    def tick(self) -> float:
        """Bring ``wall_s`` up to now and return it."""
        now_s = time.monotonic()
        self.wall_s += now_s - self._since_s
        self._since_s = now_s
        return self.wall_s

    def to_json(self) -> dict[str, float]:
        """Return counts and seconds as plain data."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("_")}
