"""A verdict that is the same for every network."""

from __future__ import annotations

import numpy as np

from hwprof.results import Trial
from hwprof.space import get_space

EQUAL = Trial(
    arch=get_space("mobile-mini").sample(np.random.default_rng(0)),
    accuracy_pct=50.0,
    accuracy_source="made up",
    latency_s=1.0,
    latency_source="predicted",
    macs=1,
    params=1,
)
