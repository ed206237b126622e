from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import vostrack
from tests.fakes import read_labels
from tests.formats.samples import clips, exported

pytestmark = [
    pytest.mark.needs("pycocotools", "coco"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),  # of its decoder, with NumPy 2
    pytest.mark.usefixtures("quick_disk"),
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


@settings(max_examples=25)
@given(clips())
def test_polygons_give_the_same_pixels(frames: list[np.ndarray]) -> None:
    with exported(frames, "coco", ".json", polygons=True) as path:
        coco = loaded(path)
    names = {each["id"]: int(each["name"].removeprefix("object_")) for each in coco.loadCats(coco.getCatIds())}
    for image, frame in zip(coco.loadImgs(coco.getImgIds()), frames, strict=True):
        pixels = np.zeros_like(frame)
        for found in coco.loadAnns(coco.getAnnIds(image["id"])):
            assert isinstance(found["segmentation"], list)
            pixels[coco.annToMask(found) > 0] = names[found["category_id"]]
        assert np.array_equal(pixels, frame)


def test_parts_are_polygons_and_a_hole_is_joined_to_its_rim() -> None:
    ring, parts = np.zeros((2, 9, 12), np.uint8)
    ring[1:8, 1:8], ring[3:5, 3:5] = 1, 0
    parts[1:3, 1:4] = parts[5:8, 6:9] = 1
    with exported([ring, parts], "coco", ".json", polygons=True) as path:
        one, other = (found["segmentation"] for found in json.loads(path.read_text())["annotations"])
    assert [len(polygon) for polygon in one] == [20]
    assert other == [[1, 1, 4, 1, 4, 3, 1, 3], [6, 5, 9, 5, 9, 8, 6, 8]]


@pytest.mark.parametrize(("kind", "ending"), [("coco", ".json"), ("ytvis", ".json"), ("cvat", ".xml")])
def test_images_of_several_clips_are_told_apart_by_folders(kind: str, ending: str) -> None:
    frames = [np.ones((6, 8), np.uint8)] * 2
    with exported(frames, kind, ending, folders=True) as path, exported(frames, kind, ending) as plain:
        text, without = path.read_text(), plain.read_text()
    assert text.count("clip/00000.png") == text.count("clip/00001.png") == 1
    assert text.replace("clip/0000", "0000") == without
