"""Masks in files of other tools are read as they were written."""

from __future__ import annotations

import contextlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from tests.formats.readers import READERS
from tests.formats.samples import BOX, SIZE, clips, exported, prompts, write_masks
from tests.video.media import write_video
from vostrack.errors import MaskError
from vostrack.formats.base import runs
from vostrack.formats.label_studio import packed
from vostrack.formats.polygons import filled, polygon
from vostrack.formats.readers import read_drawings
from vostrack.formats.rle import decoded, encoded


@pytest.mark.parametrize("name", READERS)
@pytest.mark.needs("pycocotools", "coco")
@pytest.mark.usefixtures("quick_disk")
@settings(max_examples=8)
@given(clips())
def test_what_was_exported_is_read_back(name: str, frames: list[np.ndarray]) -> None:
    with exported(frames, name, READERS[name][0]) as path:
        found = prompts(path.parent / "clip", path, frames[0].shape)
        assert list(found.labels) == [index for index, pixels in enumerate(frames) if pixels.any()]
        for index, labels in found.labels.items():
            assert np.array_equal(labels.pixels.numpy(), frames[index])


@pytest.mark.parametrize(
    ("name", "ending", "options"),
    [
        ("davis", "", {}),
        ("matte", "", {"hard": True}),
        ("matte", "", {"hard": True, "bits": 16}),
        ("png-rgba", "", {"hard": True, "each": True}),
        ("prores4444", "", {"hard": True, "each": True}),
        ("ffv1", "", {"hard": True, "each": True}),
        ("webm", "", {"hard": True, "each": True}),
        ("matte-movie", "", {"hard": True, "each": True}),
        pytest.param("exr", "", {"hard": True}, marks=pytest.mark.needs("OpenEXR", "exr")),
    ],
)
@pytest.mark.usefixtures("quick_disk")
def test_what_editors_take_is_read_back(name: str, ending: str, options: dict[str, Any]) -> None:
    with exported(ROTO, name, ending, **options) as path:
        found = prompts(path.parent / "clip", path, ROTO[0].shape)
        assert {index: labels.ids for index, labels in found.labels.items()} == {0: (1, 7), 2: (1, 7), 3: (7,)}
        for index, labels in found.labels.items():
            assert np.array_equal(labels.pixels.numpy(), ROTO[index])


@pytest.mark.parametrize(
    ("name", "ending"),
    [("prores4444", ".mov"), ("ffv1", ".mkv"), ("webm", ".webm"), ("matte-movie", ".mov"), ("png-rgba", "")],
)
@pytest.mark.usefixtures("quick_disk")
def test_objects_of_one_movie_are_one(name: str, ending: str) -> None:
    with exported(ROTO, name, ending, hard=True) as path:
        found = prompts(path.parent / "clip", path, ROTO[0].shape)
        assert list(found.labels) == [0, 2, 3]
        assert found.names == {}
        for index, labels in found.labels.items():
            assert np.array_equal(labels.pixels.numpy(), ROTO[index] > 0)
        if ending:
            later = prompts("clip.mp4", {10: path}, ROTO[0].shape)
            assert list(later.labels) == [10, 12, 13]
            assert later.empty == []


def roto() -> list[np.ndarray]:
    """Four frames of two objects; the second is empty, the last has one of them."""
    frames = [np.zeros((32, 48), np.uint8) for _ in range(4)]
    for index in (0, 2, 3):
        frames[index][4:20, 6 + index : 22] = 7
        frames[index][10:28, 26:40] = 1 if index < 3 else 0
    return frames


ROTO = roto()


def square(rows: slice, columns: slice) -> np.ndarray:
    pixels = np.zeros(SIZE, np.uint8)
    pixels[rows, columns] = 1
    return pixels


BOX_PIXELS = square(slice(1, 3), slice(1, 4))
LABELME = {"imagePath": "00000.png", "imageHeight": SIZE[0], "imageWidth": SIZE[1]}
CVAT = f'<annotations><image id="0" name="00000.png" width="{SIZE[1]}" height="{SIZE[0]}">%s</image></annotations>'


