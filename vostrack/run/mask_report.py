"""What is in a file of masks, and what a run would make of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vostrack.errors import InputError, MaskError
from vostrack.files import make_folder, shown, write_bytes
from vostrack.formats.base import png
from vostrack.formats.staged import staged
from vostrack.notes import by_severity
from vostrack.propagate import check_prompts
from vostrack.run.given import Known, choose_masks
from vostrack.run.inspection import check_output, read_frames
from vostrack.types import VOID, LabelMap
from vostrack.video.drawing import Painter, Pixels
from vostrack.video.ground import Reading
from vostrack.video.images import image_size
from vostrack.video.look import Look
from vostrack.video.masks import DrawnMask, GivenMask, Prompts, read_prompts
from vostrack.video.object_names import Painted, checked_names
from vostrack.video.palette import palette_image
from vostrack.video.ranges import GivenMasks
from vostrack.video.reader import open_clip

_GREY = 96
_MOST_TILES, _WIDTH = 9, 1920


@dataclass(frozen=True)
class MaskReport:
    """What is made of masks.

    Attributes:
        kind: what the file is, in words.
        size: (H, W) of the clip, or of the masks where none was named.
        given: the masks, with ids, names and colours of objects.
    """

    kind: str
    size: tuple[int, int]
    given: Prompts

    def record(self) -> dict[str, Any]:
        """All of it as JSON: `kind`, `size`, `objects`, `frames`, `empty`, `warnings` and `notes`."""
        given, area = self.given, self.size[0] * self.size[1]
        frames = []
        for frame, labels in given.labels.items():
            counts = torch.bincount(labels.pixels.flatten(), minlength=VOID + 1).tolist()
            objects = {str(n): {"pixels": counts[n], "share": counts[n] / area} for n in labels.ids}
            frames.append({"frame": frame, "objects": objects, "void": counts[VOID] / area})
        return {
            "kind": self.kind,
            "size": list(self.size),
            "objects": {
                str(number): {"name": given.names.get(number), "color": _hex(given.colors.get(number))}
                for number in sorted({number for labels in given.labels.values() for number in labels.ids})
            },
            "frames": frames,
            "empty": given.empty,
            **by_severity(given.notes),
        }

    def preview(self, clip: str | os.PathLike[str] | None = None) -> Pixels:
        """Draw the masks over their frames, or over grey without a clip; at most nine, side by side.

        Returns:
            uint8 (H, W, 3).

        Raises:
            InputError: the clip has no such frame.
        """
        given = self.given
        frames = list(given.labels)
        wanted = [frames[index] for index in _spread(len(frames), _MOST_TILES)]
        grey = torch.full((3, *self.size), _GREY, dtype=torch.uint8)
        images = [grey for _ in wanted] if clip is None else read_frames(Path(clip), wanted)
        painter = Painter(Look(labels=True, colors=given.colors, names=given.names))
        pictures = [
            painter.draw(image, given.labels[frame].pixels.numpy(), frame)
            for image, frame in zip(images, wanted, strict=True)
        ]
        return _tiled(pictures)


def check_mask(
    masks: GivenMasks,
    clip: str | os.PathLike[str] | None = None,
    *,
    names: Mapping[Painted, str] | None = None,
    reading: Reading | None = None,
) -> MaskReport:
    """Read masks as a run would, also those in files of other tools.

    Args:
        masks: as for `vostrack.segment`.
        clip: a video file or a folder of images; without one, masks are read at their own size.
        names: of objects, by what they are painted in.
        reading: how masks are read.

    Raises:
        InputError: the clip cannot be read.
        MaskError: a mask cannot be used, or not with this clip.
    """
    named, reading = checked_names(names or {}), reading or Reading()
    _, chosen = choose_masks(clip, None, masks, known=Known.named(named))
    if not chosen:
        raise MaskError("no mask was given: at least one frame needs one")
    kind = ", ".join(dict.fromkeys(map(_kind, chosen.values())))
    if clip is None:
        size = _own_size(next(iter(chosen.values())))
        return MaskReport(kind, size, read_prompts(chosen, size, reading, names=named))
    with open_clip(clip) as stream:
        given = read_prompts(chosen, stream.size, reading, stream.stored_size, names=named)
        check_prompts(given.labels, stream.count)
        return MaskReport(kind, stream.size, given)


def write_masks(
    given: Prompts, out: Path, overwrite: bool = False, inputs: Sequence[Path] = (), names: Sequence[str] = ()
) -> list[Path]:
    """Write masks as palette PNGs, whose values are ids: one file, or a folder of `00040.png` for frame 40.

    Args:
        given: the masks.
        out: a name with `.png` for the mask of one frame; else a folder.
        overwrite: whether what an earlier call wrote is replaced.
        inputs: files that are never replaced.
        names: of the images of a clip, in order: masks in a folder are named like them.

    Returns:
        What was written.

    Raises:
        MaskError: a name with `.png`, and masks of several frames.
        OutputError: it cannot be written, or something is there.
    """
    if out.suffix.lower() != ".png":
        files = {frame: f"{Path(names[frame]).stem if names else f'{frame:05d}'}.png" for frame in given.labels}
        with staged(out, True, {}, overwrite=overwrite) as stage:
            for frame, labels in given.labels.items():
                write_bytes(stage.path / files[frame], _png(labels))
        return [out / name for name in files.values()]
    if len(given.labels) > 1:
        frames = f"there are masks of {len(given.labels)} frames"
        raise MaskError(f"{frames}: give a folder as `out`, such as {shown(out.stem)}")
    make_folder(out.parent)
    check_output(out, inputs, overwrite)
    (labels,) = given.labels.values()
    write_bytes(out, _png(labels))
    return [out]


def _png(labels: LabelMap) -> bytes:
    return png(palette_image(labels.pixels.numpy()))


def _kind(mask: GivenMask) -> str:
    if isinstance(mask, DrawnMask):
        return mask.kind
    if isinstance(mask, str | Path):
        return "a folder of images, an object each" if Path(mask).is_dir() else "an image"
    return type(mask).__name__


def _own_size(mask: GivenMask) -> tuple[int, int]:
    """Size (H, W) of a mask; raises `MaskError` where it has none."""
    if isinstance(mask, DrawnMask) and mask.size is not None:
        return mask.size
    if isinstance(mask, str | Path):
        path = Path(mask)
        files = sorted(each for each in path.iterdir() if not each.name.startswith(".")) if path.is_dir() else [path]
        try:
            return image_size(files[0])
        except (InputError, IndexError):
            return 1, 1  # the reader of masks says what is wrong
    name = shown(mask.path.name) if isinstance(mask, DrawnMask) else "the mask"
    raise MaskError(f"the size of {name} is not known without its clip: give the clip too")


def _hex(color: tuple[int, int, int] | None) -> str | None:
    return None if color is None else "#{:02x}{:02x}{:02x}".format(*color)


def _spread(count: int, most: int) -> list[int]:
    """At most so many of the first numbers, spread over all."""
    if count <= most:
        return [*range(count)]
    return [round(step * (count - 1) / (most - 1)) for step in range(most)]


def _tiled(pictures: list[Pixels]) -> Pixels:
    """Pictures of one size side by side in rows, made smaller where there are several."""
    columns = int(np.ceil(np.sqrt(len(pictures))))
    if columns == 1:
        return pictures[0]
    height, width = pictures[0].shape[:2]
    scale = min(1.0, _WIDTH / (columns * width))
    side = max(1, round(width * scale)), max(1, round(height * scale))
    small = [np.asarray(Image.fromarray(picture).resize(side, Image.Resampling.LANCZOS)) for picture in pictures]
    small += [np.full_like(small[0], _GREY)] * (-len(small) % columns)
    return np.concatenate([np.concatenate(small[at : at + columns], 1) for at in range(0, len(small), columns)])
