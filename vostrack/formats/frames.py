"""The frames of a clip as JPEG, under the names that annotations call them by."""

from __future__ import annotations

from vostrack.formats.base import Shot, jpeg
from vostrack.video.writer import FileWriter


class Frames(FileWriter):
    """Writes them."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot.out, lambda prediction: iter([(f"{prediction.frame.name}.jpg", jpeg(prediction))]))
