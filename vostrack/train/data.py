"""Raw footage as a memory-mapped cache of small frames, and random clips drawn from it.

Decoding video is far slower than training on it, so every source is decoded once, scaled to a short side, thinned to a
frame rate and appended to one file of raw uint8 that the operating system pages in and out. Knows nothing of models or
losses: `draw_clips` gives float clips in [0, 1], all frames of a clip cut by the same window.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.errors import DatasetError, InputError
from vostrack.files import atomic_path, make_folder, write_json
from vostrack.methods.base import ClipSpec
from vostrack.video.reader import open_clip

FRAME_RATE = 10
"""Frames a second that are kept: neighbours still overlap, and a clip is not thirty near-copies a second."""

_VERSION = 1
_MIN_FRAMES = 2


@dataclass(frozen=True)
class CachedClip:
    """Where a clip lies in the cache: `count` frames of (height, width, 3) bytes from `offset` on."""

    name: str
    offset: int
    count: int
    height: int
    width: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.count * self.height * self.width * 3


class FrameCache:
    """Clips in one memory-mapped file; made by `build_cache`, read by `draw_clips`."""

    def __init__(self, folder: Path) -> None:
        """Open a finished cache.

        Args:
            folder: where `build_cache` wrote it.

        Raises:
            DatasetError: the folder holds no complete cache of this version.
        """
        try:
            index = json.loads((folder / "index.json").read_text())
            self.made_from = index.get("made_from")
            self.clips = [CachedClip(**clip) for clip in index["clips"]]
            self._bytes = np.memmap(folder / "frames.u8", dtype=np.uint8, mode="r")
            complete = index["version"] == _VERSION and self._bytes.size == sum(clip.nbytes for clip in self.clips)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{folder} is not a frame cache ({error}): delete it to build it again") from error
        if not complete or not self.clips:
            raise DatasetError(f"the frame cache {folder} is damaged: delete it to build it again")

    def frames(self, clip: CachedClip, indices: Sequence[int]) -> Tensor:
        """Frames of a clip, uint8 (T, 3, H, W)."""
        shape = (clip.count, clip.height, clip.width, 3)
        pixels = self._bytes[clip.offset : clip.offset + clip.nbytes].reshape(shape)[list(indices)]
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def draw_clips(
    cache: FrameCache, spec: ClipSpec, count: int, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Draw random clips.

    Args:
        cache: where from.
        spec: length, spacing and crop of a clip.
        count: clips in the batch (B).
        generator: source of all randomness, on the CPU.
        device: where the crops are resized and returned.

    Returns:
        float32 (B, T, 3, crop, crop) in [0, 1]; frames of a clip in order of time, flipped together half of the time.
    """
    clips = [_draw(cache, spec, generator, device) for _ in range(count)]
    return torch.stack(clips)


def _draw(cache: FrameCache, spec: ClipSpec, generator: torch.Generator, device: torch.device) -> Tensor:
    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    clip = cache.clips[int(torch.randint(len(cache.clips), (), generator=generator))]
    frames = cache.frames(clip, _pick(clip.count, spec, generator))
    short = min(clip.height, clip.width)
    side = max(8, round(short * uniform(*spec.scale)))
    top = round(uniform(0, clip.height - side))
    left = round(uniform(0, clip.width - side))
    crop = frames[:, :, top : top + side, left : left + side].to(device).float() / 255
    crop = F.interpolate(crop, (spec.crop, spec.crop), mode="bilinear", align_corners=False, antialias=True)
    return crop.flip(-1) if uniform(0, 1) < 0.5 else crop


