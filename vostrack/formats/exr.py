"""OpenEXR: a file for each frame, with the frame as R, G, B and each object as a layer of its own, `dog.Y`.

The frame is made linear from sRGB and has half precision, as compositors expect. Layers have names, since some read a
bare number as part of another name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR

from vostrack.errors import OutputError
from vostrack.files import OutputRoot, shown
from vostrack.formats.alpha import alpha
from vostrack.formats.base import Bools, Shot, picture
from vostrack.formats.drawings import Drawing, Drawings, Shape, checked_name, checked_size, titled
from vostrack.notes import Note
from vostrack.types import Prediction
from vostrack.video.film import MOST_VALUES, exr_parts, extent
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
        for number, stem in self._shot.stems(ascii_only=True).items():
            yield f"{stem}.Y", alpha(prediction, [number], self._shot.options).astype(np.float16)


def read(path: Path) -> Drawings:
    """What a file holds: objects are layers of one channel, or else A or Y alone; raises `ValueError`."""
    headers = _parts(path, header_only=True)
    values = sum(len(header["channels"]) * math.prod(extent(header["dataWindow"])) for header in headers)
    if not 0 < values <= MOST_VALUES:
        raise ValueError(f"its channels have {values:,} values in all: expected 1 to {MOST_VALUES:,}")
    header = headers[0]
    shown_window, stored = (_box(header, name) for name in ("displayWindow", "dataWindow"))
    checked_size(stored[3] - stored[1] + 1, stored[2] - stored[0] + 1, "its data window")
    size = checked_size(shown_window[3] - shown_window[1] + 1, shown_window[2] - shown_window[0] + 1, "it")
    corner = stored[1] - shown_window[1], stored[0] - shown_window[0]
    channels = [str(channel.name) for channel in header["channels"]]
    often = Counter(name.rpartition(".")[0] for name in channels)
    layers = {name.rpartition(".")[0]: name for name in channels if "." in name and often[name.rpartition(".")[0]] == 1}
    if not layers and not {"A", "Y"} & set(channels):
        raise ValueError(f"it has no object as a layer of one channel, such as dog.Y: there are {shown(channels)}")
    names = titled(layers) if layers else {"": ("", None)}
    found = layers or {"": "A" if "A" in channels else "Y"}
    shapes = [
        Shape(names[layer][0] and checked_name(names[layer][0], "a layer"), names[layer][1], draw, f"layer {channel}")
        for layer, channel in found.items()
        for draw in [partial(_layer, path, channel, corner)]
    ]
    return Drawings(path, "OpenEXR", [Drawing(path.name, shapes, size)])


def _parts(path: Path, **options: bool) -> list[Any]:
    """The headers of the parts of a file, or the parts with their pixels; raises `ValueError`."""
    try:
        parts = exr_parts(path, **options)
        return [part.header for part in parts] if "header_only" in options else parts
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"it is a damaged OpenEXR file: {first_line(error)}") from error


def _box(header: dict[str, Any], name: str) -> tuple[int, int, int, int]:
    """A window: left, top, right and bottom, all in it."""
    (left, top), (right, bottom) = header[name]
    return int(left), int(top), int(right), int(bottom)


def _layer(path: Path, channel: str, corner: tuple[int, int], size: tuple[int, int]) -> Bools:
    """Where a layer is over one half; raises `ValueError`."""
    parts = _parts(path, separate_channels=True)  # without those that cannot be read
    if not parts or channel not in parts[0].channels:
        raise ValueError("has pixels that are damaged")
    values = parts[0].channels[channel].pixels
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError("has values that are not finite")
    if values.dtype == np.uint32:
        values = values > 0
    mask = np.zeros(size, np.bool_)
    top, left = corner
    above, before = max(-top, 0), max(-left, 0)
    inside = values[above : size[0] - top, before : size[1] - left] > 0.5
    mask[top + above : top + above + inside.shape[0], left + before : left + before + inside.shape[1]] = inside
    return mask
