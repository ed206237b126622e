from __future__ import annotations

import numpy as np
import pytest

from vostrack.video.lettering import Lettering

SIZE = (120, 200)
RED, BLUE = (250, 0, 0), (0, 0, 250)


def written(
    objects: np.ndarray, colors: dict[int, tuple[int, int, int]], index: int | None = None, **names: str
) -> np.ndarray:
    picture = np.full((*objects.shape, 3), 77, np.uint8)
    lettering = Lettering({int(number[1:]): name for number, name in names.items()})
    for _ in range(2):  # again, with what is kept
        picture[:] = 77
        lettering.write(picture, objects, colors, index)
    return picture


def rows_of(picture: np.ndarray, color: tuple[int, int, int]) -> tuple[int, int]:
    rows = np.flatnonzero((picture == color).all(-1).any(1))
    return int(rows[0]), int(rows[-1])


def columns_of(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((picture == color).all(-1).any(0).sum())


def boxes(*places: tuple[int, int, int, int]) -> np.ndarray:
    objects = np.zeros(SIZE, np.uint8)
    for number, (top, bottom, left, right) in enumerate(places, 1):
        objects[top:bottom, left:right] = number
    return objects


def test_a_tag_is_above_its_object_or_else_below_or_on_it() -> None:
    assert rows_of(written(boxes((60, 90, 80, 120)), {1: RED}), RED)[1] < 60
    assert rows_of(written(boxes((0, 60, 80, 120)), {1: RED}), RED)[0] >= 60
    first, last = rows_of(written(boxes((0, 120, 80, 120)), {1: RED}), RED)
    assert 40 < first < last < 80


def test_tags_cover_neither_one_another_nor_other_objects() -> None:
    picture = written(boxes((30, 60, 80, 120), (60, 90, 80, 120)), {1: RED, 2: BLUE})
    assert rows_of(picture, RED)[1] < 30
    assert rows_of(picture, BLUE)[0] >= 90
    close = written(boxes((60, 90, 80, 100), (60, 90, 90, 110)), {1: RED, 2: BLUE})
    assert len(np.unique(close.reshape(-1, 3), axis=0)) > 4
    assert columns_of(close, RED) == columns_of(close, BLUE)


def test_a_tag_is_near_its_object_not_its_box() -> None:
    objects = boxes((80, 100, 20, 180))
    objects[10:80, 170:180] = 1
    assert rows_of(written(objects, {1: RED}), RED)[1] > 60


def test_names_and_the_frame_are_written() -> None:
    objects = boxes((60, 90, 80, 120))
    plain = written(objects, {1: RED})
    assert columns_of(written(objects, {1: RED}, n1="dog"), RED) > columns_of(plain, RED) + 10
    framed = written(objects, {1: RED}, 131)
    assert (framed[:30, :70] != plain[:30, :70]).any()
    assert (framed[40:] == plain[40:]).all()


@pytest.mark.parametrize(("name", "same"), [("Zoë", "Zoe"), ("狗", ""), ("a\x1b[2J", ""), ("", "")])
def test_names_that_the_font_cannot_write_are_left_out(name: str, same: str) -> None:
    objects = boxes((60, 90, 80, 120))
    assert (written(objects, {1: RED}, n1=name) == written(objects, {1: RED}, n1=same)).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (48, 64), (2, 2)])
def test_small_frames_get_what_fits(size: tuple[int, int]) -> None:
    objects = np.full(size, 254, np.uint8)
    assert written(objects, {254: RED}, 10**6, n254="a long name of an object").shape == (*size, 3)


def test_a_tiny_object_in_a_large_frame_has_a_tag() -> None:
    objects = np.zeros((1080, 1080), np.uint8)
    objects[701, 703] = 1
    assert columns_of(written(objects, {1: RED}), RED) > 10
