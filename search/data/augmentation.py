"""Changes to training images that keep their class, in the field's usual forms.

Small images are shifted and mirrored, as for CIFAR (He et al., CVPR 2016). Photographs of
:data:`LARGE_PX` and more are cropped at random and resized, as for ImageNet (Szegedy et al.,
CVPR 2015), mirrored, and their colours jittered.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hwprof.errors import MissingExtraError

SHIFT_SHARE = 0.125
"""Images are shifted by up to this share of their side: 4 of 32 px, as is usual for CIFAR."""
LARGE_PX = 96
"""Photographs from this side on are cropped and resized."""
AREA_SHARE = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
JITTER = 0.4
"""Brightness, contrast and saturation are multiplied by 1 ± this, in that order."""

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def augmented(
    images: NDArray[np.uint8], rng: np.random.Generator, *, photographs: bool
) -> NDArray[np.uint8]:
    """Return the images (uint8 [N, side, side, 3]) as training sees them this time.

    What is no photograph (characters, scans) is neither mirrored nor recoloured.
    """
    if photographs and images.shape[1] >= LARGE_PX:
        return _jittered(_resized_crops(images, rng), rng)
    return _shifted(images, rng, mirror=photographs)


def _shifted(
    images: NDArray[np.uint8], rng: np.random.Generator, *, mirror: bool
) -> NDArray[np.uint8]:
    """Shift every image by a random offset, black coming in; mirror every second one if allowed."""
    count, side = images.shape[:2]
    most = round(SHIFT_SHARE * side)
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
    offsets = rng.integers(0, 2 * most + 1, size=(2, count, 1))
    rows, columns = offsets + np.arange(side)
    if mirror:
        columns = np.where(rng.random((count, 1)) < 0.5, columns[:, ::-1], columns)
    shifted: NDArray[np.uint8] = padded[
        np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    return shifted


def _resized_crops(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Cut out 8 to 100 % of the area at an aspect of 3:4 to 4:3, resize; mirror every second."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("Pillow", "search", "random crops of large images") from error
    count, side = images.shape[:2]
    area = rng.uniform(*AREA_SHARE, count)
    aspect = np.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1]), count))
    # What is too wide or too high at its aspect is cut to the image.
    widths = np.minimum(side, side * np.sqrt(area * aspect))
    heights = np.minimum(side, side * np.sqrt(area / aspect))
    lefts, tops = rng.random(count) * (side - widths), rng.random(count) * (side - heights)
    mirrored = rng.random((count,)) < 0.5
    out = np.empty_like(images)
    boxes = zip(lefts, tops, lefts + widths, tops + heights, strict=True)
    for index, box in enumerate(boxes):
        image = Image.fromarray(images[index])
        crop = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box))
        out[index] = crop[:, ::-1] if mirrored[index] else crop
    return out


def _jittered(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Multiply brightness, contrast and saturation of every image by random factors."""
    factors = rng.uniform(1.0 - JITTER, 1.0 + JITTER, (3, len(images), 1, 1, 1))
    brightness, contrast, saturation = factors.astype(np.float32)
    pixels = images * brightness
    mean = (pixels @ _GREY).mean(axis=(1, 2))[:, None, None, None]
    pixels = mean + contrast * (pixels - mean)
    grey = (pixels @ _GREY)[..., None]
    pixels = grey + saturation * (pixels - grey)
    clipped: NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return clipped
