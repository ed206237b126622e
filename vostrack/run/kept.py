"""What a run keeps of each frame: the probabilities of its cells, in eight bits, one file for a frame and direction.

Merging the two directions, and whatever looks at a run again, reads these. Most cells are sure, so a file is small.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from vostrack.errors import OutputError, damage_as
from vostrack.files import OutputRoot, open_regular, shown
from vostrack.methods import Direction
from vostrack.ops.eight_bits import from_codes
from vostrack.ops.merging import arranged, merge, overlap
from vostrack.propagate import Merged, Said, known_ids
from vostrack.types import LabelMap

_HIDDEN = "hidden"
"""What a file calls the ids of the objects that are out of sight."""

_SHARE = 1 / 6
"""Of the codes, what is left after compression: a sixth at a short side of 240, less at larger ones."""


COMPLETE = "complete"
"""The file that says that a pass has come to its end."""

STALE = "stale"
"""The file that says from which frame on a pass was not made again, since all masks from there on are locked."""


class KeptCells:
    """Probabilities of cells, by frame, of a pass in one direction.

    Attributes:
        direction, prompts: as given.
    """

    def __init__(
        self, folder: Path, direction: Direction, prompts: Mapping[int, LabelMap], grid: tuple[int, int]
    ) -> None:
        """Name the place; nothing is created yet.

        Args:
            folder: that all lies in, which belongs to the run.
            direction: of the pass, forward or backward.
            prompts: the given masks by frame.
            grid: cells (h, w) of a frame.
        """
        self.direction, self.prompts, self._grid = direction, prompts, grid
        self._root = OutputRoot(folder)

    def name(self, index: int) -> str:
        """The path of a frame's file below the folder."""
        return f"{self.direction}/{index:05d}.png"

    def write(self, index: int, codes: Tensor, ids: tuple[int, ...], hidden: tuple[int, ...] = ()) -> None:
        """Keep codes uint8 (K, h, w) (`ops.eight_bits`) of a frame, and what is out of sight; raises `OutputError`."""
        assert len(codes) == len(ids) + 1
        image, buffer, more = Image.fromarray(codes.flatten(0, 1).numpy()), io.BytesIO(), PngInfo()
        if hidden:
            more.add_text(_HIDDEN, ",".join(map(str, hidden)))
        image.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE, pnginfo=more)
        self._root.write(self.name(index), buffer.getvalue())

    def read(self, index: int) -> Said | None:
        """What was said of a frame; None where nothing was predicted.

        Raises:
            OutputError: the file is damaged.
        """
        path, ids = self._root.at(self.name(index)), self.ids(index)
        if not ids:
            return None
        fault = f"{shown(path)} is damaged"
        with (
            suppress(FileNotFoundError),
            damage_as(
                lambda error: OutputError(f"{fault} ({shown(error)}); start again with `overwrite=True`"),
                FileNotFoundError,
            ),
        ):
            open_regular(path).close()
            with Image.open(path, formats=["PNG"]) as image:
                image.verify()  # the checksums, which reading alone does not look at; it closes the image
            with Image.open(path, formats=["PNG"]) as image:
                height, width = self._grid
                if (image.mode, image.width, image.height) != ("L", width, height * (len(ids) + 1)):
                    raise ValueError("another kind or size of image")
                codes = torch.from_numpy(np.array(image)).view(-1, height, width)
                hidden = str(image.info.get(_HIDDEN, "")).split(",")
            if not codes.any(0).all():
                raise ValueError("cells without a label")
            return Said(from_codes(codes), ids, tuple(number for number in ids if str(number) in hidden))
        return None

    @property
    def is_complete(self) -> bool:
        """Whether the pass has come to its end."""
        return self._root.at(f"{self.direction}/{COMPLETE}").is_file()

    def complete(self) -> None:
        """Say that the pass has come to its end."""
        self._root.write(f"{self.direction}/{COMPLETE}", b"")

    @property
    def stale(self) -> int | None:
        """From which frame on, in the order of the pass, what is kept is of an earlier one; raises `OutputError`."""
        path = self._root.at(f"{self.direction}/{STALE}")
        try:
            with open_regular(path) as file:
                return int(file.read(20))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            fix = "start again with `overwrite=True`"
            raise OutputError(f"{shown(path)} is damaged ({shown(error)}); {fix}") from error

    def leave(self, index: int) -> None:
        """Say from which frame on what is kept is of an earlier pass."""
        self._root.write(f"{self.direction}/{STALE}", str(index).encode())

    def ids(self, index: int) -> tuple[int, ...]:
        """Ids that were followed when a frame was predicted, before its own mask was looked at."""
        before = index + 1 if self.direction is Direction.BACKWARD else index - 1
        return known_ids(self.prompts, before, self.direction)


