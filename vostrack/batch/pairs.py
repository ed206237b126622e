"""Which mask belongs to which clip, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vostrack.batch.manifest import HIDDEN
from vostrack.errors import InputError
from vostrack.files import shown
from vostrack.notes import Code, Note
from vostrack.run.place import clip_name
from vostrack.video.series import ENDINGS, VIDEO_ENDINGS, natural_key

_ADDED, _MOST_NAMED = ("_first", "_mask"), 20


@dataclass(frozen=True)
class Pairs:
    """Clips and their masks.

    Attributes:
        rows: of a plan, one for each clip; where the mask is not clear, that cell is empty.
        unclear: a line for each clip that has no mask, or several.
        unused: masks of no clip.
    """

    rows: list[dict[str, str | list[str]]]
    unclear: list[str]
    unused: list[Path]

    def notes(self) -> list[Note]:
        """What a plan made of them lacks, and which masks are in none; of many things the first are named."""
        lines, more = self.unclear[:_MOST_NAMED], len(self.unclear) - _MOST_NAMED
        lines += [f"the masks of {more} more are not clear either"] if more > 0 else []
        return [*(Note(Code.BATCH_UNPAIRED, line) for line in lines), *self.unused_notes()]

    def unused_notes(self) -> list[Note]:
        """Which masks belong to no clip; none, where one clip alone was asked for."""
        if not self.unused or len(self.rows) == 1:
            return []
        names, more = ", ".join(shown(path.name) for path in self.unused[:_MOST_NAMED]), len(self.unused) - _MOST_NAMED
        belong = "1 mask belongs" if len(self.unused) == 1 else f"{len(self.unused)} masks belong"
        return [Note(Code.BATCH_UNPAIRED, f"{belong} to no clip: {names}{f' and {more} more' if more > 0 else ''}")]


def clips_in(folder: Path) -> list[Path]:
    """Videos, and folders of images, in a folder, in natural order.

    Raises:
        InputError: there are none, or the folder cannot be read.
    """
    try:
        clips = [path for path in folder.iterdir() if path.suffix.lower() in VIDEO_ENDINGS or _has_images(path)]
    except OSError as error:
        raise InputError(f"cannot read the folder of clips {shown(folder)!r}: {error.strerror}") from error
    if not clips:
        raise InputError(
            f"there is no video and no folder of images in {shown(folder)!r}: name the folder of the clips"
        )
    return sorted(clips, key=lambda path: natural_key(path.name))


def paired(clips: Sequence[Path], masks: Path) -> Pairs:
    """Each clip with its mask, `dog.mp4` with `dog.png`, `dog/00000.png` or `dog_first.png`.

    Files in a folder that are named by numbers alone are masks of these frames; other folders are masks themselves,
    with a file for each object. Two clips of one name get folders with that of theirs before it.

    Args:
        clips: videos and folders.
        masks: the folder with their masks.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        files = [path for path in masks.iterdir() if not path.name.startswith(".")]
        there = sorted(path for path in files if not (path / HIDDEN).is_dir())  # results of a batch are no masks
    except OSError as error:
        raise InputError(f"cannot read the folder of masks {shown(masks)!r}: {error.strerror}") from error
    known: dict[str, list[Path]] = {}
    for path in there:
        stem = path.name if path.is_dir() else path.stem
        for name in {stem, *(stem.removesuffix(added) for added in _ADDED)}:
            known.setdefault(name, []).append(path)
    names = [clip_name(clip) for clip in clips]
    rows, unclear = list[dict[str, str | list[str]]](), list[str]()
    for clip, name in zip(clips, names, strict=True):
        found = known.get(name, [])
        row: dict[str, str | list[str]] = {"clip": str(clip), "mask": _cell(found[0]) if len(found) == 1 else ""}
        if len(found) != 1:
            several = f"several masks ({', '.join(shown(each.name) for each in found)})" if found else ""
            what = f"{several or 'no mask'} in {shown(masks)}"
            unclear.append(f"{shown(clip)} has {what}: {'keep one' if found else f'name it {shown(name)}.png'}")
        if names.count(name) > 1:
            alike = [other for other in clips if (other.parent, clip_name(other)) == (clip.parent, name)]
            row["out"] = f"{clip.parent.name}/{name if len(alike) == 1 else clip.name}"
        rows.append(row)
    used = {path for name in names for path in known.get(name, ())}
    return Pairs(rows, unclear, [path for path in there if path not in used])


def _cell(mask: Path) -> str | list[str]:
    images = _images(mask) if mask.is_dir() else []
    if images and all(re.fullmatch("[0-9]{1,9}", path.stem) for path in images):
        return [f"{int(path.stem)}:{path}" for path in images]
    return str(mask)


def _has_images(path: Path) -> bool:
    return path.is_dir() and bool(_images(path))


def _images(folder: Path) -> list[Path]:
    files: Iterable[Path] = folder.iterdir()
    return sorted((each for each in files if each.suffix.lower() in ENDINGS), key=lambda each: natural_key(each.name))
