"""YouTube-VIS: video instances, an annotation for each object with its mask in every frame, null where it is not there.

Source: the data format of youtube-vos.org/dataset/vis.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vostrack.files import shaped
from vostrack.formats.base import Listed, Shot, box_of, objects_in
from vostrack.formats.coco import Category, categories, category_names, drawn
from vostrack.formats.drawings import Drawing, Drawings, Shape, checked_key, checked_size, folder_of
from vostrack.formats.rle import encoded
from vostrack.types import Prediction


@dataclass(frozen=True)
class _Video:
    """A video, as a file has it."""

    id: Any
    file_names: list[str]
    width: float
    height: float


@dataclass(frozen=True)
class _Annotation:
    """An annotation, as a file has it."""

    video_id: Any
    category_id: Any
    segmentations: list[Any]
    id: Any = None


@dataclass(frozen=True)
class _File:
    """What is read of a file."""

    videos: list[_Video]
    annotations: list[_Annotation]
    categories: list[Category]


class Ytvis(Listed):
    """Writes it."""

    key = "annotations"

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot)
        self._names: list[str] = []
        self._found: dict[int, dict[int, tuple[Any, list[int], int]]] = {number: {} for number in shot.objects}

    def write(self, prediction: Prediction) -> None:
        """Take a frame."""
        for number, mask in objects_in(prediction):
            self._found[number][len(self._names)] = encoded(mask), list(box_of(mask)), int(mask.sum())
        self._names.append(self.shot.image_of(prediction))

    def rest(self) -> dict[str, Any]:
        """What else the file has."""
        return {
            "info": {"description": f"{self.shot.name}, by vostrack"},
            "videos": [{"id": 1, **self._size(), "file_names": self._names}],
            "categories": categories(self.shot),
        }

    def finish(self) -> None:
        """Write an annotation for each object."""
        for number, found in self._found.items():
            nothing = (None, None, None)
            of_frames = (found.get(frame, nothing) for frame in range(len(self._names)))
            masks, boxes, areas = map(list, zip(*of_frames, strict=True))
            self.put(
                {
                    "id": number,
                    "video_id": 1,
                    "category_id": self.shot.classes[self.shot.objects[number]],
                    "iscrowd": 0,
                    **self._size(),
                    "segmentations": masks,
                    "bboxes": boxes,
                    "areas": areas,
                }
            )
        super().finish()

    def _size(self) -> dict[str, int]:
        return {"width": self.shot.size[1], "height": self.shot.size[0], "length": len(self._names)}


def read(value: Any, path: Path) -> Drawings:
    """What a file holds; raises `ValueError`."""
    file: _File = shaped(value, _File)
    names = category_names(file.categories)
    videos = {checked_key(each.id, f"the id of video {number}"): each for number, each in enumerate(file.videos, 1)}
    shapes: dict[int | str, list[list[Shape]]] = {key: [[] for _ in each.file_names] for key, each in videos.items()}
    for number, each in enumerate(file.annotations, 1):
        place = f"annotation {number}"
        frames = shapes.get(checked_key(each.video_id, f"video_id of {place}"))
        name = names.get(checked_key(each.category_id, f"category_id of {place}"))
        if frames is None or name is None or len(frames) != len(each.segmentations):
            raise ValueError(f"{place} has a video or a category that is not listed, or not a mask for each frame")
        track = number if each.id is None else checked_key(each.id, f"the id of {place}")
        for frame, segmentation in enumerate(each.segmentations):
            if segmentation:
                at = f"{place}, frame {frame} of its video"
                frames[frame].append(Shape(name, track, drawn(segmentation), at))
    images = [
        Drawing(
            name, found, checked_size(video.height, video.width, f"video {key!r}"), None, folder_of(name) or str(key)
        )
        for key, video in videos.items()
        for name, found in zip(video.file_names, shapes[key], strict=True)
    ]
    return Drawings(path, "YouTube-VIS instances", images)
