"""Accuracies and networks from a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hwprof.errors import DataError, IncompatibleRunError, SpaceError
from hwprof.graph import network_graph, weights_from_torch
from hwprof.search.data.tasks import DIGITS, load_task
from hwprof.search.learning.batches import normalised
from hwprof.search.learning.sgd import TrainSettings
from hwprof.search.learning.training import train_network, train_supernet
from hwprof.search.scoring.accuracy import network_from_checkpoint, open_accuracy
from hwprof.search.scoring.supernet_accuracy import SupernetAccuracy
from hwprof.space import DesignSpace, get_space
from tests.search.mini import K3, K5, K7, mini

pytestmark = pytest.mark.usefixtures("small_and_quick")

SETTINGS = TrainSettings(epochs=2, batch=16, lr=0.1, warmup_epochs=1.0)


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
