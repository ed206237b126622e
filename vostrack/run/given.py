"""Masks in files of other tools: which frames of a clip they are for, and which object is which.

`choose_masks` is `video.ranges.choose` for these too; what it gives for them is drawn with the other masks.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vostrack.errors import MaskError, counted
from vostrack.files import shown
from vostrack.formats.drawings import Drawing, Drawings, Shape, left_out, number_of, stem
from vostrack.formats.readers import read_drawings
from vostrack.notes import Code, Note
from vostrack.types import BACKGROUND, MAX_OBJECTS, VOID, LabelMap
from vostrack.video.mask_labels import listed
from vostrack.video.masks import DrawnMask, GivenMask, MaskFile
from vostrack.video.object_names import Painted, fixed_ids
from vostrack.video.ranges import GivenMasks, Range, Span, choose, two_masks
from vostrack.video.series import frame_files, natural_key

_MOST_PIXELS = 1 << 31
"""Of all masks together, which are held in memory."""

_LONGEST = 255
"""Characters of the name of a file: what others say may be longer."""


@dataclass(frozen=True)
class Known:
    """Objects that have an id before the files of other tools are read.

    Attributes:
        ids: of objects in earlier masks of a run.
        names: by id, also of objects that only other masks will show.
    """

    ids: frozenset[int] = frozenset()
    names: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def named(cls, names: Mapping[Painted, str]) -> Known:
        """What the names say that a person gives to colours and numbers."""
        colors, by_id = fixed_ids(names), dict[int, str]()
        for painted, name in names.items():
            if not isinstance(painted, str):
                by_id[colors[painted] if isinstance(painted, tuple) else painted] = name
        return cls(names=by_id)


def choose_masks(
    clip: object,
    chosen: Range | None,
    masks: GivenMasks,
    start_number: int | None = None,
    known: Known | None = None,
) -> tuple[Span, dict[int, GivenMask]]:
    """Find the frames of a run, and those that its masks are for, also those in files of other tools.

    A file of several images without a frame before it has masks for all frames that it names; with a frame, it is read
    for that frame alone. A file of one image is for its frame, or for the first of the range where none is named.

    Args:
        clip: path of the clip, or frames in memory.
        chosen: the range.
        masks: by frame or time.
        start_number: number that the results of the first frame get.
        known: objects that have an id already.

    Raises:
        InputError: see `choose`.
        MaskError: see `choose`; a file cannot be read, is of no frame or of several clips, or it does not say which
            object is which.
    """
    known = known or Known()
    given: Mapping[Any, GivenMask] = masks if isinstance(masks, Mapping) else {None: masks}
    files = {moment: file for moment, mask in given.items() if (file := _file(mask, clip)) is not None}
    bare = files.get(None)
    rest = {moment: mask for moment, mask in given.items() if moment is not None or bare is None}
    span, by_frame = choose(clip, chosen, rest, start_number)
    if not files:
        return span, by_frame
    frames, found = _Frames(clip), dict[int, tuple[Drawings, Drawing]]()
    by_mask = {id(given[moment]): file for moment, file in files.items() if moment is not None}
    parts = [(by_mask[id(mask)], frame) for frame, mask in by_frame.items() if id(mask) in by_mask]
    others = {frame: mask for frame, mask in by_frame.items() if id(mask) not in by_mask}
    for file, frame in [*parts, *([(bare, None)] if bare is not None else [])]:
        for at, drawing in (frames.bare(file, span) if frame is None else frames.named(file, frame)).items():
            if at in found or at in others:
                raise MaskError(two_masks(at, found[at][0].path if at in found else others[at], file.path))
            found[at] = file, drawing
    span.check(found)
    return span, dict(sorted((others | _drawn(found, known, bool(others), bare, frames)).items()))


def _file(mask: object, clip: object) -> Drawings | None:
    """A file of another tool, if a mask is one."""
    if not isinstance(mask, str | Path):
        return None
    frames = set[str]()
    if isinstance(clip, str | os.PathLike) and Path(mask).is_dir() and Path(clip).is_dir():
        frames = {frame.stem for frame in frame_files(Path(clip))[0]}
    return read_drawings(Path(mask), frames)


class _Frames:
    """The frames of a clip, as files name them."""

    def __init__(self, clip: object) -> None:
        self.outside = 0
        """Frames of a file that are beyond the range."""
        self._known, self._names = clip is not None, set[str]()
        self._stems: dict[str, int] = {}
        if isinstance(clip, str | os.PathLike):
            path = Path(clip)
            self._names = {path.name, path.stem}
            if path.is_dir():
                self._stems = {frame.stem: index for index, frame in enumerate(frame_files(path)[0])}

    def is_other(self, names: set[str]) -> bool:
        """Whether a file has names for its clip, and none is that of this clip."""
        return self._known and bool(names) and names.isdisjoint(self._names)

    def named(self, file: Drawings, frame: int) -> dict[int, Drawing]:
        """The drawings of a file that a frame was named with."""
        if file.begins:
            return {frame + (drawing.frame or 0): drawing for drawing in file.images if drawing.shapes}
        if len(file.images) == 1:
            return {frame: file.images[0]}
        found = self._all(file)
        if frame not in found:
            raise MaskError(f"{shown(file.path)} has no image for frame {frame}; there are frames {_numbers(found)}")
        return {frame: found[frame]}

    def bare(self, file: Drawings, span: Span) -> dict[int, Drawing]:
        """All drawings of a file that show something, for the frames of a span."""
        if len(file.images) == 1 and self._frame(file.images[0]) is None:
            return {span.first: file.images[0]}
        found = {frame: drawing for frame, drawing in self._all(file).items() if drawing.shapes}
        inside = {frame: each for frame, each in found.items() if span.first <= frame <= (span.last or frame)}
        if not inside:
            there = f"for the frames {span}; there are masks for {_numbers(found)}" if found else "in any of its images"
            raise MaskError(f"{shown(file.path)} has no mask {there}")
        self.outside = len(found) - len(inside)
        return inside

    def _all(self, file: Drawings) -> dict[int, Drawing]:
        """The drawings of a file that are of the clip, by frame."""
        found: dict[int, Drawing] = {}
        own = [image for image in file.images if image.clip in self._names] or file.images
        placed = [(self._frame(image), image) for image in own]
        if self._stems and all(frame is None for frame, _ in placed):
            placed = [(image.frame, image) for image in own]
        for frame, image in placed:
            if frame is not None and found.setdefault(frame, image) is not image:
                clips = listed([shown(name) for name in dict.fromkeys(each.clip for each in own) if name])
                which = "none is named like this one" if self._known else "which one is meant: give the clip too"
                several = f"it has several clips, {clips}, and {which}" if "," in clips else "keep one"
                two = " and ".join(shown(each.name or each.clip) for each in (found[frame], image))
                raise MaskError(f"{shown(file.path)} has two images for frame {frame}, {two}: {several}")
        if not found and not self._known:
            raise MaskError(f"{shown(file.path)} does not say which frames its images are: give the clip too")
        if not found:
            names = listed([shown(image.name) for image in own])
            like = f"such as {shown(next(iter(self._stems)))}" if self._stems else "as 00040.jpg"
            raise MaskError(
                f"{shown(file.path)} has no image of this clip: name them like its frames, {like}, or give the file of "
                f"one image as FRAME:PATH; there are {names}"
            )
        return found

    def _frame(self, image: Drawing) -> int | None:
        """The frame that an image is of, by its name, or what its file says; None where nothing tells."""
        if self._stems:
            return self._stems.get(stem(image.name))
        numbers = re.findall("[0-9]+", stem(image.name)[-_LONGEST:])
        return image.frame if image.frame is not None else int(numbers[-1]) if numbers else None


def _numbers(frames: Iterable[int]) -> str:
    return listed([str(frame) for frame in sorted(frames)])


Found = Mapping[int, tuple[Drawings, Drawing]]


def _drawn(found: Found, known: Known, others: bool, bare: Drawings | None, frames: _Frames) -> dict[int, GivenMask]:
    """The masks that are drawn later, by frame."""
    ids, notes = _ids(found, known, others)
    masks: dict[int, GivenMask] = {}
    said = set[Path]()
    for frame, (file, drawing) in sorted(found.items()):
        told = [] if file.path in said else [*_about(file, found, file is bare, frames), *notes]
        said.add(file.path)
        notes = []
        name = f"{shown(file.path.name)}, frame {frame}"
        draw = partial(_draw, drawing, ids=ids, notes=told, where=f"mask {shown(file.path)}", count=len(found))
        masks[frame] = DrawnMask(name, file.path, file.kind, drawing.size, draw)
    return masks


def _about(file: Drawings, found: Found, bare: bool, clip: _Frames) -> list[Note]:
    """What is said of a file: which frames are used, of which clip if it has another name, and what is not used."""
    own = {frame: drawing for frame, (other, drawing) in sorted(found.items()) if other is file}
    outside = clip.outside if bare else 0
    beyond = f", and {counted(outside, 'mask')} beyond the range" if outside else ""
    names = {drawing.clip for drawing in own.values() if drawing.clip}
    called = f", of a clip that it calls {listed(sorted(map(shown, names)))}" if clip.is_other(names) else ""
    notes = [Note(Code.MASK_FRAMES, f"{file.kind}; the file has masks of frames {_numbers(own)}{called}{beyond}")]
    left = sum(bool(image.shapes) for image in file.images) - len(own) - outside
    unused = left_out(max(left, 0), "image", "not all are of this clip") if bare else []
    return [*notes, *unused, *file.notes]


Identity = tuple[str, int | str | None, int]
"""What an object is told by: its name, its track, and, without one, which of the name it is in its image."""


def _identities(drawing: Drawing) -> list[Identity]:
    """Of each shape."""
    times, found = Counter[str](), list[Identity]()
    for shape in drawing.shapes:
        found.append((shape.name, shape.track, times[shape.name] if shape.track is None else 0))
        times[shape.name] += shape.track is None
    return found


def _ids(found: Found, known: Known, others: bool) -> tuple[dict[Identity, int], list[Note]]:
    """The ids of all objects, by what they are told by: those that files give, else those that are free."""
    shapes: dict[Identity, tuple[Shape, Drawings]] = {}
    everything = [shape for _, drawing in found.values() for shape in drawing.shapes]
    tracked = {shape.name for shape in everything if shape.track is not None}
    for frame, (file, drawing) in sorted(found.items()):
        for identity, shape in zip(_identities(drawing), drawing.shapes, strict=True):
            several = identity[2] > 0 or (shape.track is None and shape.name in tracked)
            if several and not shape.void and (len(found) > 1 or others or shape.name in known.names.values()):
                raise MaskError(
                    f"{shown(file.path)} shows several objects {shown(shape.name)} in frame {frame}, and does not say "
                    "which is which in other frames: give them names or ids of their own"
                )
            if not shape.void:
                shapes.setdefault(identity, (shape, file))
    ids: dict[Identity, int] = {}
    for identity, (shape, _) in shapes.items():
        number = _wanted(shape, known)
        if number is not None and number not in ids.values():
            ids[identity] = number
    new = [identity for identity in shapes if identity not in ids]
    unnamed = known.ids - set(known.names)
    if len(known.ids) == len(shapes) == len(new) == 1 and not shapes[new[0]][0].name:
        return {new[0]: min(known.ids)}, []
    if new and (others or unnamed):
        shape, file = shapes[new[0]]
        raise MaskError(
            f"{shown(file.path)} does not say which object {shown(shape.name) or shape.place} is among those of the "
            "other masks: call it object_2 there, if its id is 2, or give that object the same name"
        )
    if len(shapes) > MAX_OBJECTS:
        raise MaskError(f"there are {len(shapes)} objects, and at most {MAX_OBJECTS} can be followed: give fewer")
    taken = {*ids.values(), *known.ids, *known.names}
    new.sort(key=lambda identity: natural_key(identity[0]))  # files may draw the same objects in any order
    for identity in new:
        number = shapes[identity][0].number
        if number is not None and number not in taken and 1 <= number <= MAX_OBJECTS:
            ids[identity] = number
            taken.add(number)
    free = (number for number in range(1, VOID) if number not in taken)
    ids |= dict(zip((identity for identity in new if identity not in ids), free, strict=False))
    told = [f"{shown(shapes[identity][0].name)} = {ids[identity]}" for identity in new if shapes[identity][0].name]
    return ids, [Note(Code.MASK_IDS, f"ids were chosen: {listed(told)}")] if told else []


def _wanted(shape: Shape, known: Known) -> int | None:
    """The id that an object should get: that of its name, if one object has it, or what its file gives."""
    same = [number for number, name in known.names.items() if name == shape.name]
    if len(same) == 1:
        return same[0]
    number = shape.track if isinstance(shape.track, int) else number_of(shape.name)
    if number is None or not 1 <= number <= MAX_OBJECTS:
        return None
    is_unnamed = not shape.name or number_of(shape.name) is not None
    return number if is_unnamed or known.names.get(number, shape.name) == shape.name else None


def _draw(
    drawing: Drawing,
    clip_size: tuple[int, int],
    *,
    ids: Mapping[Identity, int],
    notes: Sequence[Note],
    where: str,
    count: int,
) -> MaskFile:
    """Draw a mask; raises `MaskError`."""
    size = drawing.size or clip_size
    if count * size[0] * size[1] > _MOST_PIXELS:
        raise MaskError(f"{where} has masks of {count} frames, which are too many: give a range, or fewer")
    pixels, covered, told, names = np.zeros(size, np.uint8), 0, [*notes], dict[int, str]()
    for identity, shape in zip(_identities(drawing), drawing.shapes, strict=True):
        try:
            mask = shape.draw(size)
        except ValueError as error:
            image = f", image {shown(drawing.name)}" if drawing.name else ""
            raise MaskError(f"{where}{image}: {shown(shape.place)} {error}: mend it or leave it out") from error
        if shape.void:
            pixels[mask & (pixels == BACKGROUND)] = VOID
            continue
        number = ids[identity]
        if not mask.any():
            told.append(Note(Code.MASK_EMPTY, f"{shown(shape.place)} covers no pixel"))
        covered += int((mask & ~np.isin(pixels, (BACKGROUND, VOID, number))).sum())
        pixels[mask] = number
        if shape.name and number_of(shape.name) != number:
            names[number] = shape.name
    if covered:
        told.append(Note(Code.MASK_OVERLAP, f"{covered} pixels belong to several objects; the later one has them"))
    there = tuple(int(number) for number in np.unique(pixels) if number not in (BACKGROUND, VOID))
    return MaskFile(
        LabelMap(torch.from_numpy(pixels), there), tuple(told), names={n: names[n] for n in there if n in names}
    )
