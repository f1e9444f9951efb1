"""Effects out of a table: what it leaves out is said, metric by metric, not only taken as zero."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwprof.errors import DataError
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.effects_csv import friendliness_from_csv
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.responses import Friendliness
from hwprof.results import Sample
from hwprof.space import DesignSpace, get_space


def fitted(name: str) -> Friendliness:
    return fitted_in(get_space(name))


def fitted_in(space: DesignSpace) -> Friendliness:
    design, rng = DesignMatrix(space), np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(2 * design.n_coefficients)]
    noise = rng.normal(0.0, 1e-3, (2, len(archs)))
    return fit_friendliness(
        space,
        [
            Sample(arch=arch, latency_s=0.01 + s, accuracy_pct=70.0 + p)
            for arch, s, p in zip(archs, *noise, strict=True)
        ],
    )


def notes_without(found: Friendliness, missing: dict[str, str], path: Path) -> str:
    """Read the effects back where the named kinds have no latency, or no accuracy."""
    frame = pd.DataFrame([effect.to_row() for effect in found.effects])
    for kind, metric in missing.items():
        columns = [c for c in frame.columns if c.startswith(metric)]
        frame.loc[frame["kind"] == kind, columns] = np.nan
    frame.to_csv(path, index=False)
    return " | ".join(friendliness_from_csv(path, found.space).notes)


def test_a_whole_table_lacks_nothing(tmp_path: Path) -> None:
    assert "zero" not in notes_without(fitted("mobile-mini"), {}, tmp_path / "all.csv").replace(
        "summing to zero", ""
    )


@pytest.mark.parametrize(
    ("name", "missing", "said"),
    [
        ("mobile-mini", {"depth": "accuracy"}, "no effects of depth on accuracy"),
        ("mobile-mini", {"depth": "latency"}, "no effects of depth on latency"),
        ("ofa-resnet50", {"factor": "latency"}, "such as widths on latency: they are taken"),
        ("mobile-mini", {"block": "accuracy"}, "no effects of single slots on accuracy"),
    ],
)
def test_what_one_metric_lacks_is_said(
    tmp_path: Path, name: str, missing: dict[str, str], said: str
) -> None:
    notes = notes_without(fitted(name), missing, tmp_path / "some.csv")
    assert said in notes
    assert notes.count(" | ") == 1


def test_a_compressed_table_that_was_cut_short_is_said_to_be(tmp_path: Path) -> None:
    found = fitted("mobile-mini")
    whole = gzip.compress(found.to_csv().encode())
    path = tmp_path / "effects.csv.gz"
    for content in (whole[: len(whole) // 2], whole[:100] + bytes(40) + whole[140:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot read the effects"):
            friendliness_from_csv(path, found.space)


def test_a_block_that_looks_like_a_number_keeps_its_name(tmp_path: Path) -> None:
    """Such as 3e6, a kernel and an expansion in a family of the user's own."""
    mini = get_space("mobile-mini")
    short = {
        slot: tuple(b.removeprefix("mbconv_k").replace("_e", "e") for b in blocks)
        for slot, blocks in mini.candidates.items()
    }
    found = fitted_in(replace(mini, candidates=short, alive=short))
    assert "3e6" in {e.block for e in found.effects}
    path = tmp_path / "effects.csv"
    path.write_text(found.to_csv())
    again = friendliness_from_csv(path, found.space)
    np.testing.assert_allclose(again.latency.values, found.latency.values, atol=1e-12)
