from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vostrack.ops.color import rgb_to_lab
from vostrack.video.drawing import Painter, draw_overlay, tones
from vostrack.video.look import Look, Style
from vostrack.video.palette import PALETTE

Color = tuple[int, int, int]
DRAWN, GROUNDED = (Style.TINT, Style.OUTLINE), (Style.CUTOUT, Style.CHECKERBOARD)


def naive(image: np.ndarray, labels: np.ndarray, style: Style, unit: int = 1) -> np.ndarray:
    """The same, a pixel at a time: a tint, within some steps of another label a line, and around objects a rim."""
    objects, out = np.where(labels == 255, 0, labels).astype(int), image.astype(int)
    found = {
        number: tones(tuple(PALETTE[number].tolist()), tuple(image[objects == number].mean(0).astype(int).tolist()))
        for number in set(objects.flat) - {0}
    }
    for (y, x), number in np.ndenumerate(objects):
        near: dict[int, set[int]] = {}
        for (v, u), other in np.ndenumerate(objects):
            steps = abs(v - y) + abs(u - x)
            if other != number:
                near.setdefault(steps, set()).add(other)
        nearest = min(near, default=99)
        if number and style is Style.TINT:
            out[y, x] = image[y, x] // 2 + np.array(found[number][0]) // 2
        if number and nearest <= unit * (2 if style is Style.OUTLINE else 1):
            out[y, x] = found[number][1]
        if not number and nearest <= unit:
            out[y, x] = found[max(near[nearest])][2]
    return out


label_maps = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 7, 255])
)


@pytest.mark.parametrize("style", DRAWN)
@given(labels=label_maps, seed=st.integers(0, 9))
def test_overlay_equals_the_drawing_pixel_by_pixel(style: Style, labels: np.ndarray, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    drawn = Painter(Look(style)).draw(image, labels)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, naive(image, labels, style))


def test_lines_grow_with_the_frame() -> None:
    image = np.full((1080, 1080, 3), 200, np.uint8)
    labels = np.zeros((1080, 1080), np.uint8)
    labels[100:114, 110:124] = 2
    part = slice(90, 124), slice(100, 134)
    drawn = draw_overlay(image, labels)
    np.testing.assert_array_equal(drawn[part], naive(image[part], labels[part], Style.TINT, 2))
    assert (drawn[124:] == 200).all()


@pytest.mark.parametrize("style", GROUNDED)
def test_a_ground_takes_the_place_of_all_that_is_no_object(style: Style) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    labels = np.zeros((40, 60), np.uint8)
    labels[5:20, 5:30], labels[20:30, 40:] = 3, 255
    drawn = Painter(Look(style)).draw(image, labels)
    np.testing.assert_array_equal(drawn[labels == 3], image[labels == 3])
    levels = {tuple(level) for level in drawn[labels != 3].tolist()}
    assert len(levels) == (1 if style is Style.CUTOUT else 2)
    assert all(len(set(level)) == 1 for level in levels), "grey"


@pytest.mark.parametrize(("level", "expected"), [(20, 224), (240, 32)])
def test_the_ground_of_a_cutout_is_unlike_the_objects(level: int, expected: int) -> None:
    painter, labels = Painter(Look(Style.CUTOUT)), np.zeros((8, 8), np.uint8)
    image = np.full((8, 8, 3), level, np.uint8)
    painter.draw(image, labels)  # no object yet: nothing to tell
    labels[:4] = 1
    assert (painter.draw(image, labels)[4:] == expected).all()
    assert (painter.draw(255 - image, labels)[4:] == expected).all(), "it stays"


colors = st.tuples(*[st.integers(0, 255)] * 3)


def apart(one: Color, other: Color) -> float:
    lab = rgb_to_lab(torch.tensor([one, other]).float().T[..., None] / 255)
    return float((lab[:, 0] - lab[:, 1]).norm())


@given(painted=colors, own=colors)
def test_line_and_tint_stand_out_and_the_rim_from_the_line(painted: Color, own: Color) -> None:
    tint, line, rim = tones(painted, own)
    assert apart(line, own) >= 30
    assert apart(tint, own) >= min(apart(painted, own), 30)
    assert apart(line, rim) >= 45
    assert rim in ((0, 0, 0), (255, 255, 255))


def test_a_painted_colour_is_kept_unless_the_object_has_it() -> None:
    red, grass = (200, 30, 30), (60, 120, 50)
    assert tones(red, grass)[0] == red
    tint, line, _ = tones(red, red)
    assert red not in (tint, line)
    assert tint[0] >= tint[1] == tint[2], "still a red"


def test_objects_keep_their_colours_when_the_light_changes() -> None:
    painter = Painter(Look(Style.OUTLINE, colors={1: (200, 30, 30)}))
    labels = np.pad(np.ones((6, 6), np.uint8), 3)
    dark, bright = (painter.draw(np.full((12, 12, 3), level, np.uint8), labels) for level in (10, 250))
    assert (dark[3, 3:9] == bright[3, 3:9]).all()
    assert dark[3, 3].tolist() == [255, 38, 38]


@pytest.mark.parametrize("labels", [np.zeros((5, 7), np.uint8), np.full((5, 7), 255, np.uint8)])
def test_background_and_void_are_not_drawn(labels: np.ndarray) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (draw_overlay(image, labels) == image).all()


def test_tensor_and_array_give_the_same_and_stay_as_they_are() -> None:
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    before = image.clone()
    labels = np.ones((20, 30), np.uint8)
    array = image.permute(1, 2, 0).numpy().copy()
    drawn = draw_overlay(image, labels)
    assert drawn.shape == (20, 30, 3)
    assert drawn.flags.c_contiguous
    assert (draw_overlay(array, labels) == drawn).all()
    assert (drawn != array).any()
    assert torch.equal(image, before)
    assert (array == before.permute(1, 2, 0).numpy()).all()
    draw_overlay(array, labels * 0)[:] = 0
    assert (array == before.permute(1, 2, 0).numpy()).all()


def test_full_hd_frame_is_drawn_fast() -> None:
    image = torch.randint(0, 256, (3, 1080, 1920), dtype=torch.uint8)
    labels = np.ones((1080, 1920), np.uint8)
    labels[300:500] = 3
    painter = Painter(Look(labels=True))
    seconds = []
    for index in range(5):
        # Time of this thread: other processes of the machine do not count.
        start = time.thread_time()
        painter.draw(image, labels, index)
        seconds.append(time.thread_time() - start)
    assert min(seconds) < 0.1
