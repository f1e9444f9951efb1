"""Looking up is the same as multiplying, and the same for one network as for many."""

from __future__ import annotations

import numpy as np
import pytest

from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.estimate.level_tables import LevelTables
from hwprof.results import Sample
from hwprof.space import get_space, space_names


@pytest.mark.parametrize("name", space_names())
def test_predictions_and_leverages_are_those_of_the_design_matrix(name: str) -> None:
    design = DesignMatrix(get_space(name))
    rng = np.random.default_rng(0)
    p = design.n_coefficients
    root = rng.normal(size=(p, p))
    coefficients, inverse = rng.normal(size=p), root @ root.T / p
    codes = design.space.encode_many([design.space.sample(rng) for _ in range(40)])
    X = design.rows(codes)
    value, leverage = LevelTables.of(design, coefficients, inverse).look_up(codes)
    np.testing.assert_allclose(value, X @ coefficients, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(leverage, ((X @ inverse) * X).sum(axis=1), rtol=1e-10)


@pytest.mark.parametrize("name", ["proxylessnas", "ofa-mbv3-w1.2", "ofa-resnet50"])
def test_one_by_one_gives_the_same_numbers_to_the_last_bit(name: str) -> None:
    space = get_space(name)
    rng = np.random.default_rng(1)
    archs = [space.sample(rng) for _ in range(300)]
    latency = 5e-3 + 1e-3 * rng.random(len(archs))
    pairs = zip(archs, latency.tolist(), strict=True)
    model = AdditiveLatencyModel.fit(space, [Sample(arch=a, latency_s=v) for a, v in pairs])
    many = model.predict_many(archs)
    assert np.unique(many[0]).size > 250
    np.testing.assert_array_equal(model.predict_encoded(space.encode_many(archs)), many)
    for i in range(0, len(archs), 10):
        assert model.predict_s(archs[i]) == (many[0][i], many[1][i])


@pytest.mark.parametrize("name", space_names())
def test_encoding_many_is_encoding_each(name: str) -> None:
    space = get_space(name)
    rng = np.random.default_rng(2)
    archs = [space.sample(rng) for _ in range(50)]
    codes = space.encode_many(archs)
    assert [space.decode(row) for row in codes] == archs
    np.testing.assert_array_equal(codes[7], space.encode(archs[7]))
