"""Shifts and mirrors of small images; random crops and colours of photographs."""

from __future__ import annotations

import numpy as np
import pytest

from hwprof.search.data import augmentation
from hwprof.search.data.augmentation import LARGE_PX, augmented

SIDE = LARGE_PX


def gradient_images(n: int) -> np.ndarray:
    """Return images whose red says the column and whose green says the row."""
    line = np.linspace(0, 255, SIDE).round().astype(np.uint8)
    images = np.zeros((n, SIDE, SIDE, 3), dtype=np.uint8)
    images[..., 0], images[..., 1] = line[None, None, :], line[None, :, None]
    return images


def test_crops_cover_the_stated_areas_and_aspects(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(augmentation, "JITTER", 0.0)
    found = augmented(gradient_images(300), np.random.default_rng(0), photographs=True)
    inner = found.astype(float)[:, 2:-2, 2:-2]
    # The slope of a colour along an axis says how much of that axis the crop holds.
    scale = (SIDE - 4) / (SIDE - 5)
    widths = np.abs(inner[:, 0, -1, 0] - inner[:, 0, 0, 0]) / 255 * scale
    heights = np.abs(inner[:, -1, 0, 1] - inner[:, 0, 0, 1]) / 255 * scale
    areas, aspects = widths * heights, widths / heights
    assert areas.min() > 0.06
    assert areas.max() <= 1.0
    # Uniform over 8 to 100 %, some cut to the image: the mean is near 0.52.
    assert areas.mean() == pytest.approx(0.52, abs=0.05)
    assert aspects.min() > 0.70
    assert aspects.max() < 1.42
    mirrored = inner[:, 0, -1, 0] < inner[:, 0, 0, 0]
    assert 0.4 < mirrored.mean() < 0.6
    assert (inner[:, -1, 0, 1] > inner[:, 0, 0, 1]).all()


def test_colours_are_jittered_within_bounds(monkeypatch: pytest.MonkeyPatch):
    """A grey image keeps its contrast and saturation: only brightness, by 0.6 to 1.4, is left."""
    grey = np.full((200, SIDE, SIDE, 3), 100, dtype=np.uint8)
    found = augmented(grey, np.random.default_rng(0), photographs=True)
    values = found.mean(axis=(1, 2, 3))
    assert values.min() >= 59
    assert values.max() <= 141
    assert values.std() == pytest.approx(80 / 12**0.5, rel=0.15)
    assert (found.max(axis=(1, 2, 3)) - found.min(axis=(1, 2, 3)) <= 1).all()


def test_the_generator_decides():
    images = gradient_images(4)
    a, b, c = (augmented(images, np.random.default_rng(s), photographs=True) for s in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_scans_of_any_size_are_only_shifted():
    images = np.full((8, SIDE, SIDE, 3), 200, dtype=np.uint8)
    found = augmented(images, np.random.default_rng(0), photographs=False)
    assert set(np.unique(found)) == {0, 200}


def test_shifts_move_a_pixel_and_bring_in_black():
    images = np.zeros((500, 16, 16, 3), dtype=np.uint8)
    images[:, 5, 9] = 255
    shifted = augmented(images, np.random.default_rng(0), photographs=False)
    where = np.argwhere(shifted[..., 0] == 255)
    assert len(where) == 500
    offsets = where[:, 1:] - (5, 9)
    # 16 px: up to 2 px every way, all of them.
    assert set(map(tuple, offsets)) == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}
    bright = np.full((50, 16, 16, 3), 200, dtype=np.uint8)
    assert set(np.unique(augmented(bright, np.random.default_rng(0), photographs=False))) == {
        0,
        200,
    }


def test_mirrors_half_of_the_images_only_where_allowed():
    images = np.zeros((400, 16, 16, 3), dtype=np.uint8)
    images[:, 8, 3] = 255
    plain, mirrored = (
        augmented(images, np.random.default_rng(0), photographs=m) for m in (False, True)
    )
    left = [np.argwhere(i[..., 0] == 255)[:, 2] < 8 for i in (plain, mirrored)]
    assert left[0].all()
    assert 150 < left[1].sum() < 250
