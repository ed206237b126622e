"""The overlay as a video; `drawing` draws its frames, `movie` writes it.

It is H.264 with the time of every frame kept and the source's audio. The same predictions give
the same pictures, which the encoder gives other bytes now and then.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from av.video.reformatter import VideoReformatter

from vostrack.files import OutputRoot
from vostrack.notes import Note
from vostrack.types import Prediction
from vostrack.video.drawing import Painter, Pixels
from vostrack.video.look import Look
from vostrack.video.movie import MovieWriter, h264, h264_picture

# Frames that are not reordered (bf) need no edit list, so every player shows each at its own time.
_ENCODING = h264({"preset": "veryfast", "crf": "20", "bf": "0"})


class OverlayWriter:
    """Writes `overlay.mp4`; nothing is there under that name before `finish`.

    Attributes:
        notes: what became of the audio, where it could not be kept.
    """

    def __init__(self, folder: Path, *, source: Path | None, fps: Fraction | None, look: Look | None = None) -> None:
        """Nothing is opened before the first frame; see `writer.Destination` for the arguments."""
        path, words = OutputRoot(folder).at("overlay.mp4"), {"called": "the overlay", "advice": "leave out the overlay"}
        self._movie = MovieWriter(path, _ENCODING, source=source, fps=fps, **words)
        self.notes: list[Note] = self._movie.notes
        self._painter, self._scaler = Painter(look), VideoReformatter()

    def write(self, prediction: Prediction) -> None:
        """Draw and encode a frame; raises `OutputError`."""
        frame = prediction.frame
        pixels = prediction.labels.pixels.cpu().numpy()
        picture = _even(self._painter.draw(frame.image, pixels, frame.index))
        self._movie.write(h264_picture(picture, self._scaler), frame.time)

    def finish(self) -> None:
        """Complete the file, or make none where there was no frame; raises `OutputError`."""
        self._movie.finish()

    def abort(self) -> None:
        """Drop the file."""
        self._movie.abort()


def _even(picture: Pixels) -> Pixels:
    """Repeat the last row and column where the size is odd, since H.264 halves the size of the colour planes."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