def _pick(count: int, spec: ClipSpec, generator: torch.Generator) -> list[int]:
    """Frame indices in order of time, at random distances up to `gap`; a clip that is too short repeats frames."""
    steps = torch.randint(1, spec.gap + 1, (spec.frames - 1,), generator=generator)
    offsets = [0, *torch.cumsum(steps, 0).tolist()]
    if offsets[-1] >= count:
        offsets = [offset * (count - 1) // max(offsets[-1], 1) for offset in offsets]
    start = int(torch.randint(count - offsets[-1], (), generator=generator))
    return [start + offset for offset in offsets]


def find_sources(roots: Sequence[Path]) -> list[Path]:
    """Videos and folders of images below some folders, in order of name.

    Raises:
        DatasetError: a folder does not exist, or nothing that looks like footage is in it.
    """
    sources: list[Path] = []
    for root in roots:
        if not root.is_dir():
            raise DatasetError(f"there is no folder {root}: give --data the folder that holds your clips")
        sources += sorted(_walk(root))
    if not sources:
        raise DatasetError(f"no videos and no folders of images in {', '.join(map(str, roots))}")
    return sources


_VIDEOS = {
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".gif",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".wmv",
    ".flv",
    ".3gp",
}
_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        endings = [Path(name).suffix.lower() for name in files if not name.startswith(".")]
        if sum(ending in _IMAGES for ending in endings) >= _MIN_FRAMES:
            yield Path(folder)
        for name in files:
            if Path(name).suffix.lower() in _VIDEOS and not name.startswith("."):
                yield Path(folder) / name


def build_cache(
    sources: Sequence[Path],
    folder: Path,
    short_side: int = 224,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> FrameCache:
    """Decode sources into a cache, or open the one that is there.

    The frames are written under a temporary name; the index, written last, makes the cache valid and names the sources:
    for other sources it is built again. Sources that cannot be read are left out and reported through `progress`.

    Args:
        sources: videos and folders of images.
        folder: where the cache lies or will lie.
        short_side: short side of the kept frames, in pixels; smaller sources keep their size.
        progress: called after each source with (done, total, note).

    Raises:
        DatasetError: not one source could be read.
    """
    made_from = [short_side, *([str(path.absolute()), path.stat().st_size] for path in sources)]
    if (folder / "index.json").exists():
        cache = FrameCache(folder)
        if cache.made_from == made_from:
            return cache
    make_folder(folder)
    clips: list[CachedClip] = []
    with atomic_path(folder / "frames.u8") as part, part.open("wb") as file:
        for done, source in enumerate(sources, 1):
            note = ""
            start = file.tell()
            try:
                clip = _append(source, file.write, start, short_side)
            except InputError as error:
                clip, note = None, str(error)
            if clip is None:
                file.seek(start)
                file.truncate()
            else:
                clips.append(clip)
            progress(done, len(sources), note)
        if not clips:
            raise DatasetError(f"none of {len(sources)} sources could be read")
        (folder / "index.json").unlink(missing_ok=True)
    index = {"version": _VERSION, "made_from": made_from, "clips": [asdict(clip) for clip in clips]}
    write_json(folder / "index.json", index)
    return FrameCache(folder)


def _append(source: Path, write: Callable[[bytes], int], offset: int, short_side: int) -> CachedClip | None:
    count, size, due = 0, (0, 0), 0.0
    with open_clip(source) as stream:
        for frame in stream:
            if stream.fps is not None and float(frame.time) + 1e-6 < due:
                continue
            due = float(frame.time) + 1 / FRAME_RATE - 1e-3
            small = _shrink(frame.image, short_side)
            size = (small.shape[1], small.shape[2])
            write(small.permute(1, 2, 0).contiguous().numpy().tobytes())
            count += 1
    if count < _MIN_FRAMES:
        return None
    return CachedClip(source.stem, offset, count, *size)


def _shrink(image: Tensor, short_side: int) -> Tensor:
    scale = short_side / min(image.shape[1:])
    if scale >= 1:
        return image
    size = [round(side * scale) for side in image.shape[1:]]
    small = F.interpolate(image[None].float(), size, mode="bilinear", align_corners=False, antialias=True)
    return small[0].round().clamp(0, 255).byte()
