"""Tests for `vostrack.video.flaws`: what is said of masks that look like an accident."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from tests.video.mask_samples import boxes, read
from vostrack.errors import MaskError


def disc(**options: int) -> Image.Image:
    """A disc, or its outline."""
    image = Image.new("L", (160, 120))
    ImageDraw.Draw(image).ellipse((40, 20, 120, 100), **options)
    return image


def test_a_disc_is_no_accident(tmp_path: Path) -> None:
    assert read(tmp_path, disc(fill=255)).notes == ()


@pytest.mark.parametrize("width", [1, 3, 6])
def test_an_outline_that_is_not_filled_is_pointed_out(tmp_path: Path, width: int) -> None:
    (note,) = read(tmp_path, disc(outline=255, width=width)).notes
    assert "object 1 is an outline around" in note


def test_a_thick_ring_is_an_object(tmp_path: Path) -> None:
    assert read(tmp_path, disc(outline=255, width=10)).notes == ()


def test_shades_that_became_dots_are_pointed_out(tmp_path: Path) -> None:
    (note,) = read(tmp_path, disc(fill=255).filter(ImageFilter.GaussianBlur(6)).convert("1")).notes
    assert "pixels stand alone: if the mask was dithered, save it without" in note


def test_diagonal_lines_stand_for_themselves(tmp_path: Path) -> None:
    image = boxes(255)
    image[np.arange(4, 22), np.arange(10, 28)] = 255
    assert read(tmp_path, image).notes == ()


@pytest.mark.parametrize("scale", [0.6, 2, 4])
def test_ids_that_were_resized_smoothly_are_pointed_out(tmp_path: Path, scale: float) -> None:
    ids = Image.fromarray(boxes(1, 3, 2).repeat(4, 0).repeat(4, 1))
    assert read(tmp_path, ids).notes == ()
    smooth = ids.resize((int(ids.width * scale), int(ids.height * scale)), Image.Resampling.BILINEAR)
    (note,) = read(tmp_path, smooth).notes
    assert "pixels at edges have an id between those on both sides: if the mask of ids was smoothed" in note


def test_a_photo_of_few_colours_is_no_mask(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    photo = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)).quantize(16)
    with pytest.raises(MaskError, match="looks like a picture"):
        read(tmp_path, photo)
