"""Where images come from: bundled digits, folders of class folders, ``.npz`` archives.

Every reader returns :class:`RawImages`: what a source holds, resized and in memory, but not yet
divided into training, validation and test. Pillow and scikit-learn are imported where
they are used: reading an ``.npz`` of the right size needs neither.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from numpy.typing import NDArray

from hwprof.errors import DataError, MissingExtraError, either
from hwprof.npz import MEMORY_SHARE, load_arrays

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
SPLIT_FOLDERS: Mapping[str, str] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""Names of subfolders that hold a split, and which."""

SPLIT_PREFIXES: Mapping[str, str] = {"": "train", "val_": "validation", "test_": "test"}
"""What stands before ``images`` and ``labels`` in an archive, and the split it means."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """``images`` uint8 [N, side, side, 3], ``labels`` int64 [N] in 0 … n_classes - 1."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, chosen: NDArray[np.int64]) -> Split:
        """Return the images of these indices, in their order."""
        return Split(images=self.images[chosen], labels=self.labels[chosen])

    def sample(self, count: int, seed: int) -> Split:
        """Return at most ``count`` images drawn from ``seed``, the classes in proportion."""
        return self.part(stratified_order(self.labels, np.random.default_rng(seed))[:count])


@dataclass(frozen=True, kw_only=True, eq=False)
class RawImages:
    """What a source holds: class names, and its splits by name (``train`` is always there)."""

    classes: tuple[str, ...]
    splits: Mapping[str, Split]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How images are wanted: side in pixels, and how many of each split at most."""

    side_px: int
    limit: int | None
    seed: int

    def choose(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices of the images to read, the classes in proportion."""
        if self.limit is None or self.limit >= len(labels):
            return np.arange(len(labels))
        return stratified_order(labels, np.random.default_rng(self.seed))[: self.limit]


def stratified_order(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a random order in which every stretch holds the classes in proportion.

    Image i of the n of its class (in random order) stands at quantile (i + 1/2)/n; equal
    quantiles are ordered at random.
    """
    shuffled = rng.permutation(len(labels))
    quantile = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels[shuffled] == label)
        quantile[members] = (np.arange(len(members)) + 0.5) / len(members)
    order: NDArray[np.int64] = shuffled[np.argsort(quantile, kind="stable")]
    return order


def read_digits(wanted: Wanted) -> RawImages:
    """Return scikit-learn's 1,797 scanned digits, 8×8 greys smoothly enlarged.

    Raises:
        MissingExtraError: scikit-learn or Pillow is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "search", "the digits data set") from error
    bunch = load_digits()
    chosen = wanted.choose(bunch.target)
    # Greys are 0 to 16.
    greys = np.rint(bunch.images[chosen] * (255.0 / 16.0)).astype(np.uint8)
    split = Split(
        images=_resized_array(np.repeat(greys[..., None], 3, axis=3), wanted),
        labels=bunch.target[chosen].astype(np.int64),
    )
    return RawImages(classes=tuple(str(d) for d in range(10)), splits={"train": split})


def read_folder(folder: Path, wanted: Wanted) -> RawImages:
    """Read a folder of class folders, or of ``train``/``val``/``test`` folders of those.

    Raises:
        DataError: there are no class folders, an empty one, or a file that is no image.
    """
    inner = {p.name.lower(): p for p in _folders(folder)}
    if "train" in inner and not _is_class(inner):
        parts = {SPLIT_FOLDERS[name]: p for name, p in inner.items() if name in SPLIT_FOLDERS}
    else:
        parts = {"train": folder}
    # All splits, before the first is decoded, which may take minutes.
    for part in parts.values():
        if not _folders(part):
            raise DataError(
                f"{str(part)!r} holds no folders; expected one folder of images per class"
            )
    classes = tuple(p.name for p in _folders(parts["train"]))
    return RawImages(
        classes=classes,
        splits={name: _read_classes(path, classes, wanted) for name, path in parts.items()},
    )


