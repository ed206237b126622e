"""What writers of formats are given, and what several of them need."""

from __future__ import annotations

import contextlib
import io
import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from vostrack.formats import ExportOptions
from vostrack.notes import Note
from vostrack.types import Prediction
from vostrack.video.ground import Color
from vostrack.video.mask_labels import hex_name
from vostrack.video.palette import PALETTE

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

_LONGEST_STEM = 50
_RESERVED = re.compile("con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)
"""Names that Windows has for devices."""


@dataclass(frozen=True)
class Shot:
    """What an export is made of, but for its frames.

    Predictions come in order: their label maps hold no objects but those of the shot, their images are empty unless the
    format asks for them, and their probabilities are at the working size where edges can be soft.

    Attributes:
        out: the file or the folder to write; nothing is there.
        name: of the clip, which can be that of a folder.
        size: (H, W) of all frames.
        count: of frames.
        objects: names by id, in the order of ids; two objects may have one name.
        file_name: name of the image that a frame is in, from the frame's index and name.
        options: of the format.
        source: video file, for timing and audio; None for a folder of images.
        fps: average frame rate, where it is known.
        colors: by id, what objects were painted in.
        every: names of all objects that there are, by id, if some are left out: classes keep their numbers, and files
            their names.
    """

    out: Path
    name: str
    size: tuple[int, int]
    count: int
    objects: Mapping[int, str]
    file_name: Callable[[int, str], str]
    options: ExportOptions
    source: Path | None = None
    fps: Fraction | None = None
    colors: Mapping[int, Color] = field(default_factory=dict)
    every: Mapping[int, str] = field(default_factory=dict)

    @property
    def named(self) -> Mapping[int, str]:
        """Names of all objects by id, those that are left out among them."""
        return self.every or self.objects

    @property
    def class_colors(self) -> dict[str, str]:
        """A colour for each class, `#rrggbb`: that which its first object was painted in, or has in palettes."""
        first = {name: number for number, name in reversed([*self.named.items()])}
        return {name: hex_name(self.colors.get(n, tuple(PALETTE[n].tolist()))) for name, n in first.items()}

    @property
    def classes(self) -> dict[str, int]:
        """Classes, which are the names of objects, numbered from 1."""
        return {name: number for number, name in enumerate(dict.fromkeys(self.named.values()), 1)}

    def image_of(self, prediction: Prediction) -> str:
        """Name of the image that a frame is in."""
        name = self.file_name(prediction.index, prediction.frame.name)
        return f"{self.name}/{name}" if self.options.folders else name

    def stems(self, ascii_only: bool = False) -> dict[int, str]:
        """By id, what files and layers of an object are called: letters, digits, `_`; no two are alike in any case.

        Args:
            ascii_only: whether there are no letters but those from A to Z.
        """
        kind = re.ASCII if ascii_only else 0
        named = ((n, unicodedata.normalize("NFC", name)) for n, name in self.named.items())
        stems = {n: re.sub(r"\W+", "_", name, flags=kind).strip("_")[:_LONGEST_STEM] for n, name in named}
        stems = {n: stem if stem and not stem[0].isdigit() else f"object_{stem or n}" for n, stem in stems.items()}
        while True:
            taken = Counter(stem.casefold() for stem in stems.values())
            bad = [n for n, stem in stems.items() if taken[stem.casefold()] > 1 or _RESERVED.fullmatch(stem)]
            if not bad:
                return {n: stem for n, stem in stems.items() if n in self.objects}
            stems |= {n: f"{stems[n]}_{n}" for n in bad}


class Listed(ABC):
    """A writer of a JSON file, whose long list is written frame by frame.

    Attributes:
        key: what the list is called; empty where the file is that list.
    """

    key: ClassVar[str] = ""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        self.notes: list[Note] = []
        self.shot, self.count = shot, 0
        self._file = shot.out.open("x", encoding="ascii", newline="\n")
        self._file.write(f'{{"{self.key}": [' if self.key else "[")

    @abstractmethod
    def write(self, prediction: Prediction) -> None:
        """Take a frame."""

    def put(self, entry: Any) -> None:
        """Write an entry of the list."""
        self._file.write(",\n" if self.count else "\n")
        self._file.write(json.dumps(entry, allow_nan=False))
        self.count += 1

    def rest(self) -> dict[str, Any]:
        """What else the file has, beside the list."""
        return {}

    def finish(self) -> None:
        """Complete the file."""
        rest = "".join(
            f",\n{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in self.rest().items()
        )
        self._file.write(f"\n]{rest}}}\n" if self.key else "\n]\n")
        self._file.close()

    def abort(self) -> None:
        """Close the file; what goes wrong then does not matter any more."""
        with contextlib.suppress(OSError):
            self._file.close()


def objects_in(prediction: Prediction) -> Iterator[tuple[int, Bools]]:
    """The ids of the objects that a frame shows, and the mask of each, bool (H, W), in the order of ids."""
    pixels = prediction.mask
    for number in np.flatnonzero(np.bincount(pixels.ravel(), minlength=256)):
        if number:
            yield int(number), pixels == number


def box_of(mask: Bools) -> tuple[int, int, int, int]:
    """Left, top, width and height of what is true in a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


def runs(values: Bools) -> npt.NDArray[np.int64]:
    """Lengths of runs in bool (N,), the first of what is false, which may be 0 long."""
    flat = values.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate(([0], edges, [flat.size])))
    return np.concatenate(([0], lengths)) if flat[0] else lengths


def png(image: Image.Image) -> bytes:
    """An image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def jpeg(prediction: Prediction) -> bytes:
    """The image of a frame as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture(prediction)).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def picture(prediction: Prediction) -> Bytes:
    """The image of a frame, uint8 (H, W, 3)."""
    return np.ascontiguousarray(prediction.frame.image.permute(1, 2, 0).numpy())
