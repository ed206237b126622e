"""Footage as a memory-mapped cache of small frames, with the masks of those that have some.

Decoding video is far slower than training on it, so every source is decoded once, scaled to a short side, thinned to a
frame rate and appended to one file of raw uint8 that the operating system pages in and out, or that is held on the
device whole. Knows nothing of models, losses or random numbers.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from vostrack.benchmark.datasets.mask_folders import read_mask
from vostrack.errors import DatasetError, InputError, counted, damage_as
from vostrack.files import OutputRoot, lock_folder, output_error, plain, read_json, shown
from vostrack.notes import Code, Note
from vostrack.ops.grid import resize_image
from vostrack.ops.labels import resize_labels
from vostrack.run.callbacks import Callbacks
from vostrack.train.data.footage import Source
from vostrack.train.data.thinning import SHORT_SIDE, estimated, kept, small_size
from vostrack.types import VOID, Frame

_VERSION = 3
_INDEX, _FRAMES, _LABELS = "index.json", "frames.u8", "labels.u8"
_ALL = slice(None)
_SAVED_EVERY = 10.0
"""Seconds from one writing of the index to the next: what a kill can cost."""

_ROOM = 0.95
"""Share of the allowed size that is planned with: an estimate is not exact."""


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


@dataclass
class _Index:
    """What a cache holds, and how far its sources are decoded.

    Attributes:
        version: of the format.
        made_from: short side, frames of a clip at most, and the sources.
        most: bytes that it may have.
        share: of the frames of each clip that is kept.
        done: sources that were decoded or left out.
        cut: whether decoding ended early, at the size or the time that was allowed.
        clips: one behind the other.
    """

    version: int
    made_from: list[Any]
    most: int
    share: float = 1.0
    done: int = 0
    cut: bool = False
    clips: list[CachedClip] = field(default_factory=list)

    @property
    def ends(self) -> tuple[int, int]:
        """Bytes of all frames, and of all labels."""
        labelled = sum(clip.pixels for clip in self.clips if clip.labels is not None)
        return 3 * sum(clip.pixels for clip in self.clips), labelled

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to decode."""
        return bool(self.clips) and (self.cut or self.done == len(self.made_from) - 2)

    def is_of(self, made_from: list[Any], most: int) -> bool:
        """Whether it is what would be made of some sources."""
        fits = self.share == 1 and not self.cut and sum(self.ends) <= most
        return self.made_from == made_from and (self.most == most or fits)

    def is_sound(self, folder: Path) -> bool:
        """Whether all clips lie within the files."""
        frames, labels = self.ends
        return (
            (_bytes_of(folder / _FRAMES) or 0) >= frames
            and (_bytes_of(folder / _LABELS) or 0) >= labels
            and min(self.done, *(min(clip.count, clip.height, clip.width) for clip in self.clips)) > 0
            and all(0 <= clip.offset <= frames - 3 * clip.pixels for clip in self.clips)
            and all(0 <= x.labels <= labels - x.pixels for x in self.clips if x.labels is not None)
        )


class FrameCache:
    """Clips in memory-mapped files; made by `build_cache`."""

    def __init__(self, folder: Path) -> None:
        """Open a finished cache.

        Args:
            folder: where `build_cache` wrote it.

        Raises:
            DatasetError: the folder holds no complete cache of this version, or cannot be read.
        """
        index = _index(folder)
        if index is None or not index.is_finished or not index.is_sound(folder):
            raise DatasetError(
                f"{shown(folder)} is not a frame cache, or a damaged or unfinished one: delete it to build it again"
            )
        self.clips, names = index.clips, (_FRAMES, _LABELS)
        self._frames, self._labels = (_mapped(folder / x, size) for x, size in zip(names, index.ends, strict=True))

    @property
    def size(self) -> int:
        """Bytes of all frames and labels."""
        return self._frames.numel() + self._labels.numel()

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
    fix = "check the disk, and try again"
    with damage_as(lambda error: DatasetError(f"{shown(path)} cannot be read ({shown(error)}): {fix}")):
        return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)


