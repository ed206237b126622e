"""Masks in formats of labelling tools and trainings come back as they were, through what reads these formats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.formats.readers import READERS, same
from tests.formats.samples import clips, exported

pytestmark = [
    pytest.mark.needs("pycocotools", "coco"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),  # of its decoder, with NumPy 2
    pytest.mark.usefixtures("quick_disk"),
]


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=8)
@given(clips())
def test_any_masks_come_back(name: str, frames: list[np.ndarray]) -> None:
    ending, read = READERS[name]
    with exported(frames, name, ending) as path:
        assert same(read(path), frames)


@pytest.mark.parametrize("name", READERS)
def test_many_objects_come_back(name: str) -> None:
    pixels = np.zeros((40, 70), np.uint8)
    pixels[1:-1:2, 1:-1:2].flat[:254] = np.arange(1, 255)
    ending, read = READERS[name]
    with exported([pixels, np.roll(pixels, 1)], name, ending) as path:
        assert same(read(path), [pixels, np.roll(pixels, 1)])


@pytest.mark.parametrize("name", READERS)
def test_a_long_object_comes_back(name: str) -> None:
    """Longer than the runs that a format can count at once."""
    pixels = np.full((300, 500), 7, np.uint8)
    pixels[100:120, 200:260] = 0
    ending, read = READERS[name]
    with exported([pixels], name, ending) as path:
        assert same(read(path), [pixels])
