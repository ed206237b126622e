"""Colours and names that masks give to their objects, for overlays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vostrack.video.masks import GivenMask, read_prompts
from vostrack.video.palette import palette_image

SIZE = (32, 32)
RED, BLUE = (200, 30, 30), (10, 20, 220)


def halves(*colors: tuple[int, int, int]) -> Image.Image:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    for place, color in enumerate(colors):
        pixels[4:12, 2 + place * 10 : 10 + place * 10] = color
    return Image.fromarray(pixels)


def colors(*masks: GivenMask) -> dict[int, tuple[int, int, int]]:
    return read_prompts(dict(enumerate(masks)), SIZE).colors


def test_colours_are_those_of_the_image_or_of_its_palette() -> None:
    assert colors(halves(RED, BLUE)) == {1: BLUE, 2: RED}
    image = palette_image(np.pad(np.full((8, 8), 3, np.uint8), 12))
    image.putpalette([0, 0, 0, 9, 9, 9, 9, 9, 9, *RED])
    assert colors(image) == {3: RED}


def test_a_colour_is_that_of_the_id_in_all_masks() -> None:
    green = (20, 200, 40)
    assert colors(halves(RED, BLUE), halves(green, BLUE, RED)) == {1: BLUE, 2: RED, 3: green}


def test_greys_and_white_alone_are_no_colours() -> None:
    assert colors(halves((255, 255, 255))) == colors(halves((1, 1, 1), (2, 2, 2))) == {}


def test_names_are_those_of_files_but_for_their_numbers(tmp_path: Path) -> None:
    for folder, names in (("a", ["dog", "cat_2"]), ("b", ["obj_1", "obj_2"]), ("c", ["1", "2"]), ("d", ["dog_1"])):
        (tmp_path / folder).mkdir()
        for place, name in enumerate(names):
            pixels = np.zeros(SIZE, np.uint8)
            pixels[4:12, 2 + place * 10 : 10 + place * 10] = 255
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
    found = {folder: read_prompts({0: tmp_path / folder}, SIZE).names for folder in "abcd"}
    assert found == {"a": {1: "cat", 2: "dog"}, "b": {}, "c": {}, "d": {1: "dog"}}