def build_cache(
    sources: Sequence[Source],
    folder: Path,
    short_side: int = SHORT_SIDE,
    limit: int | None = None,
    most: int = 1 << 62,
    until: float = float("inf"),
    callbacks: Callbacks | None = None,
) -> FrameCache:
    """Decode sources into a cache, under a lock of its folder, or open the one that is there.

    Frames are appended to a file, and the index says which of them count: where a kill ended the decoding, it goes on.
    For other sources it begins anew. Of clips with masks, the frames that have one are kept, of others as many a second
    as `thinning.FRAME_RATE` says, or all where the source says so. Sources that cannot be read are left out and named
    in a note.

    Args:
        sources: from `footage`.
        folder: where the cache lies or will lie.
        short_side: of the kept frames, in pixels, for stills times `STILL_SCALE`; smaller sources keep their size.
        limit: frames of a clip that are kept at most; None for all.
        most: bytes that the cache may have; fewer frames are kept of each clip where it would have more.
        until: of `time.monotonic`, when decoding ends with what is there.
        callbacks: are told how much it becomes, what is left out, and how many sources are done.

    Raises:
        DatasetError: not one source could be read in the time and the size, or the cache that is there is damaged.
        OutputError: it cannot be written, is in use, or there is less space than it will take.
    """
    callbacks = callbacks or Callbacks()
    made_from = plain([short_side, limit, *map(_described, sources)])

    def found() -> _Index | None:
        index = _index(folder)
        return index if index is not None and index.is_of(made_from, most) else None

    index = found()
    if index is None or not index.is_finished:
        with lock_folder(folder):
            index = found() or _Index(_VERSION, made_from, most)  # again: it may have been built meanwhile
            if not index.is_finished:
                _decode(sources, folder, index, until, callbacks)
    if index.cut:
        text = (
            f"{len(index.clips)} of {counted(len(sources), 'clip')} are in {shown(folder)}: the time for decoding was "
            "over, or `cache_size` reached; delete it to decode again"
        )
        callbacks.note(Note(Code.FOOTAGE_INCOMPLETE, text))
    return FrameCache(folder)


def _index(folder: Path) -> _Index | None:
    """The index of a cache, if there is one of this version."""
    try:
        index: _Index = read_json(folder / _INDEX, _Index)
    except (OSError, ValueError):
        return None
    return index if index.version == _VERSION else None


def _described(source: Source) -> list[Any]:
    masks = None if source.masks is None else str(source.masks.absolute())
    kept = ["all frames"] if source.all_frames else []
    return [str(source.path.absolute()), _bytes_of(source.path), masks, source.still, *kept]


