"""What a sequence of a dataset is: frames, the masks that are given, the masks to be found, and the frames that count.

Builds sequences from the files in a dataset's folders, one function a protocol. Knows nothing of particular datasets,
methods or scores. A mask is a tuple of files: one label map, or one black and white image for each object (SegTrack).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from vostrack.benchmark.datasets.mask_folders import Labels, frame_order, list_folder, list_frames, named, read_mask
from vostrack.benchmark.metrics import is_binary, object_labels
from vostrack.errors import DatasetError
from vostrack.files import shown

Files = tuple[Path, ...]
Masks = Literal["labels", "binary", "grey"]
"""What values of masks mean: ids, with 255 as void; 0 and 255 alone, object 1; the brighter half is an object."""

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm")


@dataclass(frozen=True, slots=True)
class Part:
    """Frames that are followed from given masks on, without knowledge of any other frames.

    Attributes:
        frames: their names, in order; None for all of the source.
        prompts: given masks by frame. An object is given once, where it first appears.
        written: frames whose masks are results; None for all.
    """

    frames: tuple[str, ...] | None
    prompts: Mapping[str, Files]
    written: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence of a dataset.

    Attributes:
        source: folder of images, or a video.
        parts: most often one; see `Part`.
        truths: true masks by frame; none where a server keeps them.
        scored: frames that count, in order; an object counts only after the frame where it is given.
        attributes: what the dataset says about it, such as "fast motion".
        masks: what their values mean.
        ends: by object the frame from which it does not count any more, where the dataset says so.
        ignore_void: void pixels of a truth count neither as hit nor as miss; else they are background.
    """

    name: str
    source: Path
    parts: tuple[Part, ...]
    truths: Mapping[str, Files]
    scored: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    masks: Masks = "labels"
    ends: Mapping[int, str] = field(default_factory=dict)
    ignore_void: bool = False


@dataclass(frozen=True, slots=True)
class SequenceFiles:
    """Files of a sequence: frames by name in order (None in a video), and masks by name of the frame."""

    name: str
    source: Path
    frames: tuple[str, ...] | None
    masks: Mapping[str, Files]

    def sequence(self, parts: tuple[Part, ...], scored: tuple[str, ...]) -> Sequence:
        """The sequence of these parts and scored frames."""
        return Sequence(self.name, self.source, parts, {frame: self.masks[frame] for frame in scored}, scored)

    def require_masks(self, frames: Iterable[str]) -> None:
        """Raise `DatasetError` with the first of the frames that has no mask."""
        require(self.name, "mask of frame", frames, self.masks, next(iter(self.masks.values()))[0].parent)


def find_files(name: str, images: Path, masks: Path) -> SequenceFiles:
    """Look for the frames and masks of a sequence.

    Args:
        name: of the sequence.
        images: folder that holds its folder of images, or its video.
        masks: folder that holds its folder of masks, in which each object may have a folder of its own.

    Raises:
        DatasetError: there are no frames or no masks, or a mask is of a frame that is not there.
    """
    source, folder = find_source(name, images), masks / name
    if source is None:
        raise DatasetError(f"sequence {shown(name)}: no folder of frames {shown(images / name)}")
    objects = [child for child in list_folder(folder) if child.isdecimal() and (folder / child).is_dir()]
    paths = [folder / child for child in sorted(objects, key=int)] or [folder]
    names = list(dict.fromkeys(Path(file).stem for path in paths for file in list_frames(path)))
    if not names:
        raise DatasetError(f"sequence {shown(name)}: no PNG masks in {shown(folder)}")
    found = {frame: tuple(path / f"{frame}.png" for path in paths) for frame in sorted(names, key=frame_order)}
    if not source.is_dir():
        if wrong := [frame for frame in found if not frame.isdecimal()]:
            raise DatasetError(
                f"sequence {shown(name)}: masks of a video are named by frame, 00000.png, not {shown(wrong[0])}"
            )
        return SequenceFiles(name, source, None, {f"{int(frame):05d}": files for frame, files in found.items()})
    stems = [Path(file).stem for file in list_folder(source) if file.lower().endswith(IMAGES)]
    require(name, "frame", found, stems, source)
    return SequenceFiles(name, source, tuple(sorted(stems, key=frame_order)), found)


def find_source(name: str, images: Path) -> Path | None:
    """A sequence's folder of images, or its video; None where there is neither."""
    videos = (images / f"{name}{ending}" for ending in VIDEOS)
    return images / name if (images / name).is_dir() else next(filter(Path.is_file, videos), None)


def require(sequence: str, what: str, wanted: Iterable[str], there: Iterable[str], folder: Path) -> None:
    """Raise `DatasetError` with the first of what is wanted and is not there."""
    present = dict.fromkeys(there)
    if missing := [name for name in wanted if name not in present]:
        held = named(list(present), 3) or "none"
        raise DatasetError(
            f"sequence {shown(sequence)}: {what} {named(missing, 1)} is not in {shown(folder)}, which has {held}"
        )


