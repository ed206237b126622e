"""Tests for `vostrack.video.palette`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vostrack.video.palette import PALETTE, palette_ids, palette_image, read_ids


def test_first_colours_are_those_of_pascal_voc() -> None:
    expected = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    assert [tuple(color) for color in PALETTE[:7].tolist()] == expected
    assert PALETTE[[9, 21, 255]].tolist() == [[192, 0, 0], [128, 64, 128], [255, 255, 255]]


def test_no_two_ids_look_the_same_and_nobody_can_change_that() -> None:
    assert len(np.unique(PALETTE, axis=0)) == 256
    with pytest.raises(ValueError, match="read-only"):
        PALETTE[1] = 0


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_image_keeps_ids_and_shows_colours(layout: object) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    file = io.BytesIO()
    palette_image(layout(pixels)).save(file, "PNG")  # type: ignore[operator]
    with Image.open(file) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), pixels)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), PALETTE[pixels])


def test_ids_of_colours() -> None:
    ids = palette_ids(PALETTE)
    assert ids is not None
    assert ids.tolist() == list(range(256))


def test_ids_of_colours_that_davis_and_voc_write_differently() -> None:
    colors = np.array([(191, 0, 0), (191, 128, 128), (224, 224, 192)], np.uint8)
    ids = palette_ids(colors)
    assert ids is not None
    assert ids.tolist() == [9, 15, 255]


def test_colours_outside_the_palette_have_no_ids() -> None:
    assert palette_ids(np.array([(0, 0, 0), (255, 0, 0)], np.uint8)) is None
    assert palette_ids(np.array([(127, 2, 0)], np.uint8)) is None
    near = palette_ids(np.array([(127, 2, 0)], np.uint8), tolerance=2)
    assert near is not None
    assert near.tolist() == [1]


def test_colours_of_davis_are_recognised(dev_data: Path) -> None:
    with Image.open(dev_data / "davis17-dev/Annotations/480p/bmx-trees/00000.png") as image:
        ids, rgb = np.asarray(image), np.asarray(image.convert("RGB"))
    found = palette_ids(np.stack([rgb[ids == number][0] for number in (0, 1, 2)]))
    assert found is not None
    assert found.tolist() == [0, 1, 2]


def test_a_mask_without_pixels_is_a_value_error(tmp_path: Path) -> None:
    """Pillow raises an IndexError there."""
    palette_image(np.zeros((2, 3), np.uint8)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: data.index(b"IDAT") - 4] + data[-12:])
    with pytest.raises(ValueError, match="index"):
        read_ids(tmp_path / "a.png")