def only(clip: str, path: Path) -> np.ndarray:
    (labels,) = prompts(clip, path).labels.values()
    assert labels.ids == (1,)
    return labels.pixels.numpy()


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 1, 4, 1, 4, 3, 1, 3]],
        [[1, 1, 4, 1, 4, 2, 1, 2], [1, 2, 4, 2, 4, 3, 1, 3]],
        {"size": list(SIZE), "counts": [7, 2, 4, 2, 4, 2, 27]},
        {"size": list(SIZE), "counts": "724000g0"},
    ],
    ids=["polygon", "parts", "list", "text"],
)
def test_masks_of_coco(segmentation: Any, tmp_path: Path) -> None:
    image = {"id": "x", "file_name": "a.png", "width": SIZE[1], "height": SIZE[0]}
    annotation = {"id": 9, "image_id": "x", "category_id": 3, "segmentation": segmentation}
    content = {"images": [image], "annotations": [annotation], "categories": [{"id": 3, "name": "dog"}]}
    (tmp_path / "a.txt").write_text("\ufeff" + json.dumps(content))
    assert np.array_equal(only("clip.mp4", tmp_path / "a.txt"), BOX_PIXELS)


@pytest.mark.parametrize(
    ("kind", "points", "expected"),
    [
        ("polygon", [[1, 1], [4, 1], [4, 3], [1, 3]], BOX_PIXELS),
        ("rectangle", [[4, 3], [1, 1]], BOX_PIXELS),
        ("rectangle", [[1, 1], [4, 1], [4, 3], [1, 3]], BOX_PIXELS),
        ("circle", [[2.5, 2.5], [2.5, 3.2]], square(slice(2, 3), slice(2, 3))),
    ],
)
def test_shapes_of_labelme(kind: str, points: Any, expected: np.ndarray, tmp_path: Path) -> None:
    shapes = [
        {"label": "dog", "points": points, "shape_type": kind, "group_id": None, "flags": {}},
        {"label": "nose", "points": [[1, 1]], "shape_type": "point"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(LABELME | {"shapes": shapes, "version": "5.1.1", "imageData": None}))
    found = prompts("clip.mp4", tmp_path / "a.json")
    assert np.array_equal(found.labels[0].pixels.numpy(), expected)
    assert found.names == {1: "dog"}
    assert "left out: 1 shape, since points and lines have no area" in " ".join(found.notes)


@pytest.mark.parametrize(
    "shape",
    [
        '<polygon label="dog" points="1.00,1.00;4.00,1.00;4.00,3.00;1.00,3.00" z_order="0"/>',
        '<box label="dog" xtl="1" ytl="1" xbr="4" ybr="3"/>',
        '<box label="dog" xtl="1.5" ytl="0.5" xbr="3.5" ybr="3.5" rotation="90"/>',
        '<mask label="dog" rle="1, 4, 1" left="1" top="1" width="3" height="2"/>',
        '<mask label="dog" rle="0,6" left="1" top="1" width="3" height="2"/><tag label="dog"/>',
    ],
    ids=["polygon", "box", "turned", "rle", "tag"],
)
def test_shapes_of_cvat(shape: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(CVAT % shape)
    expected = BOX_PIXELS.copy()
    if 'rle="1' in shape:
        expected[1, 1] = expected[2, 3] = 0
    assert np.array_equal(only("clip.mp4", tmp_path / "a.xml"), expected)


def test_tracks_of_cvat(tmp_path: Path) -> None:
    size = f"<original_size><width>{SIZE[1]}</width><height>{SIZE[0]}</height></original_size>"
    box = '<mask frame="{}" outside="{}" rle="0,6" left="1" top="1" width="3" height="2" z_order="0"/>'
    tracks = [
        f'<track id="{n}" label="dog">{box.format(frame, 0)}{box.format(frame + 1, 1)}</track>'
        for n, frame in enumerate((2, 5))
    ]
    (tmp_path / "a.xml").write_text(f"<annotations><meta><task>{size}</task></meta>{''.join(tracks)}</annotations>")
    found = prompts("clip.mp4", tmp_path / "a.xml")
    assert {frame: labels.ids for frame, labels in found.labels.items()} == {2: (1,), 5: (2,)}
    assert found.names == {1: "dog", 2: "dog"}


def region(kind: str, **value: Any) -> dict[str, Any]:
    size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    return {"id": "aB3", "type": kind, "from_name": "tag", "to_name": "image", "value": value | {kind: ["dog"]}} | size


@pytest.mark.parametrize(
    "part",
    [
        region("brushlabels", format="rle", rle=packed(BOX_PIXELS > 0)),
        region("polygonlabels", points=[[x * 100 / 8, y * 100 / 6] for x, y in ((1, 1), (4, 1), (4, 3), (1, 3))]),
        region("rectanglelabels", x=12.5, y=100 / 6, width=37.5, height=200 / 6, rotation=0),
        region("rectanglelabels", x=50, y=100 / 6, width=25, height=50, rotation=90),
    ],
    ids=["brush", "polygon", "rectangle", "turned"],
)
def test_regions_of_label_studio(part: dict[str, Any], tmp_path: Path) -> None:
    done = {"id": 1, "result": [part, region("keypointlabels", x=1, y=1)], "was_cancelled": False}
    task = {"id": 4, "data": {"photo": "/data/upload/2/1a2b3c4d-00003.png"}, "annotations": [done], "predictions": [7]}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    found = prompts("clip.mp4", tmp_path / "a.json")
    assert list(found.labels) == [3]
    expected = BOX_PIXELS if part["value"].get("rotation") != 90 else square(slice(1, 3), slice(1, 4))
    assert np.array_equal(found.labels[3].pixels.numpy(), expected)


@pytest.mark.parametrize(
    "names",
    [
        "names:\n  0: cat\n  1: dog  # the first\nnc: 2\n",
        "path: x\nnames: [\"cat\", 'dog']\n",
        "nc: 2\nnames:\n- cat\n- dog\n",
        "names: {0: cat, 1: dog}\n",
    ],
    ids=["numbered", "brackets", "list", "braces"],
)
def test_labels_of_yolo(names: str, tmp_path: Path) -> None:
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "data.yaml").write_text(names)
    (tmp_path / "labels" / "train" / "frame_000007.txt").write_text(
        "1 0.125 0.1666667 0.5 0.1666667 0.5 0.5 0.125 0.5\n0 0.5 0.5 0.1 0.1\n\n"
    )
    for path in (tmp_path, tmp_path / "labels", tmp_path / "labels" / "train"):
        if path.name == "train":
            (tmp_path / "labels" / "classes.txt").write_text("cat\ndog\n")
        found = prompts("clip.mp4", path)
        assert list(found.labels) == [7]
        assert np.array_equal(found.labels[7].pixels.numpy(), BOX_PIXELS)
        assert found.names == {1: "dog"}
        told = " ".join(found.notes)
        assert "left out: 1 line, since boxes are no masks" in told
        assert "of its classes, 1 is dog" in told
        assert "ids were chosen: dog = 1" in told


def test_ids_of_yolo_are_kept(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "data.yaml").write_text('names:\n  0: "a # object 5"  # object 7\n  1: dog # object 3, 4\n')
    box = "0.125 0.1666667 0.5 0.1666667 0.5 0.5 0.125 0.5"
    (tmp_path / "labels" / "00000.txt").write_text(f"0 {box}\n1 0.6 0.6 0.9 0.6 0.9 0.9 0.6 0.9\n")
    assert prompts("clip.mp4", tmp_path).names == {7: "a # object 5", 3: "dog"}


def test_spaces_in_the_names_of_yolo_take_no_time(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(f"names: [{' ' * 20_000}a\nb]\n")
    (tmp_path / "00000.txt").write_text("0 0.125 0.1666667 0.5 0.1666667 0.5 0.5\n")
    assert prompts("clip.mp4", tmp_path).names == {1: "class_0"}


def test_every_fourth_frame_of_sa_v(tmp_path: Path) -> None:
    mask = {"size": list(SIZE), "counts": [7, 2, 4, 2, 4, 2, 27]}
    content = {"video_id": "sav_01", "video_height": 6.0, "video_width": 8.0, "video_frame_count": 10.0}
    (tmp_path / "a.json").write_text(json.dumps(content | {"masklet": [[mask], [mask], [mask]], "masklet_id": [0]}))
    found = prompts("clip.mp4", tmp_path / "a.json")
    assert list(found.labels) == [0, 4, 8]
    assert np.array_equal(found.labels[8].pixels.numpy(), BOX_PIXELS)


def test_a_name_of_any_length_is_of_a_frame_beyond_all_others(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(coco_with([BOX]).replace("a.png", f"{'9' * 5000}.png"))
    (frame,) = prompts("clip.mp4", tmp_path / "a.json").labels
    assert frame > 1 << 63


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><annotations>&b;</annotations>'


def coco_with(segmentation: Any, name: str = "dog") -> str:
    image = {"id": 1, "file_name": "a.png", "width": SIZE[1], "height": SIZE[0]}
    annotation = {"image_id": 1, "category_id": 1, "segmentation": segmentation}
    return json.dumps({"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": name}]})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", coco_with([[1, 1, 2]]), "annotation 1 has a polygon with an x without a y"),
        ("a.json", coco_with([[1, 1, 2, 2]]), "fewer than three corners"),
        ("a.json", coco_with([[1, 1, 2, 2, 1e300, 1]]), "has a corner far outside of its image"),
        ("a.json", coco_with([[1, 1, 2, 2, "x", 1]]), "expected float"),
        ("a.json", coco_with([[1, 1, 4, 4, 3, 2]]).replace("4", "NaN", 1), "not finite|expected"),
        ("a.json", coco_with({"size": [6, 8], "counts": [5]}), "run lengths of 5 pixels in all, and should have 48"),
        ("a.json", coco_with({"size": [6, 8], "counts": [-5, 53]}), "not a list of whole numbers"),
        ("a.json", coco_with({"size": [6, 8], "counts": [1 << 30, 48]}), "should have 48"),
        ("a.json", coco_with({"size": [6, 8], "counts": "~~"}), "damaged"),
        ("a.json", coco_with({"size": [6, 8], "counts": "oooooooooo0"}), "too long"),
        (
            "a.json",
            coco_with({"size": [6000, 8000], "counts": [48]}),
            r"size \[6000, 8000\], its image \[6, 8\]",
        ),
        ("a.json", coco_with([BOX]).replace('"width": 8', '"width": 100000000'), "has the size 100000000x6"),
        ("a.json", coco_with([BOX], "\x1b[2J"), r"category 1 has a name that cannot be used, .*\[2J"),
        ("a.json", coco_with([BOX]).replace('"image_id": 1', '"image_id": 7'), "not in the list of images"),
        ("a.json", coco_with([BOX]).replace('"category_id": 1', '"category_id": []'), "expected a whole number"),
        ("a.json", '{"a": 1}', "none of COCO, YouTube-VIS, SA-V, LabelMe or Label Studio"),
        ("a.json", "{", "a.json"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.xml", LAUGHS, "declares a document type"),
        ("a.xml", "<svg/>", "not of CVAT"),
        ("a.xml", "<annotations>", "no XML"),
        ("a.xml", CVAT % '<mask label="a" rle="1,1" left="0" top="0" width="9999" height="9999"/>', "9999x9999"),
        ("a.xml", CVAT % '<mask label="a" rle="1,5" left="7" top="0" width="3" height="2"/>', "outside of its image"),
        ("a.xml", CVAT % '<polygon label="a" points="1,nan;2,2;3,1"/>', "expected a number"),
        ("a.xml", CVAT % '<polygon label="a" points="1;2;3"/>', "not written as x,y;x,y"),
        ("a.txt", "0 0.1 0.1 0.5 0.1 7 0.5\n", "from 0 to 1"),
        ("a.txt", "0 0.1 0.1 0.5 0.1 0.5 0.5 0.3\n", "pairs of x and y"),
    ],
)
def test_what_is_damaged_or_hostile_is_refused_in_one_line(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MaskError, match=words) as told:
        prompts("clip.mp4", tmp_path / name)
    message = str(told.value)
    assert "\n" not in message
    assert message.isprintable()
    assert name in message


