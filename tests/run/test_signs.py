from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vostrack.files import OutputRoot
from vostrack.run.signs import SIGNS, Sign, SignsWriter, change, measure, read_signs, small
from vostrack.types import Frame, LabelMap, Prediction

H, W = 24, 31
GENERATOR = np.random.default_rng(5)


def prediction(
    labels: np.ndarray, index: int = 0, cells: np.ndarray | None = None, image: np.ndarray | None = None, **more: Any
) -> Prediction:
    """A prediction with two objects, 3 and 200."""
    pixels = GENERATOR.integers(0, 256, (3, *labels.shape), np.uint8) if image is None else image
    frame = Frame(index, Fraction(index), torch.from_numpy(pixels), f"{index:05d}")
    probs = None if cells is None else torch.from_numpy(cells)
    return Prediction(frame, LabelMap(torch.from_numpy(labels), (3, 200)), None, probs, **more)


def two(shift: int = 0) -> np.ndarray:
    labels = np.zeros((H, W), np.uint8)
    labels[3 + shift : 12 + shift, 4:11] = 3
    labels[10:20, 15:29] = 200
    return labels


def soft_cells() -> np.ndarray:
    cells = GENERATOR.random((3, H, W)).astype(np.float32)
    return cells / cells.sum(0)


def test_the_signs_of_an_object_are_those_of_naive_loops() -> None:
    cells, labels, earlier = soft_cells(), two(2), two()
    seen = small(prediction(labels))
    found = measure(prediction(labels, 1, cells), seen, small(prediction(earlier))).objects[3]
    inside = [(y, x) for y in range(H) for x in range(W) if labels[y, x] == 3]
    own = [float(cells[1, y, x]) for y, x in inside]
    everywhere = [float(cells[1, y, x]) for y in range(H) for x in range(W)]
    cy, cx = (sum(p[axis] for p in inside) / len(inside) for axis in (0, 1))
    outline = [
        (y, x) for y, x in inside if any(labels[y + dy, x + dx] != 3 for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)))
    ]
    both = sum(earlier[p] == 3 for p in inside)
    margin = [float(cells[1, y, x] - max(cells[0, y, x], cells[2, y, x])) for y, x in inside]
    wanted = Sign(
        area=len(inside),
        share=len(inside) / (H * W),
        y=cy / H,
        x=cx / H,
        spread=math.sqrt(sum((y - cy) ** 2 + (x - cx) ** 2 for y, x in inside) / len(inside)) / H,
        outline=len(outline) / math.sqrt(len(inside)),
        kept=both / (len(inside) + (earlier == 3).sum() - both),
        was=3,
        inside=sum(own) / len(own),
        margin=sum(margin) / len(margin),
        least=sorted(own)[len(own) // 10],
        soft=sum(p * (1 - p) for p in everywhere) / sum(everywhere),
        leak=min((sum(everywhere) - sum(own)) / sum(own), 9.0),
    )
    for name in (
        "area",
        "share",
        "y",
        "x",
        "spread",
        "outline",
        "kept",
        "was",
        "inside",
        "margin",
        "least",
        "leak",
        "soft",
    ):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-5), name
    colors = [[float(seen.image[c, y, x]) for y, x in inside] for c in range(3)]
    assert (found.red, found.green, found.blue) == pytest.approx([float(np.mean(values)) for values in colors])
    assert found.contrast == pytest.approx(np.mean([np.std(values) for values in colors]), rel=1e-5)
    assert found.agreement is None


def test_an_object_that_is_nowhere_has_the_signs_that_are_left() -> None:
    cells, labels = soft_cells(), two()
    labels[labels == 3] = 0
    found = measure(prediction(labels, 1, cells, agreement={3: 0.25}), small(prediction(labels)), None).objects[3]
    assert (found.area, found.kept, found.margin, found.agreement) == (0, 0.0, None, 0.25)
    assert found.inside == pytest.approx(cells[1].max())


def test_a_large_frame_is_looked_at_on_a_small_grid() -> None:
    labels = np.kron(two(), np.ones((20, 20), np.uint8))
    cells = np.kron(soft_cells(), np.ones((1, 2, 2), np.float32))
    seen = small(prediction(labels))
    assert seen.labels.shape == (80, 103)
    found = measure(prediction(labels, 1, cells), seen, seen).objects[200]
    assert found.area == 140 * 400
    assert found.kept == 1.0
    assert found.inside == pytest.approx(cells[2, 20:40, 30:58].mean(), abs=0.02)


def test_an_object_where_another_one_was_is_told() -> None:
    after = two()
    after[after == 3], after[after == 200] = 7, 3
    found = measure(prediction(after), small(prediction(after)), small(prediction(two()))).objects[3]
    assert (found.was, found.kept) == (200, 0.0)


def test_frames_of_one_shot_change_little_and_others_much() -> None:
    image = GENERATOR.integers(0, 120, (3, H, W), np.uint8)
    still = small(prediction(two(), image=image))
    assert change(still, still) == 0
    assert change(small(prediction(two(), image=image + 1)), still) < 0.05
    assert change(small(prediction(two(), image=255 - image)), still) > 0.3


def test_what_was_measured_comes_back_and_later_lines_count(tmp_path: Path) -> None:
    (tmp_path / ".vostrack").mkdir()
    root = OutputRoot(tmp_path)
    writer = SignsWriter(root)
    for index in range(3):
        writer.write(prediction(two(index), index, soft_cells()))
    with (tmp_path / SIGNS).open("a") as file:
        file.write('\n[1,0.0,{"3":[1,2')  # as a kill leaves it
    again = SignsWriter(root)
    again.skip(prediction(two(1), 1))
    again.write(prediction(two(3), 2))
    found = read_signs(root)
    assert [seen.frame for seen in found] == [0, 1, 2]
    assert found[2].objects[3].inside is None
    assert found[1].objects[3].inside is not None
    assert 0 < found[2].objects[3].kept < 1
    assert read_signs(OutputRoot(tmp_path / "none")) == []
