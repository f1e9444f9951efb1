"""Loading images: the digits, archives, and the ways a source can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hwprof.errors import DataError
from hwprof.search.data.tasks import DIGITS, ImageTask, load_task

CIFAR = Path(__file__).resolve().parents[2] / ".." / "shared/data"


def rows(split) -> set[bytes]:
    return {image.tobytes() for image in split.images}


def save_archive(path: Path, **arrays) -> str:
    np.savez(path, **arrays)
    return str(path)


def random_images(n: int, side: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def digits() -> ImageTask:
    return load_task(DIGITS, resolution_px=32)


class TestDigits:
    def test_all_1797_scans_are_split_60_20_20(self, digits: ImageTask):
        sizes = [len(s) for s in (digits.train, digits.validation, digits.test)]
        assert sizes == [1079, 359, 359]
        assert digits.classes == tuple("0123456789")
        assert digits.train.images.shape == (1079, 32, 32, 3)
        assert digits.train.images.dtype == np.uint8

    def test_splits_hold_every_class_in_proportion(self, digits: ImageTask):
        for split in (digits.validation, digits.test):
            counts = np.bincount(split.labels, minlength=10)
            assert counts.min() >= 34
            assert counts.max() <= 38

    def test_splits_are_disjoint(self, digits: ImageTask):
        # No two of the 1,797 scans are equal, so equal bytes would be the same image.
        train, validation, test = map(rows, (digits.train, digits.validation, digits.test))
        assert len(train) + len(validation) + len(test) == 1797
        assert not train & validation
        assert not train & test
        assert not validation & test

    def test_are_grey_so_never_mirrored(self, digits: ImageTask):
        assert not digits.has_colour

    def test_enlarging_is_smooth_and_keeps_the_scan(self, digits: ImageTask):
        from sklearn.datasets import load_digits

        scans = load_digits().images * (255 / 16)
        images = np.concatenate([s.images for s in (digits.train, digits.validation, digits.test)])
        blocks = images[..., 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
        # Averaged back to 8×8, each is nearest to its own scan.
        distance = np.abs(blocks[:50, None] - scans[None]).mean(axis=(2, 3))
        assert distance.min(axis=1).max() < 16
        steps = np.abs(np.diff(images.astype(int), axis=1)).max()
        assert steps < 128, "an edge as hard as in a blown-up 8×8 image"

    def test_the_seed_decides_the_splits(self, digits: ImageTask):
        again = load_task(DIGITS, resolution_px=32)
        other = load_task(DIGITS, resolution_px=32, split_seed=1)
        assert again.digest == digits.digest
        assert other.digest != digits.digest
        assert rows(other.test) != rows(digits.test)

    def test_limit_takes_so_many_images(self):
        task = load_task(DIGITS, resolution_px=8, limit_images=100)
        assert [len(s) for s in (task.train, task.validation, task.test)] == [60, 20, 20]
        assert np.bincount(task.train.labels).min() >= 5

    def test_moments_are_those_of_the_training_images(self, digits: ImageTask):
        pixels = digits.train.images.astype(np.float64)
        assert digits.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), rel=1e-5)
        assert digits.std == pytest.approx(pixels.std(axis=(0, 1, 2)), rel=1e-5)


class TestArchive:
    def test_images_and_labels(self, tmp_path: Path):
        images, labels = random_images(50), np.tile([3, 7], 25)
        source = save_archive(tmp_path / "d.npz", images=images, labels=labels)
        task = load_task(source, resolution_px=8)
        assert task.classes == ("3", "7")
        assert [len(s) for s in (task.train, task.validation, task.test)] == [30, 10, 10]
        truth = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
        for image, label in zip(task.train.images, task.train.labels, strict=True):
            assert truth[image.tobytes()] == (3, 7)[label]

    def test_given_validation_is_used(self, tmp_path: Path):
        given = random_images(6, seed=1)
        source = save_archive(
            tmp_path / "d.npz",
            images=random_images(20),
            labels=np.tile([0, 1], 10),
            val_images=given,
            val_labels=np.tile([0, 1], 3),
        )
        task = load_task(source, resolution_px=8)
        assert np.array_equal(task.validation.images, given)
        assert len(task.train) + len(task.test) == 20

    def test_one_channel_becomes_three(self, tmp_path: Path):
        source = save_archive(
            tmp_path / "d.npz", images=random_images(20)[..., :1], labels=np.tile([0, 1], 10)
        )
        assert load_task(source, resolution_px=8).train.images.shape[1:] == (8, 8, 3)

    def test_a_second_file_is_the_test_split(self, tmp_path: Path):
        labels = np.tile([0, 1], 10)
        first = save_archive(tmp_path / "a.npz", images=random_images(20), labels=labels)
        unseen = random_images(20, seed=1)
        second = save_archive(tmp_path / "b.npz", images=unseen, labels=labels)
        task = load_task(f"{first},{second}", resolution_px=8)
        assert [len(s) for s in (task.train, task.validation, task.test)] == [16, 4, 20]
        assert np.array_equal(task.test.images, unseen)

    def test_the_second_file_has_other_classes(self, tmp_path: Path):
        first = save_archive(
            tmp_path / "a.npz", images=random_images(20), labels=np.tile([0, 1], 10)
        )
        second = save_archive(
            tmp_path / "b.npz", images=random_images(20), labels=np.tile([0, 2], 10)
        )
        with pytest.raises(DataError, match="classes 0, 2"):
            load_task(f"{first},{second}", resolution_px=8)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"images": random_images(20).astype(np.float32)}, "float32; expected uint8"),
            ({"images": random_images(20)[..., 0]}, r"shape \(20, 8, 8\)"),
            ({"images": random_images(20).transpose(0, 3, 1, 2)}, r"shape \(20, 3, 8, 8\)"),
            ({"images": random_images(19)}, "19 images but 20 labels"),
            ({"labels": np.tile([0.0, 1.0], 10)}, "labels of .* float64"),
            ({"labels": np.eye(20, dtype=np.int64)}, r"labels of .* \(20, 20\)"),
            ({"labels": np.zeros(20, dtype=np.int64)}, "one class"),
            ({"images": random_images(0), "labels": np.zeros(0, dtype=np.int64)}, "is empty"),
            (
                {"classes": np.array(["a", "b", "c"]), "labels": np.tile([0, 3], 10)},
                "label .* is 3",
            ),
            ({"classes": np.array(["a", "b", "c"])}, "1 of 3 classes without"),
            ({"classes": np.array(2)}, r"classes of .* has the shape \(\); expected a name"),
            ({"classes": np.array([], dtype="U1")}, r"classes of .* has the shape \(0,\)"),
            ({"val_images": random_images(2), "val_labels": np.array([0, 5])}, "label .* is 5"),
            ({"test_images": random_images(4)}, "but no test_labels; expected"),
            ({"val_labels": np.array([0, 1])}, "but no val_images; expected"),
            ({"images": random_images(2), "labels": np.array([0, 1])}, "too few"),
        ],
    )
    def test_wrong_arrays(self, tmp_path: Path, change: dict[str, Any], message: str):
        arrays = {"images": random_images(20), "labels": np.tile([0, 1], 10)} | change
        source = save_archive(tmp_path / "d.npz", **arrays)
        with pytest.raises(DataError, match=message) as caught:
            load_task(source, resolution_px=8)
        assert "\n" not in str(caught.value)

    def test_missing_arrays(self, tmp_path: Path):
        source = save_archive(tmp_path / "d.npz", x=np.zeros(3))
        with pytest.raises(DataError, match="arrays x; expected images and labels"):
            load_task(source, resolution_px=8)

    def test_pickled_objects_are_refused(self, tmp_path: Path):
        labels = np.array([{"a": 1}], dtype=object)
        source = save_archive(tmp_path / "d.npz", images=random_images(1), labels=labels)
        with pytest.raises(DataError, match="without pickled objects"):
            load_task(source, resolution_px=8)

    def test_damaged_file(self, tmp_path: Path):
        path = tmp_path / "d.npz"
        path.write_bytes(b"PK\x03\x04 and then nothing")
        with pytest.raises(DataError, match=r"cannot read .*d\.npz"):
            load_task(str(path), resolution_px=8)


class TestJpegArchive:
    @staticmethod
    def arrays(n: int = 20) -> dict[str, np.ndarray]:
        import io

        files = []
        for i in range(n):
            buffer = io.BytesIO()
            colour = np.full((8, 8, 3), 12 * i, dtype=np.uint8)
            Image.fromarray(colour).save(buffer, "jpeg", quality=95)
            files.append(np.frombuffer(buffer.getvalue(), np.uint8))
        return {
            "data": np.concatenate(files),
            "offset": np.concatenate([[0], np.cumsum([len(f) for f in files])]),
            "label": np.arange(n) % 2,
            "classes": np.array(["even", "odd"]),
        }

    def test_decodes_every_image_with_its_label(self, tmp_path: Path):
        source = save_archive(tmp_path / "d.npz", **self.arrays())
        task = load_task(source, resolution_px=8)
        assert task.classes == ("even", "odd")
        for split in (task.train, task.validation, task.test):
            shade = split.images[:, 4, 4, 0].astype(int)
            assert np.array_equal(np.rint(shade / 12).astype(int) % 2, split.labels)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"offset": np.arange(5)}, "offset of .* 21 whole numbers"),
            ({"offset": np.arange(21)[::-1]}, "does not rise"),
            ({"data": np.zeros(10, dtype=np.float32)}, "data of .* float32"),
            ({"label": np.full(20, 2)}, "label .* is 2"),
        ],
    )
    def test_wrong_arrays(self, tmp_path: Path, change: dict[str, Any], message: str):
        source = save_archive(tmp_path / "d.npz", **(self.arrays() | change))
        with pytest.raises(DataError, match=message):
            load_task(source, resolution_px=8)

    def test_a_corrupt_image_is_named(self, tmp_path: Path):
        arrays = self.arrays()
        start, end = arrays["offset"][7:9]
        arrays["data"] = arrays["data"].copy()
        arrays["data"][start:end] = 0
        with pytest.raises(DataError, match=r"image 7 of .*d\.npz"):
            load_task(save_archive(tmp_path / "d.npz", **arrays), resolution_px=8)

    def test_cifar10(self):
        train, test = (CIFAR / f"cifar10_{name}_jpeg.npz" for name in ("train", "test"))
        if not train.is_file():
            pytest.skip("../shared/data with CIFAR-10 is absent")
        task = load_task(f"{train},{test}", resolution_px=32, limit_images=1000)
        assert task.classes[:3] == ("airplane", "automobile", "bird")
        assert [len(s) for s in (task.train, task.validation, task.test)] == [800, 200, 1000]
        assert np.bincount(task.train.labels).tolist() == [80] * 10
        assert task.has_colour
        # The published mean of CIFAR-10's training images; 800 of them come within 3 %.
        assert task.mean / 255 == pytest.approx([0.4914, 0.4822, 0.4465], rel=0.03)


@pytest.mark.parametrize("source", ["nowhere", "nowhere.npz", "a.npz,b.npz"])
def test_a_missing_path_is_named(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="does not exist; expected"):
        load_task(source, resolution_px=8)


def test_a_file_that_is_no_archive(tmp_path: Path):
    path = tmp_path / "images.zip"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="neither a folder nor an"):
        load_task(str(path), resolution_px=8)


@pytest.mark.parametrize("options", [{"resolution_px": 0}, {"resolution_px": 8, "limit_images": 0}])
def test_impossible_options(options: dict[str, int]):
    with pytest.raises(DataError, match="expected"):
        load_task(DIGITS, **options)


def test_images_that_memory_cannot_hold_are_refused():
    with pytest.raises(DataError, match="GiB"):
        load_task(DIGITS, resolution_px=100_000)


def test_the_digest_sees_a_single_pixel_and_the_source_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    images, labels = random_images(20), np.tile([0, 1], 10)
    save_archive(tmp_path / "a.npz", images=images, labels=labels)
    first = load_task("a.npz", resolution_px=8)
    images[0, 0, 0, 0] ^= 1
    save_archive(tmp_path / "a.npz", images=images, labels=labels)
    assert load_task("a.npz", resolution_px=8).digest != first.digest
    assert first.source == str((tmp_path / "a.npz").resolve())
    assert first.name == "a.npz"
