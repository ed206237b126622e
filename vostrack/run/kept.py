"""What a run keeps of each frame: the probabilities of its cells, in eight bits, one file for a frame and direction.

Merging the two directions, and whatever looks at a run again, reads these. Most cells are sure, so a file is small.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vostrack.errors import OutputError
from vostrack.files import OutputRoot, open_regular, shown
from vostrack.methods import Direction
from vostrack.ops.eight_bits import from_codes
from vostrack.ops.merging import arranged, merge, overlap
from vostrack.propagate import Merged, known_ids
from vostrack.types import LabelMap

_SHARE = 1 / 6
"""Of the codes, what is left after compression: a sixth at a short side of 240, less at larger ones."""


COMPLETE = "complete"
"""The file that says that a pass has come to its end."""


class KeptCells:
    """Probabilities of cells, by frame, of a pass in one direction."""

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
        self.direction, self._prompts, self._grid = direction, prompts, grid
        self._root = OutputRoot(folder)

    def name(self, index: int) -> str:
        """The path of a frame's file below the folder."""
        return f"{self.direction}/{index:05d}.png"

    def write(self, index: int, codes: Tensor, ids: tuple[int, ...]) -> None:
        """Keep codes uint8 (K, h, w) (`ops.eight_bits`) of a frame; raises `OutputError`."""
        assert len(codes) == len(ids) + 1
        image, buffer = Image.fromarray(codes.flatten(0, 1).numpy()), io.BytesIO()
        image.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
        self._root.write(self.name(index), buffer.getvalue())

    def read(self, index: int) -> tuple[Tensor, tuple[int, ...]] | None:
        """Probabilities float32 (K, h, w) of a frame, and the ids of its channels; None where nothing was predicted.

        Raises:
            OutputError: the file is damaged.
        """
        path, ids = self._root.at(self.name(index)), self._ids(index)
        if not ids:
            return None
        try:
            open_regular(path).close()
            with Image.open(path, formats=["PNG"]) as image:
                image.verify()  # the checksums, which reading alone does not look at; it closes the image
            with Image.open(path, formats=["PNG"]) as image:
                height, width = self._grid
                if (image.mode, image.width, image.height) != ("L", width, height * (len(ids) + 1)):
                    raise ValueError("another kind or size of image")
                codes = torch.from_numpy(np.array(image)).view(-1, height, width)
            if not codes.any(0).all():
                raise ValueError("cells without a label")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise OutputError(
                f"{shown(path)} is damaged ({shown(error)}); start again with `overwrite=True`"
            ) from error
        return from_codes(codes), ids

    @property
    def is_complete(self) -> bool:
        """Whether the pass has come to its end."""
        return self._root.at(f"{self.direction}/{COMPLETE}").is_file()

    def complete(self) -> None:
        """Say that the pass has come to its end."""
        self._root.write(f"{self.direction}/{COMPLETE}", b"")

    def _ids(self, index: int) -> tuple[int, ...]:
        """Ids that were followed when a frame was predicted, before its own mask was looked at."""
        before = index + 1 if self.direction is Direction.BACKWARD else index - 1
        return known_ids(self._prompts, before, self.direction)


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

    def merged(self, index: int, cells: Tensor | None, ids: tuple[int, ...]) -> Merged | None:
        """A `propagate.Merge`: cells of the pass from the first to the last frame, with those of the other one."""
        kept = self._other.read(index)
        if kept is None and cells is None:
            return None
        wanted = known_ids(self._prompts, index, self._direction)
        if kept is None:
            assert cells is not None
            return Merged(arranged(cells, ids, wanted), wanted)
        back = arranged(kept[0], kept[1], wanted)
        if cells is None:
            return Merged(back, wanted)
        ours = arranged(cells.cpu(), ids, wanted)
        agreement = {number: overlap(ours, back, wanted.index(number) + 1) for number in ids if number in kept[1]}
        return Merged(merge(ours, back, self._weights(index, wanted)), wanted, agreement)

    def _weights(self, index: int, ids: tuple[int, ...]) -> Tensor:
        """(O,) in [0, 1]: how much the pass from first to last counts for each object, by distance in time."""
        weights = []
        for number in ids:
            at = [frame for frame, given in self._prompts.items() if number in given.ids]
            before = min((index - frame for frame in at if frame <= index), default=None)
            after = min((frame - index for frame in at if frame >= index), default=None)
            if before is None or after is None:
                weights.append(0.0 if before is None else 1.0)
            else:
                weights.append(after / max(before + after, 1))
        return torch.tensor(weights)
