"""What can be seen of how sure a mask is: measured frame by frame, kept beside a run, read when it is over.

Frame, labels and cells are looked at on one small grid, whatever their sizes: that costs next to nothing and means much
the same for every method and size. What needs other frames than the one before, such as those with given masks, is left
to `confidence`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vostrack.errors import OutputError
from vostrack.files import OutputRoot, open_regular, parse_json, shaped, shown
from vostrack.notes import Note
from vostrack.types import Prediction

SIDE = 80
"""Short side of the grid."""

SIGNS = ".vostrack/signs.jsonl"

LOW = 0.5
"""A mask in which the confidence is lower is more likely to be wrong than right."""

_BINS = 6

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Sign:
    """How one object looks in a frame. Lengths are in short sides of the frame, colours in [0, 1].

    Attributes:
        area: in pixels.
        share: of the frame.
        y, x: its centre.
        spread: root mean square distance of its cells from there.
        outline: cells of its outline over the square root of all.
        kept: intersection with its mask in the frame before over their union.
        was: the id that most of its cells had in the frame before.
        red, green, blue: its mean colour.
        contrast: standard deviation of its colour, mean over the channels.
        inside: mean probability of its cells; this and what follows is None where no probabilities are known.
        margin: the same less that of the next label.
        least: a probability that nine tenths of its cells exceed.
        soft: how much of its probability is undecided: sum of p (1 - p) over sum of p.
        leak: its probability outside of its mask over that inside, at most 9.
        agreement: intersection of what both directions say over their union; None with one direction.
    """

    area: int
    share: float = 0.0
    y: float = 0.0
    x: float = 0.0
    spread: float = 0.0
    outline: float = 0.0
    kept: float = 0.0
    was: int = 0
    red: float = 0.0
    green: float = 0.0
    blue: float = 0.0
    contrast: float = 0.0
    inside: float | None = None
    margin: float | None = None
    least: float | None = None
    soft: float | None = None
    leak: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class FrameSigns:
    """A frame.

    Attributes:
        frame: its index.
        change: how much it differs from the frame before, in [0, 1].
        objects: by id.
    """

    frame: int
    change: float
    objects: Mapping[int, Sign]


class Small(NamedTuple):
    """A frame on the small grid: labels (h, w), its image as float32 (3, h, w) in [0, 1], and its colours (bins)."""

    labels: Array
    image: Array
    colors: Array


def small(prediction: Prediction) -> Small:
    """A prediction's frame on the small grid."""
    pixels = prediction.labels.pixels.cpu().numpy()
    grid = _grid(pixels.shape, pixels.shape)
    image = prediction.frame.image.numpy()[:, *grid]
    bins = (image.astype(np.int32) * _BINS) >> 8
    colors = np.bincount(((bins[0] * _BINS + bins[1]) * _BINS + bins[2]).ravel(), minlength=_BINS**3) / bins[0].size
    return Small(pixels[grid], image.astype(np.float32) / 255, colors)


def _grid(size: tuple[int, ...], of: tuple[int, ...]) -> tuple[Array, Array]:
    """Which rows and columns of an array of a size the small grid of a frame looks at."""
    scale = min(1.0, SIDE / min(of))
    rows, columns = (
        ((np.arange(count) + 0.5) * (length / count)).astype(np.intp)
        for length, count in zip(size, (max(1, round(side * scale)) for side in of), strict=True)
    )
    return rows[:, None], columns


def change(one: Small, other: Small) -> float:
    """How much two frames differ, in [0, 1]: in which colours they have, and in where."""
    colors = np.abs(one.colors - other.colors).sum() / 2
    return float(np.sqrt(colors * np.abs(one.image - other.image).mean()))


def measure(prediction: Prediction, seen: Small, before: Small | None) -> FrameSigns:
    """The signs of a frame, as seen on the small grid, after another one."""
    labels, pixels, ids = seen.labels, prediction.labels.pixels.cpu().numpy(), prediction.labels.ids
    cells = None
    if prediction.cells is not None:
        cells = prediction.cells.cpu().numpy()
        cells = cells[:, *_grid(cells.shape[1:], pixels.shape)]
    follows = before is not None and before.labels.shape == labels.shape
    objects = {}
    for channel, number in enumerate(ids, 1):
        mask = labels == number
        earlier = before.labels if before is not None and follows else labels
        soft: dict[str, Any] = _soft(cells, channel, mask) if cells is not None and len(cells) > channel else {}
        if prediction.agreement is not None and number in prediction.agreement:
            soft["agreement"] = prediction.agreement[number]
        area = int(np.count_nonzero(pixels == number))
        objects[number] = Sign(area, area / pixels.size, **_hard(mask, earlier, number, seen.image), **soft)
    return FrameSigns(prediction.index, change(seen, before) if before is not None and follows else 0.0, objects)


