"""Layouts of datasets with a palette PNG for each frame, as a zip file for a server or as a folder.

Source: the submissions that the servers of DAVIS 2017 and of YouTube-VOS ask for.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from vostrack.formats.base import Shot
from vostrack.formats.drawings import MOST_KEPT, Drawing, Drawings, checked_name, titled
from vostrack.formats.pictures import shapes_of
from vostrack.notes import Note
from vostrack.types import Prediction
from vostrack.video.writer import FileWriter, mask_files


class Davis:
    """Writes `<clip>/00000.png`."""

    inside = ""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        self.notes: list[Note] = []
        self._shot = shot
        self._zip: zipfile.ZipFile | None = None
        self._files = FileWriter(shot.out, self._named)

    def write(self, prediction: Prediction) -> None:
        """Write a frame."""
        if self._shot.out.is_dir():
            self._files.write(prediction)
            return
        if self._zip is None:
            self._zip = zipfile.ZipFile(self._shot.out, "x")  # PNGs are compressed
        for name, data in self._named(prediction):
            self._zip.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), data)

    def finish(self) -> None:
        """Complete the file."""
        self.abort()

    def abort(self) -> None:
        """Close the file."""
        if self._zip is not None:
            self._zip.close()

    def _named(self, prediction: Prediction) -> Iterator[tuple[str, bytes]]:
        for name, data in mask_files(prediction):
            yield f"{self.inside}{self._shot.name}/{name.removeprefix('masks/')}", data


class YoutubeVos(Davis):
    """Writes `Annotations/<clip>/00000.png`."""

    inside = "Annotations/"


def read(
    files: Mapping[str, Callable[[], bytes]], place: Path, flat: bool = True, named: bool = False
) -> Drawings | None:
    """Masks of many frames, an image each: palette images in the folder of a clip, or mattes in that of an object.

    Args:
        files: what gives the bytes of images, by their paths in the folder.
        place: the folder.
        flat: whether images that lie in no folder below may be objects of one frame instead; then the answer is None.
        named: whether images are named like frames: those with a palette are none of these.

    Raises:
        ValueError: one cannot be read, or there are several kinds.
    """
    folders = {name: PurePosixPath(name).parent.name for name in files}
    names = titled(dict.fromkeys(folders.values()))
    images: dict[tuple[str, str], Drawing] = {}
    modes, left = set[bool](), MOST_KEPT
    for path, data in files.items():
        folder, stem = folders[path], PurePosixPath(path).stem
        try:
            name, track = names[folder]
            size, mode, shapes = shapes_of(data(), name and checked_name(name, "the folder"), track)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        modes.add(mode == "P")
        left -= size[0] * size[1] * max(1, len(shapes))
        if left < 0 or len(modes) > 1:
            why = "it is too large to be held in memory" if left < 0 else "some of its images have a palette, some not"
            raise ValueError(f"{why}: give a part of it")
        clip = folder if mode == "P" else ""
        before = images.get((clip, stem), Drawing(stem, (), size, None, clip))
        if before.size != size:
            raise ValueError(f"{path} has another size than others of its frame")
        images[clip, stem] = replace(before, shapes=[*before.shapes, *shapes])
    if flat and set(folders.values()) == {""} and not _are_frames(list(images.values()), modes == {True}, named):
        return None
    kind = "palette images" if modes == {True} else "mattes"
    return Drawings(place, kind, list(images.values()))


def _are_frames(images: list[Drawing], indexed: bool, named: bool) -> bool:
    """Whether images are frames, and not an object each: they are numbered so, and objects lie on one another."""
    if indexed and (named or any(len(image.shapes) > 1 for image in images)):
        return True
    if not all(re.fullmatch("[0-9]{4,}", image.name) for image in images):
        return False
    size = images[0].size or (0, 0)
    covered, times = np.zeros(size, np.bool_), 0
    for shape in [shape for image in images if image.size == size for shape in image.shapes]:
        mask = shape.draw(size)
        covered |= mask
        times += int(mask.sum())
    return indexed or times > 2 * int(covered.sum())
