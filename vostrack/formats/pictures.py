"""PNGs for editors: mattes, and objects cut out of their frames."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from PIL import Image

from vostrack.formats.alpha import alpha, in_bits
from vostrack.formats.base import Shot, picture, png
from vostrack.types import Prediction
from vostrack.video.writer import FileWriter


def layers(shot: Shot, each: bool) -> dict[str, Collection[int]]:
    """Which objects go together, by the name of their folder or file: each by itself, or all, without a name."""
    return {stem: [number] for number, stem in shot.stems().items()} if each else {"": list(shot.objects)}


class Matte(FileWriter):
    """Writes `dog/00000.png`: white where the object is, black elsewhere, in 8 or 16 bits."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot.out, self._files)
        self._options, self._layers = shot.options, layers(shot, True)

    def _files(self, prediction: Prediction) -> Iterator[tuple[str, bytes]]:
        for stem, ids in self._layers.items():
            values = in_bits(alpha(prediction, ids, self._options), self._options.bits)
            yield f"{stem}/{prediction.frame.name}.png", png(Image.fromarray(values))


class PngRgba(FileWriter):
    """Writes `00000.png`: the frame, opaque where objects are; where they are not at all, black."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot.out, self._files)
        self._options, self._layers = shot.options, layers(shot, shot.options.each)

    def _files(self, prediction: Prediction) -> Iterator[tuple[str, bytes]]:
        image = picture(prediction)
        for stem, ids in self._layers.items():
            values = in_bits(alpha(prediction, ids, self._options), 8)[..., None]
            cut_out = np.concatenate((image * (values > 0), values), 2)
            yield f"{stem}/{prediction.frame.name}.png".lstrip("/"), png(Image.fromarray(cut_out))
