"""Objects drawn over a frame, so that they can be seen whatever is below them.

An object has the colour that it was painted in, or a lighter or darker one where that is too much like the object
itself: this is settled when it is first seen, so that colours do not flicker. A line runs along its border inside, and
a rim, black or white, along the line outside. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vostrack.ops.color import rgb_to_lab
from vostrack.types import BACKGROUND, VOID
from vostrack.video.ground import Color
from vostrack.video.lettering import Lettering
from vostrack.video.look import Look, Style
from vostrack.video.palette import PALETTE

Pixels = npt.NDArray[np.uint8]

_UNLIKE_TINT, _UNLIKE_LINE = 45.0, 60.0
"""Distances in L*a*b* from which on a tint, and a line, can be told from what is below."""

_BRIGHT = 50.0
"""From this L* on a line has a black rim, below it a white one."""

_GROUNDS = (32, 128, 224)
_BOARD = (104, 152)
_SQUARES = 36
"""Squares of a checkerboard along the short side of a frame."""


def draw_overlay(image: Pixels | Tensor, labels: Pixels) -> Pixels:
    """Draw the objects of a label map over an image that belongs to no clip; see `Painter.draw`."""
    return Painter().draw(image, labels)


class Painter:
    """Draws over the frames of a clip; an object keeps the colours that it was first drawn in."""

    def __init__(self, look: Look | None = None) -> None:
        """Take a look; by default a tint in the colours of `PALETTE`."""
        self._look = look or Look()
        self._tones = np.zeros((3, 256, 3), np.uint8)  # of tint, line and rim, by id
        self._own: dict[int, Color] = {}
        self._ground: Pixels | None = None
        self._lettering = Lettering(self._look.names)

    def draw(self, image: Pixels | Tensor, labels: Pixels, index: int | None = None) -> Pixels:
        """Draw a frame.

        Args:
            image: uint8 RGB, an array (H, W, 3) or a tensor (3, H, W).
            labels: uint8 (H, W) object ids; background and void are not drawn.
            index: number of the frame, written where the look has labels.

        Returns:
            A new image, uint8 (H, W, 3).
        """
        # A colour plane at a time: numpy is twice as fast where pixels of one kind lie side by side.
        planes: Pixels = np.array(image.numpy() if isinstance(image, Tensor) else image.transpose(2, 0, 1), order="C")
        objects = np.where(labels == VOID, np.uint8(BACKGROUND), labels)
        unit = max(1, round(min(labels.shape) / 540))
        box = _bounds(objects, unit)
        ids: list[int] = []
        if box is not None:
            # Only the box around the objects is touched: in most clips it is a small part of the frame.
            ids = _present(objects[box])
            self._meet(ids, planes[:, box[0], box[1]], objects[box])
        if self._look.style in (Style.CUTOUT, Style.CHECKERBOARD):
            self._cut_out(planes, objects)
        elif box is not None:
            self._mark(planes[:, box[0], box[1]], objects[box], unit)
        picture = np.empty((*labels.shape, 3), np.uint8)
        for channel, plane in enumerate(planes):
            picture[..., channel] = plane
        if self._look.labels:
            colors = {number: _color(self._tones[1, number]) for number in ids}
            number = None if index is None else index + self._look.shift
            self._lettering.write(picture, objects, colors, number)
        return picture

    def _meet(self, ids: Sequence[int], planes: Pixels, objects: Pixels) -> None:
        """Settle the colours of objects that are seen for the first time."""
        for number in [number for number in ids if number not in self._own]:
            self._own[number] = _color(planes[:, objects == number].mean(axis=1))
            painted = self._look.colors.get(number, _color(PALETTE[number]))
            self._tones[:, number] = tones(painted, self._own[number])

    def _mark(self, planes: Pixels, objects: Pixels, unit: int) -> None:
        """Tint and outline objects in place."""
        tint, line, rim = self._tones
        width = unit
        if self._look.style is Style.TINT:
            inside = objects != BACKGROUND
            for plane, levels in zip(planes, tint.T, strict=True):
                np.copyto(plane, (plane >> 1) + np.take(levels >> 1, objects), where=inside)
        else:
            width = 2 * unit
        for pixels, colors in ((_outside(objects, unit), rim), (_contour(objects, width), line)):
            y, x = pixels.nonzero()
            planes[:, y, x] = colors[pixels[y, x]].T

    def _cut_out(self, planes: Pixels, objects: Pixels) -> None:
        """Put a ground in the place of all that is no object."""
        if self._look.style is Style.CHECKERBOARD:
            if self._ground is None or self._ground.shape != objects.shape:
                self._ground = _board(objects.shape)
        elif self._ground is None and self._own:
            self._ground = np.array(_ground(list(self._own.values())), np.uint8)
        hidden, ground = objects == BACKGROUND, _GROUNDS[0] if self._ground is None else self._ground
        for plane in planes:
            np.copyto(plane, ground, where=hidden)


def tones(painted: Color, own: Color) -> tuple[Color, Color, Color]:
    """The colours of an object's tint, line and rim.

    Args:
        painted: its colour.
        own: the mean colour of what the mask shows.

    Returns:
        The painted colour, or one of the same hue that is unlike the object's own; the same, but bright, for the line;
        and black or white.
    """
    most = max(*painted, 1)
    bright = _color(np.array(painted) * 255.0 / most)
    light, dark = _color(np.array(bright) / 2 + 128), _color(np.array(bright) * 0.35)
    tint = _unlike(own, (painted, bright, light, dark), _UNLIKE_TINT)
    line = _unlike(own, (bright, light, dark), _UNLIKE_LINE)
    return tint, line, (0, 0, 0) if float(_lab([line])[0, 0]) >= _BRIGHT else (255, 255, 255)


def _unlike(own: Color, candidates: Sequence[Color], enough: float) -> Color:
    """The first colour that is far enough from another, or else the farthest."""
    lab = _lab([own, *candidates])
    distances = (lab[1:] - lab[0]).norm(dim=1).tolist()
    far = [color for color, distance in zip(candidates, distances, strict=True) if distance >= enough]
    return far[0] if far else candidates[distances.index(max(distances))]


def _ground(colors: Sequence[Color]) -> int:
    """The grey that is farthest from the colour that it is nearest to."""
    lab, greys = _lab(colors), _lab([(grey, grey, grey) for grey in _GROUNDS])
    return _GROUNDS[int(torch.cdist(greys, lab).amin(dim=1).argmax())]


def _lab(colors: Sequence[Color]) -> Tensor:
    """Colours (N, 3) in L*a*b*."""
    return rgb_to_lab(torch.tensor(colors).float().T[..., None] / 255)[..., 0].T


def _color(levels: npt.NDArray[np.generic]) -> Color:
    red, green, blue = np.minimum(levels.astype(np.float64), 255).astype(int).tolist()
    return red, green, blue


def _board(shape: tuple[int, ...]) -> Pixels:
    """A checkerboard (H, W) of two greys."""
    side = max(min(shape) // _SQUARES, 2)
    rows, columns = (np.arange(length) // side % 2 for length in shape)
    return np.where(rows[:, None] ^ columns, *map(np.uint8, _BOARD))


def _present(objects: Pixels) -> list[int]:
    """The ids that occur, ascending."""
    counts = Image.fromarray(np.ascontiguousarray(objects)).histogram()
    return [number for number, count in enumerate(counts) if count and number != BACKGROUND]


def _bounds(objects: Pixels, margin: int) -> tuple[slice, slice] | None:
    """A box that holds all objects and a margin around them, or None where there are none."""
    rows, columns = np.flatnonzero(objects.any(axis=1)), np.flatnonzero(objects.any(axis=0))
    if not rows.size:
        return None
    across, down = (slice(max(ends[0] - margin, 0), ends[-1] + margin + 1) for ends in (columns, rows))
    return down, across


def _contour(objects: Pixels, width: int) -> Pixels:
    """Ids of the pixels of objects that are at most `width` steps from a pixel with another label; else 0; (H, W)."""
    edge = np.zeros(objects.shape, np.bool_)
    _spread(edge, objects[:, 1:] != objects[:, :-1], objects[1:] != objects[:-1])
    for _ in range(width - 1):
        _spread(edge, edge[:, 1:] | edge[:, :-1], edge[1:] | edge[:-1])
    return np.where(edge, objects, np.uint8(BACKGROUND))


def _spread(edge: npt.NDArray[np.bool_], across: npt.NDArray[np.bool_], down: npt.NDArray[np.bool_]) -> None:
    """Mark both pixels of each pair of neighbours that is set."""
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down


def _outside(objects: Pixels, width: int) -> Pixels:
    """Ids, for pixels of the background, of an object at most `width` steps away; else 0; (H, W)."""
    grown = objects.copy()
    for _ in range(width):
        before = grown.copy()
        for to, of in _neighbours(grown, before):
            np.maximum(to, of, out=to)
    return np.where(objects == BACKGROUND, grown, np.uint8(BACKGROUND))


def _neighbours(grown: Pixels, before: Pixels) -> Iterator[tuple[Pixels, Pixels]]:
    """Views of a map, and of what lies on each side of them in another."""
    yield grown[:, 1:], before[:, :-1]
    yield grown[:, :-1], before[:, 1:]
    yield grown[1:], before[:-1]
    yield grown[:-1], before[1:]
