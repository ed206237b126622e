"""Names of objects, and the ids of colours: by `read_prompts`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
import torch
from PIL import Image

from tests.video.mask_samples import BLUE, GREEN, RED, SIZE, WHITE, boxes
from vostrack.errors import MaskError
from vostrack.types import LabelMap
from vostrack.video.masks import read_prompts
from vostrack.video.palette import palette_image

NONE = (0, 0, 0)


def image(*values: npt.ArrayLike) -> Image.Image:
    return Image.fromarray(boxes(*values))


def ids(masks: Any, names: Any = None) -> list[list[int]]:
    """By mask, the ids of its boxes, 0 where there is nothing, without those at the end."""
    read = read_prompts(masks, SIZE, names=names)
    rows = [[int(mask.pixels[9, 5 + 8 * place]) for place in range(4)] for _, mask in sorted(read.labels.items())]
    return [row[: max(place for place, number in enumerate(row, 1) if number)] for row in rows]


# Without names.


def test_ids_go_by_frame_and_then_by_colour() -> None:
    assert ids({0: image(RED, GREEN), 40: image(NONE, NONE, BLUE, (255, 0, 255))}) == [[2, 1], [0, 0, 3, 4]]
    assert ids({0: image(NONE, RED), 40: image(GREEN, RED)}) == [[0, 1], [2, 1]]


def test_ids_stay_when_a_later_mask_is_added() -> None:
    masks = {0: image(RED, GREEN), 40: image(NONE, GREEN, BLUE)}
    before = ids(masks)
    assert before == [[2, 1], [0, 1, 3]]
    assert ids({**masks, 20: image(NONE, GREEN, NONE, (9, 200, 200))})[0] == before[0]
    assert ids({**masks, 60: image(RED, NONE, NONE, (90, 0, 200))}) == [*before, [2, 0, 0, 4]]


def test_masks_of_one_name_in_two_folders_are_two_masks(tmp_path: Path) -> None:
    paths = {}
    for frame, mask in ((0, image(RED, GREEN)), (40, image(NONE, RED))):
        paths[frame] = tmp_path / str(frame) / "mask.png"
        paths[frame].parent.mkdir()
        mask.save(paths[frame])
    assert ids(paths) == [[2, 1], [0, 2]], "red is 2 in both"
    notes = read_prompts(paths, SIZE).notes
    assert {str(note).partition(": ")[0] for note in notes} == {str(path) for path in paths.values()}


# With names.


def test_colours_have_ids_in_the_order_of_their_names() -> None:
    names: Any = {BLUE: "bird", RED: "dog", GREEN: "cat"}
    assert ids({0: image(RED, GREEN), 40: image(NONE, NONE, BLUE)}, names) == [[2, 3], [0, 0, 1]]
    assert ids({0: image(GREEN, RED), 7: image(NONE, RED, BLUE)}, names) == [[3, 2], [0, 2, 1]]
    found = read_prompts({0: image(RED, GREEN), 40: image(BLUE, NONE)}, SIZE, names=names)
    assert found.names == {1: "bird", 2: "dog", 3: "cat"}
    assert found.colors == {1: BLUE, 2: RED, 3: GREEN}
    assert "#ff0000 = 2" in str(found.notes[0])


def test_one_mask_alone_has_the_same_ids_as_beside_others() -> None:
    assert ids({0: image(RED, GREEN)}, {RED: "dog"}) == [[1, 2]]
    assert ids({0: image(RED, GREEN)}, {RED: "dog", GREEN: "cat"}) == [[1, 2]]
    assert ids({0: image(NONE, WHITE), 9: image(RED, WHITE)}, {RED: "dog", WHITE: "cat"}) == [[0, 2], [1, 2]]


def test_colours_without_a_name_do_not_get_the_id_of_one() -> None:
    assert ids({0: image(NONE, BLUE), 40: image(RED, BLUE)}, {RED: "dog"}) == [[0, 2], [1, 2]]
    assert ids({0: image(NONE, 255), 40: image(RED, NONE)}, {RED: "dog"}) == [[0, 2], [1]]


def test_colours_that_a_lossy_format_changed_are_known(tmp_path: Path) -> None:
    big = boxes(RED, GREEN).repeat(4, 0).repeat(4, 1)
    Image.fromarray(big).save(tmp_path / "mask.jpg", quality=90)
    found = read_prompts({0: tmp_path / "mask.jpg"}, (96, 128), names={RED: "dog", GREEN: "cat"})
    assert found.names == {1: "dog", 2: "cat"}


@pytest.mark.parametrize(
    ("mask", "names", "expected"),
    [
        (image(1, 2), {2: "cat"}, {2: "cat"}),
        (palette_image(boxes(1, 2)), {2: "cat", (128, 0, 0): "dog"}, {1: "dog", 2: "cat"}),
        (image(RED, GREEN), {RED: "dog", 2: "cat"}, {1: "dog", 2: "cat"}),
        (image(RED, GREEN), {1: "cat", RED: "dog"}, {1: "cat", 2: "dog"}),
        (image(255, 128), {128: "cat", 255: "dog"}, {1: "cat", 2: "dog"}),
        (image(0, 255), {WHITE: "cat"}, {1: "cat"}),
        (image(0, 255), {1: "cat"}, {1: "cat"}),
        (boxes(3, 7), {7: "cat"}, {7: "cat"}),
        (LabelMap(torch.from_numpy(boxes(3, 7)), (3, 7)), {7: "cat"}, {7: "cat"}),
        (image(RED, GREEN), {RED: "dog", GREEN: "dog"}, {1: "dog", 2: "dog"}),
    ],
)
def test_colours_values_and_ids_can_be_named(mask: Any, names: Any, expected: dict[int, str]) -> None:
    assert read_prompts({0: mask}, SIZE, names=names).names == expected


@pytest.mark.parametrize("key", ["left.png", "left"])
def test_files_of_a_folder_can_be_named(key: str, tmp_path: Path) -> None:
    image(255, 0).save(tmp_path / "left.png")
    image(0, 255).save(tmp_path / "right_1.png")
    found = read_prompts({0: tmp_path}, SIZE, names={key: "dog", "right": "cat"})
    assert found.names == {1: "dog", 2: "cat"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({BLUE: "bird"}, "no mask has the colour #0000ff .named bird.: there are 2 objects, #00ff00, #ff0000$"),
        ({9: "bird"}, "no mask has the id or grey 9 .named bird.: there are"),
        ({"left.png": "bird"}, "no mask has the colour, id or file left.png"),
        ({RED: "dog", 1: "cat", 2: "bird"}, "no mask has the id or grey 2 .named bird."),
        ({RED: "do\x1bg"}, r"a text of 1 to 80 letters that can be shown, not '?.*x1bg"),
        ({RED: " "}, "a text of 1 to 80 letters"),
        ({RED: "x" * 81}, "a text of 1 to 80 letters"),
        ({(1, 2): "dog"}, "not by"),
        ({256: "dog"}, "not by 256"),
        (["dog"], "names are given by colour, id or file"),
    ],
)
def test_what_names_nothing_is_refused(names: Any, words: str) -> None:
    with pytest.raises(MaskError, match=words):
        read_prompts({0: image(RED, GREEN)}, SIZE, names=names)


@pytest.mark.parametrize(("value", "there"), [(255, "#ffffff"), (3, "3")])
def test_a_name_and_an_object_that_are_exchanged_are_told_so(value: int, there: str) -> None:
    said = f"no mask has the colour, id or file swan (named {value}): there is 1 object, {there}; exchange them if swan"
    with pytest.raises(MaskError, match=re.escape(said)):
        read_prompts({0: image(value, 0)}, SIZE, names={"swan": str(value)})


def test_the_note_of_colours_says_what_they_are_called() -> None:
    found = read_prompts({0: image(RED, (0, 0, 200))}, SIZE, names={(255, 0, 1): "dog"})
    assert "colours became objects: #ff0000 = 1 (dog), #0000c8 = 2" in "\n".join(found.notes)


def test_an_object_has_one_name() -> None:
    names: Any = {1: "cat", (128, 0, 0): "dog"}
    with pytest.raises(MaskError, match="object 1 has two names, cat and dog: leave one out"):
        read_prompts({0: palette_image(boxes(1, 2))}, SIZE, names=names)
