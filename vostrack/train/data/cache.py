"""Footage as a memory-mapped cache of small frames, with the masks of those that have some.

Decoding video is far slower than training on it, so every source is decoded once, scaled to a short side, thinned to a
frame rate and appended to one file of raw uint8 that the operating system pages in and out, or that is held on the
device whole. Knows nothing of models, losses or random numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from vostrack.benchmark.datasets.mask_folders import read_mask
from vostrack.errors import DatasetError, InputError
from vostrack.files import OutputRoot, read_json, shown
from vostrack.ops.grid import resize_image
from vostrack.ops.labels import resize_labels
from vostrack.train.data.footage import Source
from vostrack.types import VOID, Frame
from vostrack.video.images import read_image
from vostrack.video.reader import open_clip

FRAME_RATE = 10
"""Frames a second that are kept: neighbours still overlap, and a clip is not thirty near-copies a second."""

SHORT_SIDE = 224
"""Short side of the kept frames in pixels."""

STILL_SCALE = 1.5
"""Stills are kept larger by this factor: what moves over them sees a part at a time."""

_VERSION = 2
_INDEX, _FRAMES, _LABELS = "index.json", "frames.u8", "labels.u8"
_ALL = slice(None)


@dataclass(frozen=True)
class CachedClip:
    """Where a clip lies in the cache.

    Attributes:
        name: of its source.
        offset: in the file of frames, in bytes, of `count` frames of (height, width, 3).
        count: frames; 1 for a still.
        height: of a frame, in pixels.
        width: of a frame, in pixels.
        labels: offset of `count` label maps of (height, width) in their file, or None where there are none.
        binary: whether the masks hold 0 and 255 alone, so that 255 is an object and not void.
    """

    name: str
    offset: int
    count: int
    height: int
    width: int
    labels: int | None = None
    binary: bool = False

    @property
    def pixels(self) -> int:
        """Pixels of all frames."""
        return self.count * self.height * self.width


@dataclass(frozen=True)
class _Index:
    version: int
    made_from: list[Any]
    clips: list[CachedClip]


class FrameCache:
    """Clips in memory-mapped files; made by `build_cache`."""

    def __init__(self, folder: Path) -> None:
        """Open a finished cache.

        Args:
            folder: where `build_cache` wrote it.

        Raises:
            DatasetError: the folder holds no complete cache of this version.
        """
        try:
            index = read_json(folder / _INDEX, _Index)
            self.clips = index.clips
            labelled = [clip for clip in self.clips if clip.labels is not None]
            sizes = {_FRAMES: 3 * sum(clip.pixels for clip in self.clips), _LABELS: sum(x.pixels for x in labelled)}
            whole = all((folder / name).stat().st_size == size for name, size in sizes.items() if size)
            whole = whole and all(0 <= clip.offset <= sizes[_FRAMES] - 3 * clip.pixels for clip in self.clips)
            whole = whole and all(0 <= (x.labels or 0) <= sizes[_LABELS] - x.pixels for x in labelled)
            possible = all(min(clip.count, clip.height, clip.width) > 0 for clip in self.clips)
            complete = whole and possible and self.clips and index.version == _VERSION
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{shown(folder)} is not a frame cache ({shown(error)}): delete it to build it again"
            ) from error
        if not complete:
            raise DatasetError(f"the frame cache {shown(folder)} is damaged: delete it to build it again")
        self._frames, self._labels = (_mapped(folder / name, size) for name, size in sizes.items())

    @property
    def frame_count(self) -> int:
        """Frames of all clips."""
        return sum(clip.count for clip in self.clips)

    @property
    def digest(self) -> str:
        """A short hash of what the clips are; the same for the same footage, wherever it lies."""
        return hashlib.sha256(json.dumps([asdict(clip) for clip in self.clips]).encode()).hexdigest()[:16]

    def frames(self, clip: CachedClip, indices: Sequence[int], rows: slice = _ALL, columns: slice = _ALL) -> Tensor:
        """Frames of a clip, or a window of them: uint8 (T, 3, H, W), where the cache is held."""
        shape = (clip.count, clip.height, clip.width, 3)
        pixels = self._frames[clip.offset : clip.offset + 3 * clip.pixels].view(shape)
        return pixels[:, rows, columns][list(indices)].permute(0, 3, 1, 2)

    def labels(self, clip: CachedClip, indices: Sequence[int]) -> Tensor:
        """Label maps of a clip that has some: uint8 (T, H, W), 255 for void, on the CPU."""
        assert clip.labels is not None
        pixels = self._labels[clip.labels : clip.labels + clip.pixels].view(clip.count, clip.height, clip.width)
        chosen = pixels[list(indices)]
        return (chosen == VOID).byte() if clip.binary else chosen

    def hold_where_it_fits(self, device: torch.device) -> None:
        """Keep the frames on a CUDA device if they take at most a quarter of the memory that is free there."""
        if device.type == "cuda" and self._frames.numel() <= torch.cuda.mem_get_info(device)[0] // 4:
            self._frames = self._frames.to(device)


def _mapped(path: Path, size: int) -> Tensor:
    if size == 0:
        return torch.empty(0, dtype=torch.uint8)
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)


def build_cache(
    sources: Sequence[Source],
    folder: Path,
    short_side: int = SHORT_SIDE,
    limit: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    root: OutputRoot | None = None,
) -> FrameCache:
    """Decode sources into a cache, or open the one that is there.

    The frames are written under a temporary name; the index, written last, makes the cache valid and names the sources:
    for other sources it is built again. Of clips with masks, the frames that have one are kept, of others as many a
    second as `FRAME_RATE` says. Sources that cannot be read are left out and reported through `progress`.

    Args:
        sources: from `footage`.
        folder: where the cache lies or will lie.
        short_side: of the kept frames, in pixels, for stills times `STILL_SCALE`; smaller sources keep their size.
        limit: frames of a clip that are kept at most; None for all.
        progress: called after each source with (done, total, note).
        root: the output folder that it lies in; None for the cache's own.

    Raises:
        DatasetError: not one source could be read, or the cache that is there is damaged.
    """
    made_from = [short_side, limit, *map(_described, sources)]
    root = root or OutputRoot(folder)
    below = folder.relative_to(root.path)
    if _made_from(folder) == made_from:
        return FrameCache(folder)
    clips: list[CachedClip] = []
    with (
        root.new(below / _LABELS) as label_part,
        root.new(below / _FRAMES) as frame_part,
        label_part.open("wb") as labels,
        frame_part.open("wb") as frames,
    ):
        for done, source in enumerate(sources, 1):
            note, start = "", (frames.tell(), labels.tell())
            try:
                clips.append(_append(source, frames, labels, short_side, limit))
            except (InputError, DatasetError) as error:
                note = str(error)
                for file, offset in zip((frames, labels), start, strict=True):
                    file.seek(offset)
                    file.truncate()
            progress(done, len(sources), note)
        if not clips:
            raise DatasetError(f"none of {len(sources)} sources could be read")
        root.remove(below / _INDEX)
    index = {"version": _VERSION, "made_from": made_from, "clips": [asdict(clip) for clip in clips]}
    root.write_json(below / _INDEX, index)
    return FrameCache(folder)


def _described(source: Source) -> list[Any]:
    masks = None if source.masks is None else str(source.masks.absolute())
    return [str(source.path.absolute()), source.path.stat().st_size, masks, source.still]


def _made_from(folder: Path) -> list[Any] | None:
    """What a cache says that it was made from, if there is one of this version."""
    try:
        index: _Index = read_json(folder / _INDEX, _Index)
    except (OSError, ValueError):
        return None
    return index.made_from if index.version == _VERSION else None


def _append(source: Source, frames: BinaryIO, labels: BinaryIO, short_side: int, limit: int | None) -> CachedClip:
    """Write the frames and masks of a source behind what is there."""
    start, start_labels = frames.tell(), labels.tell()
    count, size, values = 0, (0, 0), set[int]()
    side = round(short_side * STILL_SCALE) if source.still else short_side
    for frame, mask in _kept(source):
        small = _shrink(frame.image, side)
        size = (small.shape[1], small.shape[2])
        frames.write(small.permute(1, 2, 0).contiguous().numpy().tobytes())
        if mask is not None:
            pixels = _read_labels(mask, frame)
            values.update(torch.unique(pixels).tolist())
            labels.write(resize_labels(pixels, size).numpy().tobytes())
        count += 1
        if count == limit:
            break
    if count < (1 if source.still else 2):
        raise InputError(f"{shown(source.path)} has {count} frames of use: expected two at least")
    where = None if source.masks is None else start_labels
    return CachedClip(source.path.stem, start, count, *size, where, binary=VOID in values and values <= {0, VOID})


def _kept(source: Source) -> Iterator[tuple[Frame, Path | None]]:
    """Frames worth keeping, with their masks where the source has some."""
    if source.still:
        yield Frame(0, Fraction(0), read_image(source.path)[0], source.path.stem), None
        return
    due = 0.0
    with open_clip(source.path) as stream:
        for frame in stream:
            if source.masks is not None:
                mask = source.masks / f"{frame.name}.png"
                if mask.is_file():
                    yield frame, mask
            elif stream.fps is None or float(frame.time) + 1e-6 >= due:
                due = float(frame.time) + 1 / FRAME_RATE - 1e-3
                yield frame, None


def _read_labels(mask: Path, frame: Frame) -> Tensor:
    """A mask's values as they are, uint8 (H, W)."""
    pixels = torch.from_numpy(read_mask(mask).copy())
    if pixels.shape != frame.image.shape[1:]:
        found, wanted = list(pixels.shape), list(frame.image.shape[1:])
        raise InputError(f"mask {shown(mask)} has size {found}, but its frame has {wanted} (H, W)")
    return pixels


def _shrink(image: Tensor, short_side: int) -> Tensor:
    """uint8 (3, H, W) with a short side of at most so many pixels."""
    scale = min(1.0, short_side / min(image.shape[1:]))
    return resize_image(image, (round(image.shape[1] * scale), round(image.shape[2] * scale)))
