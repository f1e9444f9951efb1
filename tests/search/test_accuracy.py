"""Accuracy sources: supernet, table, predictor; and what each refuses."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hwprof.errors import DataError, IncompatibleRunError, SpaceError
from hwprof.graph import network_graph, weights_from_torch
from hwprof.search import training
from hwprof.search.accuracy import TableAccuracy, network_from_checkpoint, open_accuracy
from hwprof.search.batches import normalised
from hwprof.search.predictor import N_INPUTS, PredictorAccuracy, encode
from hwprof.search.sgd import TrainSettings
from hwprof.search.supernet_accuracy import SupernetAccuracy
from hwprof.search.tasks import DIGITS, load_task
from hwprof.search.training import train_network, train_supernet
from hwprof.space import Architecture, DesignSpace, Slot, get_space

DATA = Path(__file__).resolve().parents[2] / ".." / "shared/data"
FEW = {
    Slot(unit, layer): ("mbconv_k3_e3", "mbconv_k5_e3") for unit in range(3) for layer in range(2)
}


def mini(*units: tuple[str, ...]) -> Architecture:
    return Architecture(space="mobile-mini", resolution_px=32, units=units)


K3, K5, K7 = ("mbconv_k3_e3",), ("mbconv_k5_e3",), ("mbconv_k7_e3",)


class TestOpenAccuracy:
    @pytest.mark.parametrize("spec", ["", "table", "table:", "oracle:x.csv", "x.csv", "proxy:macs"])
    def test_other_kinds_are_refused(self, spec: str):
        with pytest.raises(DataError, match="expected supernet:CHECKPOINT, table:FILE"):
            open_accuracy(spec)

    def test_images_mean_nothing_to_a_table(self, tmp_path: Path):
        with pytest.raises(DataError, match="--data 'digits' means nothing"):
            open_accuracy("table:x.csv", data="digits")

    @pytest.mark.parametrize("spec", ["supernet:no.pt", "table:no.csv", "predictor:no.npz"])
    def test_a_missing_file_is_named(self, spec: str, tmp_path: Path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match=spec.partition(":")[2]):
            open_accuracy(spec)


class TestTable:
    CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"

    @staticmethod
    def table(
        path: Path, rows: Sequence[tuple[str, object]], header: str = "arch,accuracy_pct"
    ) -> str:
        lines = [header]
        for arch, value in rows:
            quoted = arch.replace('"', '""')
            lines.append(f'"{quoted}",{value}')
        path.write_text("\n".join(lines) + "\n")
        return f"table:{path}"

    def test_joins_by_architecture_and_tells_how_many(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        known, unknown = mini(K3, K3, K3), mini(K5, K3, K3)
        spaced = json.dumps(known.to_json(), indent=None)
        source = open_accuracy(self.table(tmp_path / "t.csv", [(spaced, 91.5)]))
        with caplog.at_level(logging.INFO):
            assert source.score([known, unknown]) == [91.5, None]
        assert "t.csv has 1 of 2 networks" in caplog.text
        assert source.name == "table:t.csv"
        assert isinstance(source, TableAccuracy)
        assert source.n_matched([known, unknown]) == 1

    def test_takes_cell_strings(self, tmp_path: Path):
        source = open_accuracy(self.table(tmp_path / "t.csv", [(self.CELL, 88.25)]))
        arch = Architecture(space="nasbench201", resolution_px=32, cell=self.CELL)
        assert source.score([arch]) == [88.25]

    def test_another_encoding_of_the_same_network_matches(self, tmp_path: Path):
        space = get_space("proxylessnas")
        first = space.sample(np.random.default_rng(0))
        units = list(first.units)
        units[0] = ("mbconv_k3_e3", "skip", "mbconv_k5_e6", "mbconv_k3_e3")
        a = replace(first, units=tuple(units))
        units[0] = ("mbconv_k3_e3", "mbconv_k5_e6", "skip", "mbconv_k3_e3")
        b = replace(first, units=tuple(units))
        source = open_accuracy(self.table(tmp_path / "t.csv", [(a.canonical_json(), 71.0)]))
        assert source.score([b]) == [71.0]
        # Its own line wins over the mean of its encodings.
        rows = [(a.canonical_json(), 71.0), (b.canonical_json(), 73.0)]
        source = open_accuracy(self.table(tmp_path / "u.csv", rows))
        units[0] = ("mbconv_k3_e3", "mbconv_k5_e6", "mbconv_k3_e3", "skip")
        third = replace(first, units=tuple(units))
        assert source.score([a, b, third]) == [71.0, 73.0, 72.0]

    def test_reads_gzip_and_skips_empty_accuracies(self, tmp_path: Path):
        rows = [(mini(K3, K3, K3).canonical_json(), 50), (mini(K5, K3, K3).canonical_json(), "")]
        self.table(tmp_path / "t.csv", rows)
        packed = tmp_path / "t.csv.gz"
        packed.write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
        source = open_accuracy(f"table:{packed}")
        assert source.score([mini(K3, K3, K3), mini(K5, K3, K3)]) == [50.0, None]

    def test_the_digest_follows_the_content(self, tmp_path: Path):
        arch = mini(K3, K3, K3).canonical_json()
        digests = [
            open_accuracy(self.table(tmp_path / f"{i}.csv", [(arch, v)])).digest
            for i, v in enumerate((50, 50, 51))
        ]
        assert digests[0] == digests[1] != digests[2]

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ([0.93, 0.5], "up to 0.93; expected percent"),
            ([1.0, 0.0], "up to 1; expected percent"),
            ([101, 50], "up to 101; expected percent"),
            (["good", 50], "line 2, accuracy_pct is 'good'"),
            ([-3, 50], "line 2, accuracy_pct is '-3'"),
            (["nan", 50], "line 2, accuracy_pct is 'nan'"),
            (["", ""], "no accuracy in any row"),
        ],
    )
    def test_wrong_values(self, values: list[object], message: str, tmp_path: Path):
        archs = [mini(K3, K3, K3), mini(K5, K3, K3)]
        rows = [(a.canonical_json(), v) for a, v in zip(archs, values, strict=True)]
        with pytest.raises(DataError, match=message):
            open_accuracy(self.table(tmp_path / "t.csv", rows))

    @pytest.mark.parametrize(
        ("arch", "message"),
        [
            ("{", "line 2, arch"),
            ('{"space": "nowhere", "resolution_px": 32, "units": []}', "nowhere"),
            (mini(K3, K3).canonical_json(), "line 2, arch: the architecture has 2 units"),
        ],
    )
    def test_wrong_architectures(self, arch: str, message: str, tmp_path: Path):
        with pytest.raises(DataError, match=message):
            open_accuracy(self.table(tmp_path / "t.csv", [(arch, 50)]))

    def test_a_network_twice(self, tmp_path: Path):
        row = (mini(K3, K3, K3).canonical_json(), 50)
        with pytest.raises(DataError, match=r"line 3, arch .* there twice"):
            open_accuracy(self.table(tmp_path / "t.csv", [row, row]))

    @pytest.mark.parametrize("header", ["network,accuracy_pct", "arch,top1"])
    def test_missing_columns(self, header: str, tmp_path: Path):
        rows = [(mini(K3, K3, K3).canonical_json(), 50)]
        with pytest.raises(DataError, match=r"has no column '(arch|accuracy_pct)'"):
            open_accuracy(self.table(tmp_path / "t.csv", rows, header))


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
        monkeypatch.setattr("hwprof.search.predictor.CHUNK", 5)
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


@pytest.fixture(scope="module", autouse=True)
def small_and_quick() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "JUDGED_NETWORKS", 2)
        yield
    torch.set_num_threads(before)


SETTINGS = TrainSettings(epochs=2, batch=16, lr=0.1, warmup_epochs=1.0)


@pytest.fixture(scope="module")
def space() -> DesignSpace:
    return get_space("mobile-mini").restrict(FEW, (2, 1, 1))


@pytest.fixture(scope="module")
def checkpoint(space: DesignSpace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("supernet") / "mini.pt"
    task = load_task(DIGITS, resolution_px=32, limit_images=80)
    train_supernet(space, task, SETTINGS, path)
    return path


@pytest.fixture(scope="module")
def source(checkpoint: Path) -> SupernetAccuracy:
    found = open_accuracy(f"supernet:{checkpoint}")
    assert isinstance(found, SupernetAccuracy)
    return found


class TestSupernet:
    def test_scores_are_shares_of_the_validation_images(self, source: SupernetAccuracy):
        archs = [mini(K3, K5, K3), mini(K3 + K5, K5, K5)]
        scores = source.score(archs)
        n = len(source.judge.task.validation)
        for score in scores:
            assert score is not None
            assert score * n / 100 == pytest.approx(round(score * n / 100))
        assert source.score(archs[::-1]) == scores[::-1]
        assert source.name == "supernet:mini.pt"

    def test_keeps_test_images_for_the_last_word(self, source: SupernetAccuracy):
        arch = mini(K3, K5, K3)
        expected = source.judge.top1_pct(arch, [source.judge.task.test])
        assert source.test_score([arch]) == expected

    def test_opened_again_it_says_the_same(self, source: SupernetAccuracy, checkpoint: Path):
        again = open_accuracy(f"supernet:{checkpoint}")
        arch = mini(K5, K3, K5)
        assert again.digest == source.digest
        assert again.score([arch]) == source.score([arch])

    def test_a_block_that_the_reduced_supernet_lacks_has_no_score(self, source: SupernetAccuracy):
        assert source.score([mini(K7, K3, K3), mini(K3 * 3, K3, K3)]) == [None, None]

    @pytest.mark.parametrize("other", ["proxylessnas", "mobile-mini"])
    def test_another_space_is_named_with_its_own(self, other: str, source: SupernetAccuracy):
        arch = get_space(other, 64).sample(np.random.default_rng(0))
        with pytest.raises(
            IncompatibleRunError, match=f"'mobile-mini' at 32 px; .* of '{other}' at 64 px"
        ):
            source.score([arch])

    def test_images_that_have_moved(self, checkpoint: Path, tmp_path: Path):
        with pytest.raises(DataError, match=r"nowhere.* does not exist"):
            open_accuracy(f"supernet:{checkpoint}", data=str(tmp_path / "nowhere"))
        images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
        np.savez(tmp_path / "other.npz", images=images, labels=np.arange(40) % 10)
        with pytest.raises(DataError, match="other images than the checkpoint was trained on"):
            open_accuracy(f"supernet:{checkpoint}", data=str(tmp_path / "other.npz"))

    def test_an_unfinished_one_warns(
        self, space: DesignSpace, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        task = load_task(DIGITS, resolution_px=32, limit_images=80)
        path = tmp_path / "half.pt"
        train_supernet(space, task, replace(SETTINGS, max_time_s=0.0), path)
        caplog.clear()
        open_accuracy(f"supernet:{path}")
        assert "half.pt is not fully trained (step 3 of 6)" in caplog.text

    def test_the_class_count_is_the_tasks(self, tmp_path: Path, space: DesignSpace):
        images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
        np.savez(tmp_path / "d.npz", images=images, labels=np.arange(40) % 4)
        task = load_task(str(tmp_path / "d.npz"), resolution_px=32)
        path = tmp_path / "four.pt"
        train_supernet(space, task, replace(SETTINGS, epochs=1, batch=8), path)
        assert open_accuracy(f"supernet:{path}").score([mini(K3, K3, K3)])[0] is not None
        module = network_from_checkpoint(path, mini(K3, K3, K3))
        assert module(torch.zeros(1, 3, 32, 32)).shape == (1, 4)


class TestNetworkFromCheckpoint:
    def test_of_a_supernet_it_is_what_was_judged(self, checkpoint: Path, source: SupernetAccuracy):
        arch = mini(K3 + K5, K5, K3)
        module = network_from_checkpoint(checkpoint, arch)
        task = source.judge.task
        with torch.no_grad():
            logits = [module(normalised(task.validation.images, task)).argmax(dim=1).numpy()]
        right = 100 * float(np.mean(logits[0] == task.validation.labels))
        assert source.score([arch]) == [pytest.approx(right)]
        graph = network_graph(get_space("mobile-mini"), arch)
        assert weights_from_torch(graph, module).keys()

    def test_of_a_trained_network(self, tmp_path: Path):
        task = load_task(DIGITS, resolution_px=32, limit_images=80)
        arch, path = mini(K3, K3, K3), tmp_path / "n.pt"
        train_network(arch, task, SETTINGS, path)
        module = network_from_checkpoint(path, arch)
        assert not module.training
        with pytest.raises(IncompatibleRunError, match="holds the trained network"):
            network_from_checkpoint(path, mini(K5, K3, K3))
        with pytest.raises(DataError, match="expected a supernet"):
            open_accuracy(f"supernet:{path}")

    def test_of_another_space(self, checkpoint: Path):
        arch = get_space("proxylessnas").sample(np.random.default_rng(0))
        with pytest.raises(IncompatibleRunError, match="proxylessnas"):
            network_from_checkpoint(checkpoint, arch)
        with pytest.raises(SpaceError, match="dropped by the reduction"):
            network_from_checkpoint(checkpoint, mini(K7, K3, K3))
