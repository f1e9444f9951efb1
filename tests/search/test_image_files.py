"""Images in folders, and the order in which classes stay mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwprof.errors import DataError
from hwprof.search.data.image_files import stratified_order
from hwprof.search.data.tasks import load_task


def save_images(folder: Path, n: int, *, side: int = 8, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")


class TestStratifiedOrder:
    def test_is_a_permutation(self):
        labels = np.random.default_rng(0).integers(0, 7, 100)
        order = stratified_order(labels, np.random.default_rng(1))
        assert sorted(order.tolist()) == list(range(100))

    @pytest.mark.parametrize("length", [10, 25, 60])
    def test_every_stretch_holds_the_classes_in_proportion(self, length: int):
        labels = np.repeat([0, 1, 2], [60, 30, 10])
        order = stratified_order(labels, np.random.default_rng(0))
        for start in (0, 17, 40):
            counts = np.bincount(labels[order[start : start + length]], minlength=3)
            # Within one image of the exact share at either end of the stretch.
            assert np.all(np.abs(counts - length * np.array([0.6, 0.3, 0.1])) <= 2)

    def test_follows_its_generator(self):
        labels = np.repeat([0, 1], 50)
        first, same, other = (stratified_order(labels, np.random.default_rng(s)) for s in (3, 3, 4))
        assert np.array_equal(first, same)
        assert not np.array_equal(first, other)


class TestFolder:
    def test_class_folders_are_classes(self, tmp_path: Path):
        for seed, name in enumerate(("cat", "ant", "bee")):
            save_images(tmp_path / name, 10, seed=seed)
        (tmp_path / ".hidden").mkdir()
        (tmp_path / "ant" / "notes.txt").write_text("no image")
        task = load_task(str(tmp_path), resolution_px=8)
        assert task.classes == ("ant", "bee", "cat")
        assert [len(s) for s in (task.train, task.validation, task.test)] == [18, 6, 6]
        assert task.has_colour

    def test_split_folders_are_kept_apart(self, tmp_path: Path):
        for split, n in (("train", 10), ("val", 4), ("test", 3)):
            for seed, name in enumerate("ab"):
                save_images(tmp_path / split / name, n, seed=100 * n + seed)
        task = load_task(str(tmp_path), resolution_px=8)
        assert [len(s) for s in (task.train, task.validation, task.test)] == [20, 8, 6]

    def test_a_missing_test_split_is_taken_from_training(self, tmp_path: Path):
        for split, n in (("train", 10), ("val", 4)):
            for seed, name in enumerate("ab"):
                save_images(tmp_path / split / name, n, seed=100 * n + seed)
        task = load_task(str(tmp_path), resolution_px=8)
        assert [len(s) for s in (task.train, task.validation, task.test)] == [16, 8, 4]
        train, test = (
            {image.tobytes() for image in part.images} for part in (task.train, task.test)
        )
        assert train.isdisjoint(test)

    def test_other_sizes_are_resized_and_cut_in_the_middle(self, tmp_path: Path):
        wide = np.zeros((10, 30, 3), dtype=np.uint8)
        wide[:, 10:20] = 200
        for name in "ab":
            (tmp_path / name).mkdir()
            for i in range(5):
                Image.fromarray(wide).save(tmp_path / name / f"{i}.png")
        task = load_task(str(tmp_path), resolution_px=5)
        assert task.train.images.shape[1:] == (5, 5, 3)
        assert task.train.images[0, :, 2, 0] == pytest.approx(200, abs=2)

    def test_a_corrupt_image_is_named(self, tmp_path: Path):
        for name in "ab":
            save_images(tmp_path / name, 5)
        broken = tmp_path / "b" / "002.png"
        broken.write_bytes(broken.read_bytes()[:60])
        with pytest.raises(DataError, match=r"002\.png"):
            load_task(str(tmp_path), resolution_px=8)

    def test_an_empty_class_is_named(self, tmp_path: Path):
        save_images(tmp_path / "a", 5)
        (tmp_path / "b").mkdir()
        with pytest.raises(DataError, match=r"'.*b' holds no images"):
            load_task(str(tmp_path), resolution_px=8)

    def test_a_class_that_training_lacks_is_named(self, tmp_path: Path):
        for name in "ab":
            save_images(tmp_path / "train" / name, 5)
        save_images(tmp_path / "val" / "c", 5)
        with pytest.raises(DataError, match=r"c' is a class that the training images lack"):
            load_task(str(tmp_path), resolution_px=8)

    def test_no_class_folders(self, tmp_path: Path):
        save_images(tmp_path, 5)
        with pytest.raises(DataError, match="holds no folders"):
            load_task(str(tmp_path), resolution_px=8)

    @pytest.mark.parametrize("split", ["val", "test"])
    def test_a_split_without_class_folders_is_named(self, split: str, tmp_path: Path):
        """ImageNet's validation images come so."""
        for name in "ab":
            save_images(tmp_path / "train" / name, 10)
        save_images(tmp_path / split, 5)
        with pytest.raises(DataError, match=rf"{split}' holds no folders"):
            load_task(str(tmp_path), resolution_px=8)

    def test_a_class_may_be_called_train(self, tmp_path: Path):
        """As one of CIFAR-100's is."""
        for name in ("bus", "train"):
            save_images(tmp_path / name, 20)
        assert load_task(str(tmp_path), resolution_px=8).n_classes == 2

    def test_images_in_train_itself_are_no_classes_beside_a_split(self, tmp_path: Path):
        for name in ("train", "val"):
            save_images(tmp_path / name, 20)
        with pytest.raises(DataError, match="train' holds no folders"):
            load_task(str(tmp_path), resolution_px=8)

    def test_one_class(self, tmp_path: Path):
        save_images(tmp_path / "only", 10)
        with pytest.raises(DataError, match="one class"):
            load_task(str(tmp_path), resolution_px=8)
