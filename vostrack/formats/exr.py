"""OpenEXR: a file for each frame, with the frame as R, G, B and each object as a layer of its own, `dog.Y`.

The frame is made linear from sRGB and has half precision, as compositors expect. Layers have names, since some read a
bare number as part of another name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import OpenEXR

from vostrack.errors import OutputError
from vostrack.files import OutputRoot, shown
from vostrack.formats.alpha import alpha
from vostrack.formats.base import Shot, picture
from vostrack.notes import Note
from vostrack.types import Prediction
from vostrack.video.stream import first_line


def _linear() -> Any:
    """What each of the 256 levels of sRGB is in linear light (IEC 61966-2-1)."""
    share = np.arange(256) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4).astype(np.float16)


class Exr:
    """Writes them."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        self.notes: list[Note] = []
        self._shot, self._root, self._levels = shot, OutputRoot(shot.out), _linear()

    def write(self, prediction: Prediction) -> None:
        """Write the file of a frame."""
        header: dict[str, Any] = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        if self._shot.fps is not None:
            header["framesPerSecond"] = self._shot.fps
        name = f"{prediction.frame.name}.exr"
        try:
            with self._root.new(name) as partial:
                OpenEXR.File(header, dict(self._channels(prediction))).write(str(partial))
        except RuntimeError as error:  # whatever is wrong
            raise OutputError(f"cannot write {shown(name)}: {first_line(error)}") from error

    def finish(self) -> None:
        """Nothing to do: each file is complete when `write` returns."""

    def abort(self) -> None:
        """Nothing to do: no file is ever partial."""

    def _channels(self, prediction: Prediction) -> Iterator[tuple[str, Any]]:
        image = self._levels[picture(prediction)]
        for number, name in enumerate("RGB"):
            yield name, np.ascontiguousarray(image[..., number])
        for number, stem in self._shot.stems().items():
            yield f"{stem}.Y", alpha(prediction, [number], self._shot.options).astype(np.float16)
