"""Predictions of a run: intervals of times that can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwprof import api
from hwprof.space import get_space


def test_no_interval_reaches_below_no_time_at_all(tmp_path: Path) -> None:
    """Ten networks whose latency no block explains: the model knows next to nothing."""
    space, rng = get_space("nasbench201"), np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(12)]
    lines = [f"{a.cell},{ms}" for a, ms in zip(archs, rng.lognormal(0.0, 1.5, 12), strict=True)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["arch,latency_ms", *lines]) + "\n")
    run = api.import_(table, space="nasbench201", device_name="board", out=tmp_path / "run")
    found = api.predict(run, archs)
    assert any(p.lo_s == 0.0 for p in found)
    for prediction in found:
        assert min(prediction.latency_s, 0.0) <= prediction.lo_s <= prediction.latency_s
        assert prediction.lo_s <= prediction.hi_s
