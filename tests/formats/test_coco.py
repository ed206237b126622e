from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vostrack
from tests.fakes import read_labels

pytestmark = [
    pytest.mark.needs("pycocotools", "coco"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),  # of its decoder, with NumPy 2
]


def loaded(path: Path) -> Any:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it takes
        return COCO(str(path))


def test_pycocotools_loads_the_masks_of_a_run(finished: Path, tmp_path: Path) -> None:
    made = vostrack.export(finished, "coco", tmp_path / "a.json")
    assert (made["frames"], made["objects"]) == (8, {"3": "dog", "200": "cat"})
    coco = loaded(tmp_path / "a.json")
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == ["dog", "cat"]
    assert [each["file_name"] for each in coco.loadImgs(coco.getImgIds())] == [f"{n:05d}.jpg" for n in range(8)]
    for image in coco.loadImgs(coco.getImgIds()):
        pixels = np.zeros((image["height"], image["width"]), np.uint8)
        for found in coco.loadAnns(coco.getAnnIds(image["id"], iscrowd=False)):
            mask = coco.annToMask(found)
            left, top, width, height = map(int, found["bbox"])
            assert mask[top : top + height, left : left + width].sum() == mask.sum() == found["area"]
            pixels[mask > 0] = found["track_id"]
        assert np.array_equal(pixels, read_labels(finished / "masks" / f"{image['frame']:05d}.png"))
