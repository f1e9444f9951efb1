"""The way from hot to cold sums: recovered where it is planted, with an interval that covers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwprof import api
from hwprof.api.contexts import mixing
from hwprof.campaign import sample_networks
from hwprof.errors import DataError
from hwprof.estimate.mixing import mixing_factor
from hwprof.results import Sample
from hwprof.space import Piece, get_space

SPACE = get_space("mobile-mini")


def times(seed: int) -> tuple[dict[Piece, float], dict[Piece, float]]:
    rng = np.random.default_rng(seed)
    hot = {piece: float(rng.uniform(1e-4, 1e-3)) for piece in SPACE.distinct_pieces()}
    return hot, {piece: value * float(rng.uniform(1.2, 2.0)) for piece, value in hot.items()}


def networks(factor: float, noise: float, seed: int, n: int = 60) -> list[Sample]:
    hot, cold = times(0)
    rng = np.random.default_rng(seed)
    found = []
    for arch in sample_networks(SPACE, seed, n):
        pieces = [placed.piece for placed in SPACE.pieces(arch)]
        sums = [sum(values[piece] for piece in pieces) for values in (hot, cold)]
        latency = sums[0] + factor * (sums[1] - sums[0])
        found.append(Sample(arch=arch, latency_s=latency * (1 + rng.normal(0.0, noise))))
    return found


def test_a_planted_factor_is_found() -> None:
    hot, cold = times(0)
    exact = mixing_factor(SPACE, networks(0.35, 0.0, 1), hot, cold)
    assert exact.factor.value == pytest.approx(0.35)
    assert exact.mixed_error == pytest.approx(0.0, abs=1e-12)
    assert exact.hot_error < 0.0 < exact.cold_error
    covered = 0
    for seed in range(40):
        interval = mixing_factor(SPACE, networks(0.35, 0.02, 100 + seed), hot, cold).factor
        covered += interval.lo <= 0.35 <= interval.hi
    # 95 % of 40 are 38; fewer than 34 has a probability of 0.4 %.
    assert covered >= 34


def test_blocks_that_were_not_timed_are_never_zero() -> None:
    hot, cold = times(0)
    with pytest.raises(DataError, match=r"0 networks .* profile with --cold"):
        mixing_factor(SPACE, networks(0.3, 0.0, 1), dict(list(hot.items())[:3]), cold)
    with pytest.raises(DataError, match="hot and cold sums are equal"):
        mixing_factor(SPACE, networks(0.3, 0.0, 1), hot, hot)


def test_profile_with_cold_blocks_reports_both(tmp_path: Path) -> None:
    script = json.dumps({"latency": {"base_s": 1e-5, "per_operator_s": 1e-5, "cold_factor": 1.5}})
    space = SPACE.restrict({s: SPACE.choices(s)[:2] for s in SPACE.slots}, (2, 1, 1))
    result = api.profile(
        space=space, device="null", out=tmp_path / "run", networks=20, cold=True, script=script
    )
    # Stem, first block, head and the blocks of three units, each hot and cold.
    assert result.n_left == 0
    assert result.n_done == 20 + 2 * len(space.distinct_pieces())
    found = mixing(tmp_path / "run")
    assert found is not None
    # The script prices hot calls; what is shared by all (10 µs a call) is counted once a piece.
    assert found.factor.value < 0.0
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    page = api.report(tmp_path / "run", out=tmp_path / "page").read_text()
    assert "of the way from hot to cold" in page.replace("\u00a0", " ")
    table = pd.read_csv(next((tmp_path / "page").rglob("isolated_vs_context.csv")))
    ratio = table["isolated_cold_s"] / table["isolated_hot_s"]
    assert ratio.to_numpy() == pytest.approx(1.5, rel=0.05)