def test_a_polygon_of_too_many_edges_is_refused() -> None:
    zigzag = np.array([(x, y) for x in range(1500) for y in (0, 8000)], np.float64)
    with pytest.raises(ValueError, match="too complicated"):
        filled(zigzag, (8000, 2000))


@pytest.mark.needs("pycocotools", "coco")
@settings(max_examples=30)
@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 8), st.integers(1, 8))).filter(np.any))
def test_a_mask_is_its_polygon_and_its_run_lengths(mask: np.ndarray) -> None:
    assert np.array_equal(filled(polygon(mask).astype(np.float64), mask.shape), mask)
    assert np.array_equal(decoded(runs(mask.T).tolist(), mask.shape), mask)
    assert np.array_equal(decoded(encoded(mask)["counts"], mask.shape), mask)


@pytest.mark.needs("OpenEXR", "exr")
def test_layers_of_compositors(tmp_path: Path) -> None:
    """A data window smaller than the image, a layer of any one channel beside one of three, and half precision."""
    import OpenEXR

    inside = np.ones((2, 3), np.float16)
    header = {
        "dataWindow": (np.array([1, 1], np.int32), np.array([3, 2], np.int32)),
        "displayWindow": (np.array([0, 0], np.int32), np.array([7, 5], np.int32)),
    }
    channels = {"R": inside, "G": inside, "B": inside, "dog.a": inside * 0.7, "sky.R": inside, "sky.G": inside}
    OpenEXR.File(header, channels).write(str(tmp_path / "a.exr"))
    found = prompts("clip.mp4", tmp_path / "a.exr")
    assert found.names == {1: "dog"}
    assert np.array_equal(found.labels[0].pixels.numpy(), BOX_PIXELS)
    (tmp_path / "b.exr").write_bytes((tmp_path / "a.exr").read_bytes()[:150])
    OpenEXR.File({}, {"R": inside, "G": inside}).write(str(tmp_path / "c.exr"))
    OpenEXR.File({}, {"dog.Y": inside * np.float16(np.nan)}).write(str(tmp_path / "d.exr"))
    (tmp_path / "e.exr").write_bytes((tmp_path / "a.exr").read_bytes()[:-30])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vostrack.formats.exr.MOST_VALUES", 9)
        with pytest.raises(MaskError, match="36 values in all"):
            prompts("clip.mp4", tmp_path / "a.exr")
    refused = {"b": "damaged OpenEXR", "c": "no object as a layer", "d": "not finite", "e": "damaged"}
    for name, words in refused.items():
        with pytest.raises(MaskError, match=words):
            prompts("clip.mp4", tmp_path / f"{name}.exr", (2, 3))


