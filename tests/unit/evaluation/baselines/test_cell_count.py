"""Discs whose number is known, and the two ways a configuration names to count cells."""

import numpy as np
import pandas as pd
import pytest

from bie_jax.config.schema import ConfigError
from bie_jax.evaluation.baselines.cell_count import cell_counts, count_objects
from tests.unit.evaluation.treatments.plates import settings


def discs(*places, size=96):
    """[1, size, size] of discs (y, x, radius), px."""
    y, x = np.mgrid[:size, :size]
    image = np.full((size, size), 100, np.uint16)
    for cy, cx, radius in places:
        image[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = 3000
    return image[None]


_APART = [(16, 16, 6), (16, 60, 7), (50, 30, 8), (80, 80, 6)]
_TOUCHING = [(30, 20, 9), (30, 36, 9), (70, 60, 9), (70, 76, 9)]


@pytest.mark.parametrize(
    ("places", "expected"), [(_APART, 4), (_TOUCHING, 4), ([*_APART, (50, 80, 1)], 4), ([(0, 40, 8)], 1)]
)
def test_as_many_as_were_drawn(places, expected):
    """Apart, two touching pairs, a speck of 5 px below the smallest area, and one that the border cuts."""
    np.testing.assert_array_equal(count_objects(discs(*places), 1.0), [[expected]])


def test_each_image_has_its_own_and_a_constant_one_none():
    images = np.concatenate([discs(*_APART), np.full((1, 96, 96), 7, np.uint16), discs(*_TOUCHING)])
    found = count_objects(images, 1.0)
    assert (found.dtype, found.shape) == (np.float64, (3, 1))
    np.testing.assert_array_equal(found, [[4], [0], [4]])


def test_the_smallest_area_is_of_micrometers():
    """A disc of 13 px is a cell at 1 um a pixel, and a speck of 3 um^2 at half a micrometer."""
    images = discs(*_APART, (50, 80, 2))
    np.testing.assert_array_equal(count_objects(images, 1.0), [[5]])
    np.testing.assert_array_equal(count_objects(images, 0.5), [[4]])


class Images:
    """What is asked of a set: two channels, of which the second is the one that is counted."""

    name, kind = "drawn", "images"
    channel_names = ("other", "DNA")
    pixel_size_um: float | None = 1.0

    def __init__(self, numbers):
        self.numbers = numbers
        self.metadata = pd.DataFrame({"cells": np.asarray(numbers) * 10})

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, row):
        return np.stack([discs(*_TOUCHING)[0], discs(*_APART[: self.numbers[row]])[0]], axis=-1)


def test_of_a_channel_in_the_order_of_the_images(monkeypatch):
    monkeypatch.setattr("bie_jax.evaluation.baselines.cell_count._BATCH", 2)
    images = Images([3, 1, 4, 0, 2])
    (found,) = cell_counts(images, settings(cell_count_channel="DNA"))  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(found.features, [[3], [1], [4], [0], [2]])
    assert "DNA" in found.description
    images.pixel_size_um = None  # then the smallest object is 7 px
    (unknown,) = cell_counts(images, settings(cell_count_channel="DNA"))  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(unknown.features, found.features)


def test_of_a_column_or_not_at_all():
    images = Images([3, 1])
    (found,) = cell_counts(images, settings(cell_count_column="cells"))  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(found.features, [[30], [10]])
    assert cell_counts(images, settings()) == []  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="cell_count_column"):
        cell_counts(images, settings(cell_count_column="nuclei"))  # pyright: ignore[reportArgumentType]
