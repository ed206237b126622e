"""Masks in files of other tools: which frames they are for, and which object is which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.samples import BOX, SIZE, clip_folder, prompts, write_masks
from vostrack.errors import MaskError
from vostrack.run.given import Known
from vostrack.types import LabelMap


def coco(path: Path, images: list[str], annotations: list[dict[str, Any]], **more: Any) -> Path:
    """A file of one class, dog, unless there are others."""
    content = {
        "images": [{"id": n, "file_name": name, "width": SIZE[1], "height": SIZE[0]} for n, name in enumerate(images)],
        "annotations": [{"image_id": 0, "category_id": 1, "segmentation": [BOX]} | each for each in annotations],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    path.write_text(json.dumps(content | more))
    return path


def test_frames_are_matched_by_the_names_of_files(tmp_path: Path) -> None:
    clip = clip_folder(tmp_path / "clip", ["shot_1001", "shot_1004", "shot_1005"])
    path = coco(tmp_path / "a.json", ["x/shot_1004.JPG", "shot_9.jpg"], [{}, {"image_id": 1}])
    found = prompts(clip, path)
    assert list(found.labels) == [1]
    assert found.names == {1: "dog"}
    assert [str(note.code) for note in found.notes] == ["mask-frames", "mask-left-out", "mask-ids"]


def test_frames_of_a_video_are_matched_by_their_numbers(tmp_path: Path) -> None:
    path = coco(tmp_path / "a.json", ["frame_000040.PNG", "dog_00002.png"], [{}, {"image_id": 1}])
    assert list(prompts(tmp_path / "clip.mp4", path).labels) == [2, 40]
    assert list(prompts(tmp_path / "clip.mp4", {40: path}).labels) == [40]
    inside = prompts(tmp_path / "clip.mp4", path, chosen=(10, None))
    assert list(inside.labels) == [40]
    assert "the file has masks of frames 40, and 1 mask beyond the range" in inside.notes[0]
    assert "mask-left-out" not in [str(note.code) for note in inside.notes]
    with pytest.raises(MaskError, match=r"a\.json has no image for frame 7; there are frames 2, 40"):
        prompts(tmp_path / "clip.mp4", {7: path})
    with pytest.raises(MaskError, match="has no mask for the frames 50 to the end; there are masks for 2, 40"):
        prompts(tmp_path / "clip.mp4", path, chosen=(50, None))


@pytest.mark.parametrize(("name", "said"), [("dog", ""), ("cat", ", of a clip that it calls dog")])
def test_a_file_of_a_clip_with_another_name_says_so(name: str, said: str, tmp_path: Path) -> None:
    path = coco(tmp_path / "a.json", ["dog/00000.jpg", "dog/00001.jpg"], [{}, {"image_id": 1}])
    note = prompts(f"{name}.mp4", path).notes[0]
    assert str(note).endswith(f"masks of frames 0, 1{said}")


def test_a_file_of_one_image_is_for_the_frame_before_it(tmp_path: Path) -> None:
    path = coco(tmp_path / "a.json", ["photo.png"], [{}])
    assert list(prompts(tmp_path / "clip.mp4", path).labels) == [0]
    assert list(prompts(tmp_path / "clip.mp4", path, chosen=(5, None)).labels) == [5]
    assert list(prompts(tmp_path / "clip.mp4", {40: path}).labels) == [40]


def test_ids_that_no_file_gives_follow_the_names_and_not_the_order_of_drawing(tmp_path: Path) -> None:
    classes = {"categories": [{"id": n, "name": name} for n, name in enumerate(["dog", "cat", "ant10", "ant9"])]}
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        boxes = [[[x, 0, x + 2, 0, x + 2, 2, x, 2]] for x in (0, 2, 4, 6)]
        shapes = [{"category_id": n, "image_id": n // 2, "segmentation": boxes[n]} for n in order]
        path = coco(tmp_path / "a.json", ["00000.jpg", "00003.jpg"], shapes, **classes)
        assert prompts(tmp_path / "clip.mp4", path).names == {1: "ant9", 2: "ant10", 3: "cat", 4: "dog"}


def test_images_of_one_frame_are_named(tmp_path: Path) -> None:
    both = [{}, {"image_id": 1}]
    path = coco(tmp_path / "a.json", ["00003.jpg", "00003.png"], both)
    with pytest.raises(MaskError, match=r"two images for frame 3, 00003\.jpg and 00003\.png: keep one"):
        prompts(tmp_path / "clip.mp4", path)
    path = coco(tmp_path / "b.json", ["cat/00003.jpg", "dog/00003.jpg"], both)
    with pytest.raises(MaskError, match="it has several clips, cat, dog, and none is named like this one"):
        prompts(tmp_path / "clip.mp4", path)
    with pytest.raises(MaskError, match="it has several clips, cat, dog, and which one is meant: give the clip too"):
        prompts(None, path)
    assert list(prompts(tmp_path / "dog.mp4", path).labels) == [3]
    with pytest.raises(MaskError, match="does not say which frames its images are: give the clip too"):
        prompts(None, coco(tmp_path / "c.json", ["cat.jpg", "dog.jpg"], both))
    with pytest.raises(MaskError, match=r"two masks for frame 3: .*fix\.png and .*b\.json"):
        prompts(tmp_path / "dog.mp4", {None: path, 3: tmp_path / "fix.png"})


def test_objects_keep_their_names_and_ids(tmp_path: Path) -> None:
    frames = ["00000.jpg", "00005.jpg"]
    tracked: list[dict[str, Any]] = [
        {"track_id": 7},
        {"track_id": 200, "category_id": 2, "segmentation": [[5, 4, 7, 4, 7, 5, 5, 5]]},
    ]
    later = [each | {"image_id": 1} for each in tracked]
    found = prompts(tmp_path / "clip.mp4", coco(tmp_path / "a.json", frames, tracked + later))
    assert found.names == {7: "dog", 200: "cat"}
    assert [labels.ids for labels in found.labels.values()] == [(7, 200)] * 2
    named = prompts(tmp_path / "clip.mp4", coco(tmp_path / "b.json", frames, [{"category_id": 2}, {"image_id": 1}]))
    assert named.names == {1: "cat", 2: "dog"}
    assert [labels.ids for labels in named.labels.values()] == [(1,), (2,)]


def test_several_objects_of_a_name_are_told_apart_in_one_image_alone(tmp_path: Path) -> None:
    two = [{}, {"segmentation": [[5, 4, 7, 4, 7, 5, 5, 5]]}]
    found = prompts(tmp_path / "clip.mp4", coco(tmp_path / "a.json", ["a.jpg"], two))
    assert found.names == {1: "dog", 2: "dog"}
    path = coco(tmp_path / "c.json", ["00000.jpg", "00001.jpg"], [{"track_id": 3}, {"image_id": 1}])
    with pytest.raises(MaskError, match="several objects dog in frame 1, and does not say which is which"):
        prompts(tmp_path / "clip.mp4", path)
    path = coco(tmp_path / "b.json", ["00000.jpg", "00001.jpg"], [*two, {"image_id": 1}])
    with pytest.raises(MaskError, match="several objects dog in frame 0, and does not say which is which"):
        prompts(tmp_path / "clip.mp4", path)


def test_objects_that_are_known_keep_their_ids(tmp_path: Path) -> None:
    path = coco(tmp_path / "a.json", ["00004.jpg"], [{}])
    known = Known(frozenset({2, 9}), {2: "cat", 9: "dog"})
    assert prompts(tmp_path / "clip.mp4", path, known=known).labels[4].ids == (9,)
    new = Known(frozenset({1}), {1: "cat"})
    assert prompts(tmp_path / "clip.mp4", path, known=new).labels[4].ids == (2,)
    with pytest.raises(MaskError, match="does not say which object dog is among those of the other masks"):
        prompts(tmp_path / "clip.mp4", path, known=Known(frozenset({1, 2}), {2: "cat"}))
    other = np.zeros(SIZE, np.uint8)
    other[4:, 5:] = 3
    with pytest.raises(MaskError, match="does not say which object dog is"):
        prompts(tmp_path / "clip.mp4", {0: other, None: path})
    found = prompts(tmp_path / "clip.mp4", {0: other, None: path}, known=Known.named({3: "dog"}))
    assert {frame: labels.ids for frame, labels in found.labels.items()} == {0: (3,), 4: (3,)}


def test_a_name_that_is_given_to_an_id_is_that_of_the_object_without_one(tmp_path: Path) -> None:
    pixels = np.zeros(SIZE, np.uint8)
    pixels[1:3, 1:3], pixels[4:, 5:] = 1, 2
    folder, known = write_masks(tmp_path / "masks", [pixels, pixels]), Known.named({1: "dog", 2: "box"})
    assert [each.ids for each in prompts("clip.mp4", folder, known=known).labels.values()] == [(1, 2)] * 2
    path = coco(tmp_path / "a.json", ["00000.jpg"], [{}], categories=[{"id": 1, "name": "object_2"}])
    assert prompts("clip.mp4", path, known=known).labels[0].ids == (2,)


def test_an_object_without_a_name_is_the_only_one_that_is_known(tmp_path: Path) -> None:
    mask = {"size": list(SIZE), "counts": [7, 2, 39]}
    content = {"video_height": 6.0, "video_width": 8.0, "video_frame_count": 1.0, "masklet": [[mask]]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert prompts("clip.mp4", tmp_path / "a.json", known=Known(frozenset({9}), {9: "dog"})).labels[0].ids == (9,)
    with pytest.raises(MaskError, match="does not say which object"):
        prompts("clip.mp4", tmp_path / "a.json", known=Known(frozenset({1, 9}), {9: "dog"}))


def test_crowds_are_void_and_what_lies_later_is_above(tmp_path: Path) -> None:
    crowd = {"iscrowd": 1, "segmentation": [[0, 0, 8, 0, 8, 2, 0, 2]]}
    above = {"category_id": 2, "segmentation": [[2, 2, 6, 2, 6, 3, 2, 3]]}
    found = prompts(tmp_path / "clip.mp4", coco(tmp_path / "a.json", ["a.jpg"], [crowd, {}, above]))
    expected = np.zeros(SIZE, np.uint8)
    expected[:2], expected[1:3, 1:4], expected[2, 2:6] = 255, 2, 1
    assert np.array_equal(found.labels[0].pixels.numpy(), expected)
    assert "2 pixels belong to several objects" in " ".join(found.notes)


def test_masks_of_another_size_are_scaled_where_that_is_wanted(tmp_path: Path) -> None:
    path = coco(tmp_path / "a.json", ["a.jpg"], [{}])
    with pytest.raises(MaskError, match=r"8x6, the clip is 16x12: .*resize_mask=True"):
        prompts(tmp_path / "clip.mp4", path, (12, 16))


def test_an_image_without_objects_says_that_none_is_there(tmp_path: Path) -> None:
    empty = coco(tmp_path / "a.json", ["a.jpg"], [])
    with pytest.raises(MaskError, match=r"no mask|no object"):
        prompts(tmp_path / "clip.mp4", empty)
    first = LabelMap(prompts(tmp_path / "clip.mp4", coco(tmp_path / "b.json", ["a.jpg"], [{}])).labels[0].pixels, (1,))
    assert prompts(tmp_path / "clip.mp4", {0: first, 5: empty}).empty == [5]


def test_images_that_are_of_no_frame_are_named(tmp_path: Path) -> None:
    clip = clip_folder(tmp_path / "clip", ["00000", "00001"])
    path = coco(tmp_path / "a.json", ["x.jpg", "y.jpg"], [{}])
    with pytest.raises(MaskError, match=r"no image of this clip: name them like its frames, such as 00000, .*x\.jpg"):
        prompts(clip, path)