def _bytes_of(path: Path) -> int | None:
    """Size of a file; None where it cannot be had, as of a link that leads nowhere."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _decode(sources: Sequence[Source], folder: Path, index: _Index, until: float, callbacks: Callbacks) -> None:
    """Decode what is left, behind what is there."""
    root = OutputRoot(folder)
    index.cut = False
    if not index.clips or not index.is_sound(folder):
        index.done, index.clips = 0, []
        for name in (_INDEX, _FRAMES, _LABELS):  # deleted, not emptied: others may train on them
            root.remove(name)
    limits = _planned(sources, folder, index, callbacks)
    try:
        with root.at(_FRAMES).open("ab") as frames, root.at(_LABELS).open("ab") as labels:
            decoder = _Decoder(frames, labels, index, until)
            try:
                saved = time.monotonic()
                while index.done < len(sources) and not index.cut:
                    problem = decoder.append(sources[index.done], limits[index.done])
                    if problem and not index.cut:
                        callbacks.note(Note(Code.FOOTAGE_LEFT_OUT, f"left out: {problem}"))
                    index.done += 1
                    callbacks.progress(index.done, len(sources))
                    if time.monotonic() - saved > _SAVED_EVERY:
                        decoder.save(root)
                        saved = time.monotonic()
            finally:
                decoder.save(root)
    except OSError as error:
        raise output_error(error, folder / _FRAMES) from error
    if not index.clips:
        why = " in the time and the size that they may take" if index.cut else ""
        raise DatasetError(f"none of {counted(len(sources), 'source')} could be read{why}")


def _planned(sources: Sequence[Source], folder: Path, index: _Index, callbacks: Callbacks) -> list[int | None]:
    """How many frames are kept of each source; says how much they take, and checks that the disk has room."""
    short_side, limit = index.made_from[:2]
    estimates = [estimated(source, short_side) for source in sources]
    estimates = [(frames if limit is None else min(frames, limit), each) for frames, each in estimates]
    whole = sum(frames * each for frames, each in estimates)
    index.share = 1.0 if whole <= index.most else _ROOM * index.most / whole
    limits = [max(2, int(frames * index.share)) if index.share < 1 and frames else limit for frames, _ in estimates]
    rest = list(zip(estimates, limits, strict=True))[index.done :]
    size = sum(each * min(frames, most or frames) for (frames, each), most in rest)
    text = f"decoding {counted(len(rest), 'clip')}: about {_megabytes(size)} in {shown(folder)}"
    callbacks.note(Note(Code.FOOTAGE_SIZE, text))
    if index.share < 1:
        text = (
            f"all frames would take about {_megabytes(whole)}: the first {index.share:.0%} of each clip are kept; "
            "`cache_size` allows more"
        )
        callbacks.note(Note(Code.FOOTAGE_SHORTENED, text))
    if shutil.disk_usage(folder).free < size:
        raise output_error(OSError(errno.ENOSPC, ""), folder / _FRAMES, size)
    return limits


def _megabytes(size: int) -> str:
    return f"{max(1, round(size / 1e6)):,} MB"


class _Decoder:
    """Appends the frames and masks of sources to the files of a cache, and its index."""

    def __init__(self, frames: BinaryIO, labels: BinaryIO, index: _Index, until: float) -> None:
        self._files, self._index, self._until = (frames, labels), index, until
        self._drop()

    def _drop(self) -> None:
        """Take back what does not count."""
        for file, end in zip(self._files, self._index.ends, strict=True):
            file.truncate(end)
            file.seek(end)

    def append(self, source: Source, limit: int | None) -> str:
        """Append a source, up to where time or size end; says why it is left out, if it is."""
        try:
            self._index.clips.append(self._appended(source, limit))
        except (InputError, DatasetError) as error:
            self._drop()
            return str(error)
        return ""

    def save(self, root: OutputRoot) -> None:
        """Write the index, once the frames that it speaks of are on the disk."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        root.write_json(_INDEX, asdict(self._index))

    def _appended(self, source: Source, limit: int | None) -> CachedClip:
        (start, start_labels), (frames, labels), index = self._index.ends, self._files, self._index
        count, size, values = 0, (0, 0), set[int]()
        for frame, mask in islice(kept(source), limit):
            size = small_size(source, frame.image.shape[1:], index.made_from[0])
            full = frames.tell() + labels.tell() + (3 if mask is None else 4) * size[0] * size[1] > index.most
            if full or time.monotonic() >= self._until:
                index.cut = True
                break
            small = resize_image(frame.image, size)
            frames.write(small.permute(1, 2, 0).contiguous().numpy().tobytes())
            if mask is not None:
                pixels = _read_labels(mask, frame)
                values.update(torch.unique(pixels).tolist())
                labels.write(resize_labels(pixels, size).numpy().tobytes())
            count += 1
        if count < (1 if source.still else 2):
            raise InputError(f"{shown(source.path)} has {counted(count, 'frame')} of use: expected two at least")
        where = None if source.masks is None else start_labels
        return CachedClip(source.path.stem, start, count, *size, where, binary=VOID in values and values <= {0, VOID})


def _read_labels(mask: Path, frame: Frame) -> Tensor:
    """A mask's values as they are, uint8 (H, W)."""
    pixels = torch.from_numpy(read_mask(mask).copy())
    if pixels.shape != frame.image.shape[1:]:
        found, wanted = list(pixels.shape), list(frame.image.shape[1:])
        raise InputError(f"mask {shown(mask)} has size {found}, but its frame has {wanted} (H, W)")
    return pixels