def follow(found: SequenceFiles, prompts: Mapping[str, Files] | None, labelled: bool, *, drop_last: bool) -> Sequence:
    """Everything after the first mask is followed and, where the masks are there, scored.

    Args:
        found: its files.
        prompts: the masks that give objects; the first one, if not given. Where there are no others, nothing is scored.
        labelled: whether there are masks to score with.
        drop_last: DAVIS's rule, by which the last frame does not count either.

    Raises:
        DatasetError: there are too few masks to score any frame.
    """
    names = list(found.masks)
    labelled = labelled and (prompts is None or max(1, len(prompts)) < len(names))
    prompts = prompts or {names[0]: found.masks[names[0]]}
    first = next(iter(prompts))
    others = names[names.index(first) + 1 :]
    scored = tuple(others[: len(others) - drop_last]) if labelled else ()
    if labelled and not scored:
        raise DatasetError(
            f"sequence {shown(found.name)}: {len(names)} masks, expected {2 + drop_last} or more: one is given"
            + (", and the last is not scored" if drop_last else "")
        )
    frames = found.frames and found.frames[found.frames.index(first) :]
    return found.sequence((Part(frames, prompts),), scored)


def appearances(found: Mapping[str, Files], masks: Masks | None) -> dict[str, Files]:
    """The masks in which an object appears for the first time.

    Args:
        found: masks by frame, in order.
        masks: what their values mean; None if the first with an object decides between labels and 0/255.
    """
    binary = None if masks is None else masks == "binary"
    seen: set[int] = set()
    prompts = {}
    for frame, files in found.items():
        labels = _merge(files) if len(files) > 1 else read_mask(files[0])
        if binary is None and labels.any():
            binary = len(files) == 1 and is_binary(labels)
        ids = set(np.unique(object_labels(labels, bool(binary))).tolist()) - {0}
        if not ids <= seen:
            prompts[frame] = files
            seen |= ids
    return prompts


def follow_ranges(found: SequenceFiles, objects: Mapping[int, range]) -> Sequence:
    """Each object is given in the first frame of its range, and does not count in the last one, as in LVOS.

    Raises:
        DatasetError: a range holds no frame, or the mask of its first one is missing.
    """
    numbers = {frame: int(frame) for frame in found.frames or () if frame.isdecimal()}
    inside = {number: [frame for frame in numbers if numbers[frame] in span] for number, span in objects.items()}
    if empty := [number for number, frames in inside.items() if not frames]:
        raise DatasetError(f"sequence {shown(found.name)}: no frame is in the range of object {empty[0]}")
    starts = {frames[0] for frames in inside.values()}
    found.require_masks(sorted(starts, key=frame_order))
    prompts = {frame: files for frame, files in found.masks.items() if frame in starts}
    ends = {number: frames[-1] for number, frames in inside.items()}
    return replace(follow(found, prompts, True, drop_last=True), ends=ends)


def follow_listed(found: SequenceFiles, objects: Mapping[int, tuple[str, ...]], labelled: bool) -> Sequence:
    """Objects may appear later: each is given at its first listed frame, and all listed frames are results.

    Args:
        found: its files.
        objects: listed frames of each object.
        labelled: whether the masks of the other frames are there too.
    """
    assert found.frames is not None
    listed = tuple(sorted({frame for frames in objects.values() for frame in frames}, key=frame_order))
    require(found.name, "listed frame", listed, found.frames, found.source)
    starts = {min(frames, key=frame_order) for frames in objects.values()}
    found.require_masks(sorted(listed if labelled else starts, key=frame_order))
    prompts = {frame: found.masks[frame] for frame in sorted(starts, key=frame_order)}
    frames = found.frames[found.frames.index(listed[0]) :]
    return found.sequence((Part(frames, prompts, listed),), listed[1:] if labelled else ())


def jump(found: SequenceFiles, distance: int) -> Sequence:
    """Masks are carried from each key frame to the one `distance` later, without those between.

    Paper: VideoMatch, 4.2 and 4.3.

    Raises:
        DatasetError: the sequence is too short for any, or a mask is missing.
    """
    assert found.frames is not None
    keyframes = found.frames[:97:16]
    pairs = list(zip(keyframes, found.frames[distance::16], strict=False))  # as many as have a target
    if not pairs:
        raise DatasetError(f"sequence {shown(found.name)}: {len(found.frames)} frames, expected over {distance}")
    found.require_masks(frame for pair in pairs for frame in pair)
    parts = tuple(Part(pair, {pair[0]: found.masks[pair[0]]}, pair[1:]) for pair in pairs)
    return found.sequence(parts, tuple(target for _, target in pairs))


def read_labels(files: Files, masks: Masks, *, keep_void: bool = False) -> Labels:
    """The label map of a frame: 0 background, else object ids; void counts as background, unless it is kept as 255.

    Args:
        files: of one label map, or of each object; there, later objects cover earlier ones.
        masks: what their values mean; files of single objects are always "grey".
        keep_void: whether void stays.

    Raises:
        DatasetError: a file is missing or damaged, sizes differ, or a binary mask holds other values.
    """
    if len(files) > 1 or masks == "grey":
        return _merge(files)
    labels = read_mask(files[0])
    if masks == "binary" and labels.any() and not is_binary(labels):
        values = ", ".join(map(str, np.unique(labels)[:6]))
        raise DatasetError(f"mask {shown(files[0])} holds {values}: expected only 0 and 255, a single object")
    return labels if keep_void and masks == "labels" else object_labels(labels, masks == "binary")


def _merge(files: Files) -> Labels:
    merged = np.zeros_like(read_mask(files[0], colors=False))
    for number, file in enumerate(files, start=1):
        mask = read_mask(file, colors=False)
        if mask.shape != merged.shape:
            raise DatasetError(f"mask {shown(file)} is {mask.shape}, those before {merged.shape} (height, width)")
        merged[mask > 127] = number
    return merged