def read_archive(path: Path, wanted: Wanted) -> RawImages:
    """Read an ``.npz`` of ``images`` and ``labels``, or of JPEG bytes.

    Plain: ``images`` uint8 [N, H, W, 3] (or one channel) and integer ``labels`` [N]; optional
    ``val_images``, ``val_labels``, ``test_images``, ``test_labels`` and ``classes`` (names).
    JPEG: image i is ``data[offset[i]:offset[i + 1]]``, its class ``classes[label[i]]``.

    Raises:
        DataError: the file is damaged, an array is missing, or shapes and types do not fit.
    """
    arrays = load_arrays(path)
    if {"data", "offset", "label"} <= set(arrays):
        return _read_jpegs(path, arrays, wanted)
    if not {"images", "labels"} <= set(arrays):
        raise DataError(
            f"{str(path)!r} holds the arrays {', '.join(sorted(arrays))}; expected images and labels, or "
            "data, offset and label (JPEG)"
        )
    for prefix in SPLIT_PREFIXES:
        lacking = [n for n in (f"{prefix}images", f"{prefix}labels") if n not in arrays]
        if len(lacking) == 1:
            raise DataError(
                f"{str(path)!r} holds the arrays {', '.join(sorted(arrays))} but no {lacking[0]}; expected "
                "images and labels of a split, or neither"
            )
    labels = {
        split: _checked_labels(path, f"{prefix}labels", arrays[f"{prefix}labels"])
        for prefix, split in SPLIT_PREFIXES.items()
        if f"{prefix}labels" in arrays
    }
    classes, labels = _named_classes(path, arrays.get("classes"), labels)
    splits = {}
    for prefix, split in SPLIT_PREFIXES.items():
        if split in labels:
            name = f"{prefix}images"
            images = _checked_images(path, name, arrays[name], len(labels[split]))
            chosen = wanted.choose(labels[split])
            splits[split] = Split(
                images=_resized_array(images[chosen], wanted), labels=labels[split][chosen]
            )
    return RawImages(classes=classes, splits=splits)


def _is_class(inner: Mapping[str, Path]) -> bool:
    """Say whether ``train`` holds images of trains: no folders, and stands beside other classes."""
    return not inner.keys() <= SPLIT_FOLDERS.keys() and not _folders(inner["train"])


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _read_classes(folder: Path, classes: Sequence[str], wanted: Wanted) -> Split:
    paths: list[Path] = []
    labels: list[int] = []
    for found in _folders(folder):
        if found.name not in classes:
            raise DataError(
                f"{str(found)!r} is a class that the training images lack; expected "
                f"{either(classes)}"
            )
        files = sorted(p for p in found.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise DataError(
                f"{str(found)!r} holds no images; expected files ending in "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}, or remove the folder"
            )
        paths += files
        labels += [classes.index(found.name)] * len(files)
    truth = np.array(labels, dtype=np.int64)
    chosen = wanted.choose(truth)
    return Split(
        images=_decoded(len(chosen), ((str(paths[i]), _opener(paths[i])) for i in chosen), wanted),
        labels=truth[chosen],
    )


def _opener(path: Path) -> Callable[[], bytes]:
    return path.read_bytes


def _checked_labels(path: Path, name: str, labels: NDArray[Any]) -> NDArray[np.int64]:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{name} of {str(path)!r} is {labels.dtype} of shape {labels.shape}; expected whole "
            "numbers of shape (N,), one class index per image"
        )
    if len(labels) == 0:
        raise DataError(f"{name} of {str(path)!r} is empty; expected one class index per image")
    return labels.astype(np.int64)


def _checked_images(
    path: Path, name: str, images: NDArray[Any], n_labels: int
) -> NDArray[np.uint8]:
    if images.dtype != np.uint8:
        raise DataError(
            f"{name} of {str(path)!r} is {images.dtype}; expected uint8, grey values 0 to 255"
        )
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise DataError(
            f"{name} of {str(path)!r} has the shape {images.shape}; expected (N, height, width, 3)"
        )
    if len(images) != n_labels:
        raise DataError(
            f"{str(path)!r} has {len(images)} {name} but {n_labels} labels; expected one each"
        )
    return images if images.shape[3] == 3 else np.repeat(images, 3, axis=3)


