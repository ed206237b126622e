"""Readers of formats, written from what their tools document: label maps, uint8 (H, W) of ids, frame by frame.

Objects without an id in a format are recognised by their names, which hold it: `object_7`.
"""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

Maps = list[np.ndarray]


def number_of(name: str) -> int:
    return int(name.removeprefix("object_"))


def coco(path: Path) -> Maps:
    from pycocotools import mask

    content = json.loads(path.read_text())
    maps = {each["id"]: np.zeros((each["height"], each["width"]), np.uint8) for each in content["images"]}
    names = {each["id"]: each["name"] for each in content["categories"]}
    for found in content["annotations"]:
        inside = mask.decode(found["segmentation"]) > 0
        assert found["iscrowd"] == 0
        assert found["area"] == inside.sum()
        assert mask.toBbox(found["segmentation"]).tolist() == found["bbox"]
        maps[found["image_id"]][inside] = number_of(names[found["category_id"]])
    return list(maps.values())


def ytvis(path: Path) -> Maps:
    from pycocotools import mask

    content = json.loads(path.read_text())
    (video,) = content["videos"]
    assert video["length"] == len(video["file_names"])
    maps = [np.zeros((video["height"], video["width"]), np.uint8) for _ in video["file_names"]]
    names = {each["id"]: each["name"] for each in content["categories"]}
    for found in content["annotations"]:
        for pixels, packed, box, area in zip(
            maps, found["segmentations"], found["bboxes"], found["areas"], strict=True
        ):
            assert (packed is None) == (box is None) == (area is None)
            if packed is not None:
                assert mask.area(packed) == area > 0
                assert mask.toBbox(packed).tolist() == box
                pixels[mask.decode(packed) > 0] = number_of(names[found["category_id"]])
    return maps


def sa_v(path: Path) -> Maps:
    from pycocotools import mask

    content = json.loads(path.read_text())
    maps = []
    for masks in content["masklet"]:
        pixels = np.zeros((int(content["video_height"]), int(content["video_width"])), np.uint8)
        for packed, number in zip(masks, content["object_id"], strict=True):
            pixels[mask.decode(packed) > 0] = number
        maps.append(pixels)
    assert len(maps) == content["video_frame_count"]
    return maps


def cvat(path: Path) -> Maps:
    """By the page of the format: counts in the box, row by row, of background first."""
    root = ElementTree.parse(path).getroot()
    labels = [each.text for each in root.findall("meta/task/labels/label/name")]
    assert root.findtext("version") == "1.1"
    maps = []
    for image in root.iter("image"):
        pixels = np.zeros((int(image.attrib["height"]), int(image.attrib["width"])), np.uint8)
        for mask in image.iter("mask"):
            assert mask.attrib["label"] in labels
            left, top, width, height = (int(mask.attrib[name]) for name in ("left", "top", "width", "height"))
            inside, value = list[int](), 0
            for count in mask.attrib["rle"].split(", "):
                inside += [value] * int(count)
                value = 1 - value
            box = pixels[top : top + height, left : left + width]
            box[np.array(inside).reshape(height, width) > 0] = number_of(mask.attrib["label"])
        maps.append(pixels)
    return maps


def unpacked(data: list[int]) -> np.ndarray:
    """By the reference decoder of thi.ng/rle-pack, read bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        same = read(1)
        count = read(sizes[read(2)]) + 1
        out += [read(word)] * count if same else [read(word) for _ in range(count)]
    assert len(out) == total
    return np.array(out, np.uint8)


def label_studio(path: Path) -> Maps:
    """Like its converter: the last of four channels of each pixel says what is in the mask."""
    maps = []
    with Image.open(path.parent / "clip" / "00000.png") as frame:
        size = frame.height, frame.width
    for task in json.loads(path.read_text()):
        assert re.fullmatch(r"/data/local-files/\?d=clip/\d{5}\.png", task["data"]["image"])
        pixels = np.zeros(size, np.uint8)
        (prediction,) = task["predictions"]
        for found in prediction["result"]:
            assert (found["original_height"], found["original_width"]) == size
            (label,) = found["value"]["brushlabels"]
            channels = unpacked(found["value"]["rle"]).reshape(*size, 4)
            pixels[channels[..., 3] > 0] = number_of(label)
        maps.append(pixels)
    return maps


def labelme(path: Path) -> Maps:
    maps = []
    for file in sorted(path.glob("*.json")):
        if file.name.startswith("."):
            continue
        content = json.loads(file.read_text())
        with Image.open(path / content["imagePath"]) as image:
            assert image.size == (content["imageWidth"], content["imageHeight"])
        pixels = np.zeros((content["imageHeight"], content["imageWidth"]), np.uint8)
        for shape in content["shapes"]:
            assert shape["shape_type"] == "mask"
            (left, top), (right, bottom) = shape["points"]
            with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
                inside = np.array(image).astype(bool)
            pixels[top : bottom + 1, left : right + 1][inside] = number_of(shape["label"])
        maps.append(pixels)
    return maps


def yolo_seg(path: Path) -> Maps:
    """A line is a class and at least three corners, all shares from 0 to 1; what is inside, the even-odd rule says."""
    lines = (path / "data.yaml").read_text().splitlines()
    assert lines[:3] == ["train: images", "val: images", "names:"]
    entries = (line.partition("  # ")[0].strip().partition(": ") for line in lines[3:])
    names = {int(key): json.loads(name) for key, _, name in entries}
    maps = []
    for file in sorted((path / "labels").iterdir()):
        with Image.open(path / "images" / f"{file.stem}.jpg") as image:
            pixels = np.zeros((image.height, image.width), np.uint8)
        for line in file.read_text().splitlines():
            kind, *numbers = line.split(" ")
            corners = np.array(numbers, np.float64).reshape(-1, 2)
            assert len(corners) >= 3
            assert ((corners >= 0) & (corners <= 1)).all()
            pixels[inside_of(corners * pixels.shape[::-1], pixels.shape)] = number_of(names[int(kind)])
        maps.append(pixels)
    return maps


def inside_of(corners: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Pixels whose centre has an odd number of edges on its left."""
    y, x = (np.arange(side) + 0.5 for side in size)
    odd = np.zeros(size, bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        for row in np.flatnonzero((y0 <= y) != (y1 <= y)):
            odd[row] ^= x > x0 + (y[row] - y0) / (y1 - y0) * (x1 - x0)
    return odd


def davis(path: Path, inside: str = "clip/") -> Maps:
    maps = []
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            assert re.fullmatch(rf"{inside}\d{{5}}\.png", name)
            with archive.open(name) as file, Image.open(file) as image:
                assert image.mode == "P"
                maps.append(np.array(image))
    return maps


def youtube_vos(path: Path) -> Maps:
    return davis(path, "Annotations/clip/")


READERS: dict[str, tuple[str, Callable[[Path], Maps]]] = {
    "coco": (".json", coco),
    "ytvis": (".json", ytvis),
    "sa-v": (".json", sa_v),
    "cvat": (".xml", cvat),
    "label-studio": (".json", label_studio),
    "labelme": ("", labelme),
    "yolo-seg": ("", yolo_seg),
    "davis": (".zip", davis),
    "youtube-vos": (".zip", youtube_vos),
}
"""By name of the format, the ending of its file and its reader."""


def same(found: Maps, expected: Any) -> bool:
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))
