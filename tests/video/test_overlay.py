from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vostrack.video.overlay import draw_overlay
from vostrack.video.palette import PALETTE


def naive(image: np.ndarray, labels: np.ndarray, alpha: float, width: int) -> np.ndarray:
    """The same, a pixel at a time: where a label is tinted, and where within `width` steps of another it is a line."""
    height, right = labels.shape
    objects = np.where(labels == 255, 0, labels)
    edge = np.zeros((height, right), bool)
    for step in range(width):
        before = edge.copy()
        for y in range(height):
            for x in range(right):
                for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                    if 0 <= v < height and 0 <= u < right:
                        edge[y, x] |= objects[y, x] != objects[v, u] if step == 0 else before[v, u]
    out = image.astype(float)
    for y in range(height):
        for x in range(right):
            if number := objects[y, x]:
                colour = PALETTE[number].astype(float)
                bright = np.floor(colour * 255 / colour.max())
                out[y, x] = bright if edge[y, x] else (1 - alpha) * out[y, x] + alpha * colour
    return out


label_maps = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 7, 255])
)


@given(labels=label_maps, alpha=st.floats(0, 1), seed=st.integers(0, 9))
def test_overlay_equals_the_drawing_pixel_by_pixel(labels: np.ndarray, alpha: float, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    drawn = draw_overlay(image, labels, alpha)
    assert drawn.dtype == np.uint8
    # alpha is rounded to 1/256 and the result down.
    assert np.abs(drawn - naive(image, labels, alpha, width=1)).max() <= 1.5


def test_large_frames_get_a_line_of_two_pixels() -> None:
    image = np.full((1080, 1080, 3), 200, np.uint8)
    labels = np.zeros((1080, 1080), np.uint8)
    labels[100:130, 110:140] = 2
    part = slice(90, 140), slice(100, 150)
    drawn = draw_overlay(image, labels)
    assert np.abs(drawn[part] - naive(image[part], labels[part], 0.5, 2)).max() <= 1
    assert (drawn[140:] == 200).all()


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
    seconds = []
    for _ in range(5):
        # Time of this thread: other processes of the machine do not count.
        start = time.thread_time()
        draw_overlay(image, labels)
        seconds.append(time.thread_time() - start)
    assert min(seconds) < 0.1
