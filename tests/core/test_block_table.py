"""A table of blocks is a latency model: sums, exact effects, and what it cannot know."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from hwprof import api
from hwprof.api.runs import latency_model
from hwprof.campaign import default_n_networks
from hwprof.errors import DataError
from hwprof.estimate.block_table import (
    RELATIVE,
    SUMS,
    table_friendliness,
    table_model,
    table_samples,
)
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.latency_model_file import read_model, write_model
from hwprof.importing import import_csv
from hwprof.results import Sample
from hwprof.space import DesignSpace, get_space, space_names
from hwprof.store import ImportedBlock

FIXED_S = 3e-3
SD_S, COUNT = 4e-5, 16


def blocks_of(space: DesignSpace, *, fixed: bool = True, sd_s: float | None = SD_S):
    """A made-up table: every block of every slot, and one line for the rest."""
    rng = np.random.default_rng(0)

    def line(unit: int | None, layer: int | None, block: str, latency_s: float) -> ImportedBlock:
        return ImportedBlock(
            resolution_px=space.resolution_px,
            unit=unit,
            layer=layer,
            block=block,
            latency_s=latency_s,
            sd_s=sd_s,
            count=COUNT,
        )

    found = [
        line(slot.unit, slot.layer, block, float(rng.uniform(1e-4, 1e-3)))
        for slot in space.slots
        for block in space.choices(slot)
    ]
    return [*found, line(None, None, "fixed", FIXED_S)] if fixed else found


def draw(space: DesignSpace, n: int, seed: int = 1):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


WITHOUT_FACTORS = [name for name in space_names() if not get_space(name).factors]


@pytest.mark.parametrize("name", WITHOUT_FACTORS)
def test_a_network_takes_the_sum_of_its_lines(name: str) -> None:
    space = get_space(name)
    blocks = blocks_of(space)
    cost = {(b.unit, b.layer, b.block): b.latency_s for b in blocks}
    archs = draw(space, 20)
    latency, half = table_model(space, blocks).predict_many(archs)
    for arch, value, width in zip(archs, latency, half, strict=True):
        codes = zip(space.slots, space.encode(arch), strict=True)
        held = [(slot, space.base_choices(slot)[code]) for slot, code in codes if code >= 0]
        expected = FIXED_S + sum(cost[slot.unit, slot.layer, block] for slot, block in held)
        assert value == pytest.approx(expected, rel=1e-12)
        # Standard errors of the lines that are added up, independent: 4e-5/√16 each.
        assert width == pytest.approx(1.96 * SD_S / COUNT**0.5 * (len(held) + 1) ** 0.5, rel=1e-3)


def test_effects_are_those_of_endless_networks() -> None:
    space = get_space("mobile-mini")
    blocks = blocks_of(space, sd_s=None)
    exact = table_friendliness(space, blocks)
    archs = draw(space, 200)
    latency, half = table_model(space, blocks).predict_many(archs)
    assert (half < 1e-7).all()
    fitted = fit_friendliness(
        space, [Sample(arch=a, latency_s=float(y)) for a, y in zip(archs, latency, strict=True)]
    )
    np.testing.assert_allclose(exact.latency.values, fitted.latency.values, atol=1e-12)
    assert exact.mean_latency is not None
    assert fitted.mean_latency is not None
    assert exact.mean_latency.value == pytest.approx(fitted.mean_latency.value, rel=1e-10)
    assert all(e.latency == (e.latency.value,) * 3 for e in exact.effects if e.latency)
    assert exact.n_networks == 0
    assert exact.notes == (SUMS,)


def test_spread_of_the_lines_reaches_the_effects() -> None:
    """β of one of K blocks has the variance (1 − 1/K) s² of a deviation from the mean of K."""
    space = get_space("mobile-mini")
    found = table_friendliness(space, blocks_of(space))
    for effect in found.of_kind("block"):
        assert effect.latency is not None
        assert effect.unit is not None
        k = len(space.choices(space.slots[0]))
        assert effect.latency.half_width == pytest.approx(
            1.96 * SD_S / COUNT**0.5 * (1 - 1 / k) ** 0.5, rel=1e-3
        )


def test_accuracy_comes_from_networks_that_the_table_prices() -> None:
    space = get_space("mobile-mini")
    model = table_model(space, blocks_of(space))
    samples = table_samples(model)
    assert len(samples) == default_n_networks(space)
    assert samples == table_samples(model)
    scored = [
        Sample(arch=s.arch, latency_s=s.latency_s, accuracy_pct=1e4 * (s.latency_s or 0.0))
        for s in samples
    ]
    found = table_friendliness(space, blocks_of(space), scored)
    assert found.accuracy is not None
    np.testing.assert_allclose(found.accuracy.values, 1e4 * found.latency.values, atol=1e-8)


def test_without_a_constant_part_everything_is_relative(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space = get_space("mobile-mini")
    found = table_friendliness(space, blocks_of(space, fixed=False))
    assert found.mean_latency is None
    assert found.notes == (SUMS, RELATIVE)
    run = imported(space, tmp_path, blocks_of(space, fixed=False))
    caplog.clear()
    latency_model(run)
    assert RELATIVE in caplog.text


def test_what_the_table_lacks_is_named() -> None:
    space = get_space("mobile-mini")
    with pytest.raises(DataError, match=r"no line for mbconv_\w+ at u0\.l0 of mobile-mini"):
        table_model(space, blocks_of(space)[1:])
    with pytest.raises(DataError, match="does not say what the stem_depth of ofa-resnet50 costs"):
        table_model(get_space("ofa-resnet50"), [])


@pytest.mark.parametrize(("name", "block"), [("proxylessnas", "skip"), ("nasbench201", "none")])
def test_what_does_nothing_may_be_missing(name: str, block: str) -> None:
    space = get_space(name)
    model = table_model(space, [b for b in blocks_of(space) if b.block != block])
    table = model.table()
    slot = next(s for s in space.slots if block in space.choices(s))
    others = [table[slot, b] for b in space.choices(slot) if b != block]
    assert table[slot, block] < min(others)


def imported(space: DesignSpace, folder: Path, blocks: list[ImportedBlock]) -> Path:
    """Write the table as a CSV and import it."""
    path = folder / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["resolution_px", "unit", "layer", "block", "latency_s", "sd_s", "count"])
        for b in blocks:
            place = ("" if v is None else v for v in (b.unit, b.layer))
            writer.writerow([b.resolution_px, *place, b.block, b.latency_s, b.sd_s, b.count])
    import_csv(path, space, "npu", folder / "run").close()
    return folder / "run"


def test_an_imported_table_serves_every_command(tmp_path: Path) -> None:
    space = get_space("mobile-mini")
    blocks = blocks_of(space)
    run = imported(space, tmp_path, blocks)
    archs = draw(space, 3)
    expected, _ = table_model(space, blocks).predict_many(archs)
    predictions = list(api.predict(run, archs))
    assert [p.latency_s for p in predictions] == pytest.approx(expected.tolist())
    assert all(p.lo_s < p.latency_s < p.hi_s for p in predictions)
    found = api.effects(run)
    exact = table_friendliness(space, blocks)
    np.testing.assert_allclose(found.latency.values, exact.latency.values, rtol=1e-12)
    assert found.device == "npu"
    reduction = api.reduce(run)
    assert reduction.device == "npu"
    model, device = latency_model(run)
    assert device == "npu"
    write_model(model, tmp_path / "model.npz")
    again = read_model(tmp_path / "model.npz")
    np.testing.assert_array_equal(again.predict_many(archs), model.predict_many(archs))


def test_a_file_of_networks_is_predicted_at_once(tmp_path: Path) -> None:
    space = get_space("nasbench201")
    blocks = blocks_of(space)
    run = imported(space, tmp_path, blocks)
    archs = draw(space, 5)
    texts = [str(archs[0].cell), *(json.dumps(a.to_json()) for a in archs[1:])]
    path = tmp_path / "networks.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["arch"], *([text] for text in texts)])
    latency, half = table_model(space, blocks).predict_many(archs)
    found = list(api.predict(run, path))
    assert [p.arch for p in found] == archs
    assert [p.latency_s for p in found] == latency.tolist()
    assert [p.hi_s for p in found] == (latency + half).tolist()
    with path.open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(DataError, match=r"networks\.csv line 7, arch: .*cell string"):
        api.predict(run, path)


def test_a_reduced_space_is_priced_too() -> None:
    space = get_space("mobile-mini")
    reduced = space.restrict({space.slots[0]: space.choices(space.slots[0])[:2]})
    blocks = blocks_of(space)
    found = table_friendliness(reduced, blocks)
    design = DesignMatrix(reduced)
    assert len(found.effects) == len(design.terms)
    archs = draw(reduced, 5)
    np.testing.assert_allclose(
        table_model(reduced, blocks).predict_many(archs)[0],
        table_model(space, blocks).predict_many(archs)[0],
        rtol=1e-12,
    )
