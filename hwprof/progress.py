"""What every long-running part tells about itself while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stage is: ``done`` of ``total`` steps, and how long it will still take."""

    stage: str
    done: int
    total: int
    label: str = ""
    """What is being done right now."""
    eta_s: float | None = None
    n_failed: int = 0


ProgressCallback = Callable[[Progress], None]


@dataclass(kw_only=True)
class Pace:
    """Estimates the time left from the time taken so far.

    ``done_before`` steps were finished earlier and say nothing about the present pace.
    """

    total: int
    done_before: int = 0
    started_s: float = field(default_factory=time.monotonic)

    def eta_s(self, done: int) -> float | None:
        """Return the seconds left, or None before the first step is done."""
        fresh = done - self.done_before
        if fresh <= 0:
            return None
        return (time.monotonic() - self.started_s) / fresh * max(self.total - done, 0)
