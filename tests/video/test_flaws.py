"""Tests for `vostrack.video.flaws`: what is said of masks that look like an accident."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from tests.video.mask_samples import boxes, read
from vostrack.errors import MaskError
from vostrack.notes import Code
from vostrack.video import flaws, snap


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


def test_many_objects_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outlines among filled boxes, one around others and two that share a border: each is said, in few looks."""
    looks = list[int]()

    def counted(labels: Any) -> Any:
        looks.append(labels.size)
        return snap.interior(labels)

    monkeypatch.setattr(flaws, "interior", counted)
    pixels = np.zeros((200, 400), np.uint8)
    for number in range(1, 51):
        y, x = 20 * ((number - 1) // 10), 40 * ((number - 1) % 10)
        pixels[y : y + 20, x : x + 30] = number
        if number % 10 == 3:
            pixels[y + 2 : y + 18, x + 2 : x + 28] = 0
    pixels[65:75, 85:100] = 60
    pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1] = 90, 90, 90, 90
    said = [str(note) for note in flaws.notes(pixels) if note.code is Code.MASK_OUTLINE]
    assert [int(text.split()[1]) for text in said] == [3, 13, 23, 43, 90], "33 is filled in part"
    assert "object 13 is an outline around 416 pixels" in said[1]
    assert sum(looks) <= 10 * pixels.size


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
