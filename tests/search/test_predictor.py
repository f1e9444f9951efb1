"""The published accuracy predictor: its code, its arithmetic, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hwprof.errors import DataError, SpaceError
from hwprof.search.scoring.accuracy import open_accuracy
from hwprof.search.scoring.predictor import N_INPUTS, PredictorAccuracy, encode
from hwprof.space import Architecture, get_space

DATA = Path(__file__).resolve().parents[2] / ".." / "shared/data"


def ofa(space: str = "ofa-mbv3-w1.2", px: int = 160, seed: int = 0) -> Architecture:
    return get_space(space, px).sample(np.random.default_rng(seed))


class TestPredictor:
    @staticmethod
    def save(path: Path, **arrays: np.ndarray) -> str:
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return f"predictor:{path}"

    @staticmethod
    def random_layers(*widths: int, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        arrays = {}
        for i, (a, b) in enumerate(pairwise(widths)):
            arrays[f"{2 * i}.weight"] = rng.standard_normal((b, a)).astype(np.float32)
            arrays[f"{2 * i}.bias"] = rng.standard_normal(b).astype(np.float32)
        return arrays

    def test_code_by_hand(self):
        # Unit 0 of two layers, the others as short; 144 px is resolution (144 - 112) // 16 = 2.
        two = ("mbconv_k5_e4", "mbconv_k3_e6")
        arch = Architecture(
            space="ofa-mbv3-w1.2", resolution_px=144, units=(two, *[("mbconv_k7_e3",) * 2] * 4)
        )
        expected = {120 + 2}
        expected |= {0 * 3 + 1, 60 + 0 * 3 + 1}  # block 0: kernel 5 is second, expansion 4 second
        expected |= {1 * 3 + 0, 60 + 1 * 3 + 2}  # block 1: kernel 3 is first, expansion 6 third
        for unit in (1, 2, 3, 4):
            for layer in (0, 1):
                expected |= {(unit * 4 + layer) * 3 + 2, 60 + (unit * 4 + layer) * 3}
        (code,) = encode([arch])
        assert set(np.flatnonzero(code).tolist()) == expected
        assert set(np.unique(code).tolist()) == {0.0, 1.0}

    def test_forward_by_hand(self, tmp_path: Path):
        # One hidden unit counts first-block kernels of 7 above a threshold, the other is dead.
        weight = np.zeros((2, N_INPUTS), dtype=np.float32)
        weight[0, 2] = 0.5
        weight[1] = -1.0
        arrays = {
            "0.weight": weight,
            "0.bias": np.array([0.25, 0.0], dtype=np.float32),
            "2.weight": np.array([[0.5, 9.0]], dtype=np.float32),
            "2.bias": np.array([0.25], dtype=np.float32),
        }
        source = open_accuracy(self.save(tmp_path / "p.npz", **arrays))
        arch = ofa()
        units = [list(u) for u in arch.units]
        units[0][0] = "mbconv_k7_e3"
        with_7 = replace(arch, units=tuple(map(tuple, units)))
        units[0][0] = "mbconv_k3_e3"
        without = replace(arch, units=tuple(map(tuple, units)))
        # 0.5 · (0.5 + 0.25) + 0.25 = 0.625 and 0.5 · 0.25 + 0.25 = 0.375, as fractions.
        assert source.score([with_7, without]) == [62.5, 37.5]

    def test_many_at_once_are_the_same_as_one_by_one(self, tmp_path: Path, monkeypatch):
        source = open_accuracy(
            self.save(tmp_path / "p.npz", **self.random_layers(N_INPUTS, 16, 8, 1))
        )
        archs = [ofa(seed=s) for s in range(12)]
        together = source.score(archs)
        alone = [source.score([a])[0] for a in archs]
        monkeypatch.setattr("hwprof.search.scoring.predictor.CHUNK", 5)
        assert together == pytest.approx(alone, rel=1e-4)
        assert source.score(archs) == pytest.approx(alone, rel=1e-4)
        assert len(set(together)) == 12

    def test_equals_torch(self, tmp_path: Path):
        arrays = self.random_layers(N_INPUTS, 32, 32, 1)
        source = open_accuracy(self.save(tmp_path / "p.npz", **arrays))
        perceptron = torch.nn.Sequential(
            torch.nn.Linear(N_INPUTS, 32), torch.nn.ReLU(),
            torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1),
        )  # fmt: skip
        perceptron.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
        archs = [ofa(seed=s) for s in range(5)]
        with torch.no_grad():
            expected = 100 * perceptron(torch.from_numpy(encode(archs)))[:, 0]
        assert source.score(archs) == pytest.approx(expected.tolist(), rel=1e-4)

    @pytest.mark.parametrize(
        "arch",
        [get_space("proxylessnas").sample(np.random.default_rng(0)), ofa(px=96), ofa(px=256)],
        ids=["space", "small", "large"],
    )
    def test_other_networks_are_refused(self, arch: Architecture, tmp_path: Path):
        source = open_accuracy(self.save(tmp_path / "p.npz", **self.random_layers(N_INPUTS, 1)))
        with pytest.raises(SpaceError, match="the predictor knows"):
            source.score([arch])

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"x": np.zeros(3)}, "expected a weight and a bias of every layer"),
            (random_layers(100, 1), r"weight \(1, 100\)"),
            (random_layers(N_INPUTS, 4, 2), r"weight \(2, 4\)"),
            (random_layers(N_INPUTS, 4, 1) | {"0.bias": np.zeros(3)}, r"bias \(3,\)"),
            (random_layers(N_INPUTS, 1) | {"0.bias": np.array([np.nan])}, "not finite"),
        ],
    )
    def test_wrong_arrays(self, arrays: dict[str, np.ndarray], message: str, tmp_path: Path):
        with pytest.raises(DataError, match=message):
            open_accuracy(self.save(tmp_path / "p.npz", **arrays))

    def test_the_published_predictor(self):
        path = DATA / "ofa_acc_predictor_mbv3_w12.npz"
        if not path.is_file():
            pytest.skip("../shared/data with the OFA accuracy predictor is absent")
        source = PredictorAccuracy.open(path)
        assert [w.shape for w, _ in source.layers] == [(400, 128), (400, 400), (400, 400), (1, 400)]
        large = [("mbconv_k7_e6",) * 4] * 5
        by_size: list[Any] = source.score(
            [
                Architecture(space="ofa-mbv3-w1.2", resolution_px=px, units=tuple(large))
                for px in (160, 176, 192, 208, 224)
            ]
        )
        assert by_size == sorted(by_size)
        assert all(70 < score < 90 for score in by_size), "percent"
        units: list[tuple[str, ...]] = [("mbconv_k3_e3",) * 2] * 5
        grown = []
        for unit in range(6):
            grown.append(Architecture(space="ofa-mbv3-w1.2", resolution_px=224, units=tuple(units)))
            units[unit % 5] = large[0]
        scores: list[Any] = source.score(grown)
        assert scores == sorted(scores)

    def test_sizes_that_it_was_not_trained_on_are_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        source = open_accuracy(self.save(tmp_path / "p.npz", **self.random_layers(N_INPUTS, 1)))
        source.score([ofa(px=160)])
        assert not caplog.text
        source.score([ofa(px=144)])
        assert "trained on networks of 160 px and more" in caplog.text