def test_an_archive_that_may_take_any_memory_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("annotations.xml", CVAT % BOX_IN_CVAT)
    with pytest.raises(MaskError, match=r"annotations\.xml is packed in a way that is not read"):
        prompts("clip.mp4", tmp_path / "a.zip")


def test_annotations_in_an_archive(tmp_path: Path) -> None:
    for name, text in (("annotations.xml", CVAT % BOX_IN_CVAT), ("annotations/instances.json", coco_with([BOX]))):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(name, text)
        assert np.array_equal(only("clip.mp4", tmp_path / "a.zip"), BOX_PIXELS)
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("annotations.xml", CVAT % BOX_IN_CVAT)
    with pytest.raises(MaskError, match="holds 2 files of annotations: unpack it"):
        prompts("clip.mp4", tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:100])
    with pytest.raises(MaskError, match="damaged archive"):
        prompts("clip.mp4", tmp_path / "a.zip")


BOX_IN_CVAT = '<box label="dog" xtl="1" ytl="1" xbr="4" ybr="3"/>'


def test_a_video_of_pictures_is_no_mask(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(80, 180, (3, 32, 48, 3), np.uint8)
    write_video(tmp_path / "a.mp4", list(noise))
    with pytest.raises(MaskError, match=r"a\.mp4: it shows a picture, not a matte"):
        prompts("clip.mp4", tmp_path / "a.mp4", (32, 48))
    (tmp_path / "b.mov").write_bytes(b"\0\0\0\x14ftypqt  " + b"x" * 100)
    with pytest.raises(MaskError, match=r"b\.mov: "):
        prompts("clip.mp4", tmp_path / "b.mov", (32, 48))


def test_a_folder_of_frames_is_no_mask(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(80, 180, (3, 32, 48, 3), np.uint8)
    (tmp_path / "clip").mkdir()
    for index, picture in enumerate(noise):
        Image.fromarray(picture).save(tmp_path / "clip" / f"{index:05d}.png")
    assert read_drawings(tmp_path / "clip") is None
    with pytest.raises(MaskError, match=r"00000\.png: it shows a picture, not a matte"):
        read_drawings(tmp_path)


def test_folders_of_several_kinds_or_of_objects(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(LABELME | {"shapes": []}))
    (tmp_path / "b.json").write_text(coco_with([BOX]))
    with pytest.raises(MaskError, match="several kinds, COCO instances and LabelMe: give one of them"):
        prompts("clip.mp4", tmp_path)
    objects = write_masks(tmp_path / "objects", [BOX_PIXELS, square(slice(4, 6), slice(5, 8)) * 2])
    for path in list(objects.iterdir()):
        path.rename(path.with_name(f"{path.stem[-1]}_dog.png"))
    assert read_drawings(objects) is None
    assert prompts("clip.mp4", objects).labels[0].ids == (1, 2)


def test_the_masks_of_a_run_are_given_masks(finished: Path) -> None:
    found = prompts(finished.parent / "clip.mp4", finished, (48, 64))
    assert list(found.labels) == [*range(8)]
    assert found.labels[3].ids == (3, 200)
    assert found.names == {3: "dog", 200: "cat"}


@pytest.mark.parametrize("name", ["coco", "ytvis", "sa-v", "cvat", "label-studio", "davis"])
@pytest.mark.needs("pycocotools", "coco")
@pytest.mark.usefixtures("quick_disk")
@settings(max_examples=10)
@given(st.data())
def test_damaged_files_are_read_or_refused(name: str, data: st.DataObject) -> None:
    with exported(ROTO[:1], name, READERS[name][0]) as path:
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        path.write_bytes(bytes(content))
        with contextlib.suppress(MaskError):
            prompts("clip.mp4", {0: path}, ROTO[0].shape)