def _named_classes(
    path: Path, names: NDArray[Any] | None, labels: Mapping[str, NDArray[np.int64]]
) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    """Return class names and labels that count them; without names the labels name themselves."""
    if names is None:
        values = np.unique(labels["train"])
        classes = tuple(str(v) for v in values)
    elif names.ndim != 1 or not len(names):
        raise DataError(
            f"classes of {str(path)!r} has the shape {names.shape}; expected a name for each "
            "class, of shape (n_classes,)"
        )
    else:
        values = np.arange(len(names))
        classes = tuple(str(n) for n in names)
    for split, given in labels.items():
        if stray := sorted(set(given.tolist()) - set(values.tolist())):
            raise DataError(
                f"a {split} label of {str(path)!r} is {stray[0]}; expected one of the "
                f"{len(classes)} classes {values[0]} to {values[-1]}"
                + (" of the training images" if names is None else "")
            )
    return classes, {split: np.searchsorted(values, given) for split, given in labels.items()}


def _read_jpegs(path: Path, arrays: Mapping[str, NDArray[Any]], wanted: Wanted) -> RawImages:
    labels = _checked_labels(path, "label", arrays["label"])
    classes, by_split = _named_classes(path, arrays.get("classes"), {"train": labels})
    labels = by_split["train"]
    data, offset = arrays["data"], arrays["offset"]
    if data.dtype != np.uint8 or data.ndim != 1:
        raise DataError(
            f"data of {str(path)!r} is {data.dtype} of shape {data.shape}; expected uint8 bytes"
        )
    if offset.shape != (len(labels) + 1,) or not np.issubdtype(offset.dtype, np.integer):
        raise DataError(
            f"offset of {str(path)!r} is {offset.dtype} of shape {offset.shape}; expected "
            f"{len(labels) + 1} whole numbers for {len(labels)} labels"
        )
    if offset[0] < 0 or offset[-1] > len(data) or np.any(np.diff(offset.astype(np.int64)) <= 0):
        raise DataError(
            f"offset of {str(path)!r} does not rise from 0 to the {len(data)} bytes of data; "
            "expected image i at data[offset[i]:offset[i + 1]]"
        )
    chosen = wanted.choose(labels)

    def reader(i: int) -> Callable[[], bytes]:
        return lambda: data[offset[i] : offset[i + 1]].tobytes()

    named = ((f"image {i} of {path}", reader(int(i))) for i in chosen)
    split = Split(images=_decoded(len(chosen), named, wanted), labels=labels[chosen])
    return RawImages(classes=classes, splits={"train": split})


def _decoded(
    count: int, files: Iterator[tuple[str, Callable[[], bytes]]], wanted: Wanted
) -> NDArray[np.uint8]:
    """Decode image files given as (name for messages, function that returns the bytes)."""
    out = _allocate(count, wanted)
    image_module = _pillow()
    for index, (name, read) in enumerate(files):
        try:
            with image_module.open(io.BytesIO(read())) as image:
                out[index] = _fitted(image, wanted.side_px)
        # What Pillow's decoders raise on damaged files of one format or another.
        except (
            OSError,
            SyntaxError,
            ValueError,
            EOFError,
            struct.error,
            zlib.error,
            image_module.DecompressionBombError,
        ) as error:
            raise DataError(
                f"cannot decode {name!r} ({error}); replace or remove that image"
            ) from error
    return out


def _resized_array(images: NDArray[np.uint8], wanted: Wanted) -> NDArray[np.uint8]:
    if images.shape[1:3] == (wanted.side_px, wanted.side_px):
        return np.ascontiguousarray(images)
    out = _allocate(len(images), wanted)
    image_module = _pillow()
    for index, image in enumerate(images):
        out[index] = _fitted(image_module.fromarray(image), wanted.side_px)
    return out


def _fitted(image: Image, side_px: int) -> NDArray[np.uint8]:
    """Resize so that the shorter side fits, and cut the middle out."""
    rgb = image.convert("RGB")
    if rgb.size != (side_px, side_px):
        from PIL import ImageOps

        rgb = ImageOps.fit(rgb, (side_px, side_px), method=_pillow().Resampling.BICUBIC)
    return np.asarray(rgb, dtype=np.uint8)


def _allocate(count: int, wanted: Wanted) -> NDArray[np.uint8]:
    shape = (count, wanted.side_px, wanted.side_px, 3)
    needed, free = int(np.prod(shape)), psutil.virtual_memory().available
    if needed > MEMORY_SHARE * free:
        raise DataError(
            f"{count} images of {wanted.side_px} px take {needed / 2**30:.1f} GiB of memory, and "
            f"{free / 2**30:.1f} GiB are free; limit the number of images or the resolution"
        )
    return np.empty(shape, dtype=np.uint8)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("Pillow", "search", "reading or resizing images") from error
    return Image