def _hard(mask: Array, earlier: Array, number: int, image: Array) -> dict[str, Any]:
    """What a mask (h, w) itself says of an object, after earlier labels; nothing if it is empty."""
    y, x = mask.nonzero()
    if not len(y):
        return {}
    side, count = min(mask.shape), len(y)
    near = np.pad(mask, 1)
    inner = near[:-2, 1:-1] & near[2:, 1:-1] & near[1:-1, :-2] & near[1:-1, 2:] & mask
    colors = image[:, y, x]
    red, green, blue = colors.mean(1).tolist()
    counts = np.bincount(earlier[y, x], minlength=256)
    kept = counts[number] / (count + np.count_nonzero(earlier == number) - counts[number])
    return {
        "y": float(y.mean()) / side,
        "x": float(x.mean()) / side,
        "spread": float(np.sqrt(y.var() + x.var())) / side,
        "outline": float((count - inner.sum()) / np.sqrt(count)),
        "kept": float(kept),
        "was": int(counts.argmax()),
        "red": red,
        "green": green,
        "blue": blue,
        "contrast": float(colors.std(1).mean()),
    }


def _soft(cells: Array, channel: int, mask: Array) -> dict[str, Any]:
    """What probabilities (K, h, w) say of an object with a mask (h, w)."""
    probs = cells[channel]
    total = float(probs.sum())
    found: dict[str, Any] = {"soft": float((probs * (1 - probs)).sum() / total) if total > 0 else 0.0}
    if not mask.any():
        return found | {"inside": float(probs.max())}
    inside = cells[:, mask]
    own, others = inside[channel], np.delete(inside, channel, 0).max(0)
    within = float(own.sum())
    return found | {
        "inside": float(own.mean()),
        "margin": float((own - others).mean()),
        "least": float(np.partition(own, len(own) // 10)[len(own) // 10]),
        "leak": min((total - within) / within, 9.0) if within > 0 else 9.0,
    }


class SignsWriter:
    """Measures predictions in order and keeps what it finds; a `video.writer.Writer`, whose thread has the time."""

    def __init__(self, root: OutputRoot, measured: Iterable[FrameSigns] = ()) -> None:
        """Take the output folder, and what an earlier run has measured where this one takes its predictions."""
        self.notes: list[Note] = []
        self._root, self._measured = root, {frame.frame: frame for frame in measured}
        self._before: Small | None = None

    def write(self, prediction: Prediction) -> None:
        """Measure a frame; raises `OutputError`."""
        seen = small(prediction)
        frame, self._before = measure(prediction, seen, self._before), seen
        if prediction.cells is None and prediction.index in self._measured:
            frame = _with_soft(frame, self._measured[prediction.index])
        rows = {str(number): [_short(value) for value in astuple(sign)] for number, sign in frame.objects.items()}
        # The line break comes first, so that a line which a kill or a full disk cut off harms no other.
        line = json.dumps([frame.frame, _short(frame.change), rows], separators=(",", ":"))
        self._root.append(SIGNS, f"\n{line}")

    def skip(self, prediction: Prediction) -> None:
        """Take a frame that an earlier run has measured."""
        self._before = small(prediction)

    def finish(self) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """Nothing to do."""


def _with_soft(frame: FrameSigns, earlier: FrameSigns) -> FrameSigns:
    """The signs of a frame with what was known of probabilities before."""
    objects = dict(frame.objects)
    for number in objects.keys() & earlier.objects.keys():
        soft = {name: getattr(earlier.objects[number], name) for name in _SOFT}
        objects[number] = replace(objects[number], **soft)
    return replace(frame, objects=objects)


def _short(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.5g}")


def read_signs(root: OutputRoot) -> list[FrameSigns]:
    """What was measured of each frame, in order; of several lines for a frame the last one counts.

    Raises:
        OutputError: the file cannot be read.
    """
    path, found = root.at(SIGNS), dict[int, FrameSigns]()
    try:
        with open_regular(path) as file:
            for line in file:
                try:
                    frame = _parsed(line)
                except (TypeError, ValueError):
                    continue  # cut off; the frame came again
                found[frame.frame] = frame
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise OutputError(f"{shown(path)} cannot be read ({shown(error)})") from error
    return [found[index] for index in sorted(found)]


def _parsed(line: bytes) -> FrameSigns:
    frame, differs, rows = parse_json(line, list[Any])
    listed = shaped(rows, dict[str, list[Any]])
    objects = {int(number): shaped(dict(zip(_NAMES, row, strict=True)), Sign) for number, row in listed.items()}
    return FrameSigns(shaped(frame, int), shaped(differs, float), objects)


_NAMES = [entry.name for entry in fields(Sign)]
_SOFT = _NAMES[_NAMES.index("inside") :]
