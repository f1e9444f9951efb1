"""Image classification tasks: what a supernet is trained on and judged by.

Images are kept in memory as uint8. Three splits never overlap: weights are fitted on
``train``, networks are compared on ``validation``, and ``test`` is for the last word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwprof.errors import DataError
from hwprof.search.data.image_files import (
    RawImages,
    Split,
    Wanted,
    read_archive,
    read_digits,
    read_folder,
    stratified_order,
)

DIGITS = "digits"
HELD_OUT_SHARE = 0.2
"""Share of the images that a missing validation or test split takes."""
HELD_OUT_MOST = 5_000
"""Images in such a split at most: judging a network costs a pass over all of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTask:
    """A classification task in memory.

    ``source``, ``limit_images`` and ``split_seed`` are what :func:`load_task` was asked for:
    the same call gives the same splits.
    """

    name: str
    source: str
    limit_images: int | None
    split_seed: int
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    moments: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    """Mean and standard deviation of every channel (0 to 255) that weights trained elsewhere
    expect; by default those of the training images."""

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def resolution_px(self) -> int:
        """Side of the images."""
        return int(self.train.images.shape[1])

    @cached_property
    def has_colour(self) -> bool:
        """Whether any training image is not grey.

        Colour stands for photographs: those may be mirrored and recoloured, characters may not.
        """
        images = self.train.images
        return bool(np.any(images[..., 0] != images[..., 1]))

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """Mean of every channel that images are normalised by, on the scale 0 to 255; shape (3,)."""
        return self._moments[0]

    @cached_property
    def std(self) -> NDArray[np.float32]:
        """Standard deviation of every channel likewise, on the scale 0 to 255; shape (3,)."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self.moments is not None:
            given = np.array(self.moments, dtype=np.float32)
            return given[0], given[1]
        # Through histograms: exact, and no copy of the images in floating point.
        values = np.arange(256, dtype=np.float64)
        counts = np.stack(
            [np.bincount(self.train.images[..., c].ravel(), minlength=256) for c in range(3)]
        )
        total = counts.sum(axis=1)
        mean = counts @ values / total
        variance = counts @ values**2 / total - mean**2
        # A constant channel carries nothing: divide by one grey value instead of by zero.
        std = np.sqrt(np.maximum(variance, 1.0))
        return mean.astype(np.float32), std.astype(np.float32)

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that identify images, labels, classes and splits."""
        found = hashlib.sha256(repr(self.classes).encode())
        for split in (self.train, self.validation, self.test):
            found.update(str(split.images.shape).encode())
            found.update(np.ascontiguousarray(split.images).data)
            found.update(np.ascontiguousarray(split.labels).data)
        return found.hexdigest()[:16]


def load_task(
    source: str,
    *,
    resolution_px: int,
    limit_images: int | None = None,
    split_seed: int = 0,
) -> ImageTask:
    """Load images and divide them into training, validation and test.

    Splits that the source does not bring are taken from its training images, classes in
    proportion: 20 % each, at most 5,000 images. ``split_seed`` is apart from the seed of
    training, so that test images stay unseen whatever is trained.

    Args:
        source: ``digits`` (scikit-learn's bundled scans), a folder of class folders (or of
            ``train``, ``val`` and ``test`` folders of those), an ``.npz``, or two of them as
            ``train.npz,test.npz``.
        resolution_px: side of the images; others are resized (bicubic, middle cut out).
        limit_images: images read of each split of the source at most, classes in proportion.
        split_seed: seed of the splits and of the choice among too many images.

    Raises:
        DataError: nothing there, damaged, of one class, or of the wrong shape or type.
        MissingExtraError: scikit-learn or Pillow is needed and not installed.
    """
    if resolution_px <= 0:
        raise DataError(f"resolution_px is {resolution_px}; expected a positive number")
    if limit_images is not None and limit_images < 1:
        raise DataError(f"limit_images is {limit_images}; expected at least 1")
    wanted = Wanted(side_px=resolution_px, limit=limit_images, seed=split_seed)
    raw = _read(source, wanted)
    if len(raw.classes) < 2:
        raise DataError(
            f"{source!r} has one class ({raw.classes[0]!r}); expected at least two to tell apart"
        )
    splits = _complete(source, raw.splits, len(raw.classes), split_seed)
    return ImageTask(
        name=source if source == DIGITS else "+".join(Path(p).name for p in source.split(",")),
        source=_absolute(source),
        limit_images=limit_images,
        split_seed=split_seed,
        classes=raw.classes,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
    )


def _read(source: str, wanted: Wanted) -> RawImages:
    if source == DIGITS:
        return read_digits(wanted)
    first, comma, second = source.partition(",")
    raw = _read_path(Path(first), wanted)
    if not comma:
        return raw
    extra = _read_path(Path(second), wanted)
    if extra.classes != raw.classes:
        raise DataError(
            f"{second!r} has the classes {', '.join(extra.classes)}; expected those of {first!r}: "
            f"{', '.join(raw.classes)}"
        )
    return RawImages(classes=raw.classes, splits={**raw.splits, "test": extra.splits["train"]})


def _read_path(path: Path, wanted: Wanted) -> RawImages:
    if path.is_dir():
        return read_folder(path, wanted)
    if path.suffix == ".npz" and path.is_file():
        return read_archive(path, wanted)
    found = "is neither a folder nor an .npz" if path.exists() else "does not exist"
    raise DataError(
        f"{str(path)!r} {found}; expected a folder of class folders, an .npz file, "
        f"train.npz,test.npz or {DIGITS!r}"
    )


def _complete(
    source: str, given: Mapping[str, Split], n_classes: int, seed: int
) -> dict[str, Split]:
    """Return all three splits, taking those that are not given from the training images."""
    train = given["train"]
    splits = dict(given)
    order = stratified_order(train.labels, np.random.default_rng(seed))
    count = min(round(HELD_OUT_SHARE * len(order)), HELD_OUT_MOST)
    for name in ("test", "validation"):
        if name not in splits:
            taken, order = order[:count], order[count:]
            splits[name] = train.part(taken)
    splits["train"] = train.part(order)
    if missing := sorted(set(range(n_classes)) - set(splits["train"].labels.tolist())):
        raise DataError(
            f"{source!r} leaves {len(missing)} of {n_classes} classes without a training image "
            f"(class number {missing[0]} first); expected more images of every class"
        )
    if empty := [name for name, split in splits.items() if not len(split)]:
        raise DataError(
            f"{source!r} has {len(train.labels)} images, too few for a {empty[0]} split; "
            "expected at least 5"
        )
    return splits


def _absolute(source: str) -> str:
    """Make paths absolute, so that the source is found again from another folder."""
    if source == DIGITS:
        return source
    return ",".join(str(Path(p).resolve()) for p in source.split(","))
