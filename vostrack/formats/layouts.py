"""Layouts of datasets with a palette PNG for each frame, as a zip file for a server or as a folder.

Source: the submissions that the servers of DAVIS 2017 and of YouTube-VOS ask for.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator

from vostrack.formats.base import Shot
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