@dataclass(frozen=True)
class Renewed:
    """Frames that passes are made again for.

    Attributes:
        frames: of the run.
        settled: those whose masks follow from the earlier ones, since all that they show is locked or gone.
        changes: the first frame that the pass forwards, and the last that the one backwards, sees in another way.
        holding: the frame before which, forwards, and after which, backwards, what was said of cells holds.
        ends: the last frame that the pass forwards, and the first that the one backwards, is needed for.
    """

    frames: range
    settled: frozenset[int]
    changes: tuple[int, int]
    holding: tuple[int, int]
    ends: tuple[int, int]

    def holds(self, direction: Direction, index: int) -> bool:
        """Whether what the pass has said of a frame is what it would say now."""
        return index < self.holding[0] if direction is Direction.FORWARD else index > self.holding[1]

    def is_over(self, direction: Direction, index: int) -> bool:
        """Whether nothing that can change comes from a frame on."""
        return index > self.ends[0] if direction is Direction.FORWARD else index < self.ends[1]

    def stale(self, direction: Direction) -> int:
        """From which frame on, in the order of the pass, what was said does not hold and is not said again."""
        if direction is Direction.FORWARD:
            return max(self.holding[0], self.ends[0] + 1)
        return min(self.holding[1], self.ends[1] - 1)


def forecast(grid: tuple[int, int], channels: int, frames: int) -> int:
    """About how many bytes are kept of some frames.

    Args:
        grid: cells (h, w) of a frame.
        channels: K, with the background.
        frames: predictions, those of both directions together.
    """
    height, width = grid
    return round(height * width * channels * frames * _SHARE)


class BothWays:
    """What two passes say of a frame."""

    def __init__(self, prompts: Mapping[int, LabelMap], other: KeptCells, direction: Direction) -> None:
        """Take what the pass from the last to the first frame has kept, and which way objects are followed in all."""
        self._prompts, self._other, self._direction = prompts, other, direction

    def merged(self, index: int, said: Said | None) -> Merged | None:
        """A `propagate.Merge`: what the pass from the first to the last frame says, with what the other one does.

        What only one of them sees is as that one sees it.
        """
        kept, wanted = self._other.read(index), known_ids(self._prompts, index, self._direction)
        only = said if kept is None else kept
        if only is None:
            return None
        if said is None or kept is None:
            return Merged(arranged(only.visible, only.ids, wanted), wanted)
        ours, back = (arranged(each.cells.cpu(), each.ids, wanted) for each in (said, kept))
        both = [number for number in said.ids if number in kept.ids]
        agreement = {number: overlap(ours, back, wanted.index(number) + 1) for number in both}
        seen, seen_there = ({*each.ids} - {*each.hidden} for each in (said, kept))
        weights = [self._weight(index, n) if n in seen & seen_there else float(n in seen) for n in wanted]
        hidden = tuple(number for number in wanted if number not in seen | seen_there)
        return Merged(Said(merge(ours, back, torch.tensor(weights)), wanted, hidden).visible, wanted, agreement)

    def _weight(self, index: int, number: int) -> float:
        """In [0, 1]: how much the pass from first to last counts for an object of both, by distance in time."""
        at = [frame for frame, given in self._prompts.items() if number in given.ids]
        before = min(index - frame for frame in at if frame <= index)
        after = min(frame - index for frame in at if frame >= index)
        return after / max(before + after, 1)
