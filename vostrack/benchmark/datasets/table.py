"""The datasets that methods are measured on: a table of what each looks like, and opening one (docs/datasets.md).

A dataset opens whole or not at all: what its lists name and its folders lack is said before any work starts. Fewer
sequences than the official number are a subset, and `Dataset.subset` says so wherever figures are shown.

The lists that come with datasets are untrusted: a name is a plain name or it is refused, so that no list leads out of
its dataset.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Sequence as Names
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from vostrack.benchmark.datasets import layouts
from vostrack.benchmark.datasets.layouts import Masks, Sequence, SequenceFiles, find_source
from vostrack.benchmark.datasets.mask_folders import list_folder, named, read_mask
from vostrack.benchmark.metrics import is_binary
from vostrack.errors import DatasetError, unknown_name
from vostrack.files import read_json, shown
from vostrack.run.callbacks import Callbacks, checked_callbacks
from vostrack.types import MAX_OBJECTS

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """What a dataset looks like, and how it is scored.

    Attributes:
        title: its name for people.
        splits: official number of sequences by split, the default first; None where there is no such number.
        images: folders that may hold the sequences' frames, below the root, the first that is there counts; "*" stands
            for one folder, such as a resolution, "{split}" for the split.
        annotations: the same for masks; the "*" is the folder that it was for `images`.
        index: text file that lists a split's sequences, if it has one.
        ranges: file beside the folder of frames that may say in which frames each object is; see `read_ranges`.
        protocol: "davis" leaves out the first and last frame; "given" the given frames; "listed" is that of the frames
            in YouTube-VOS's list; "jump" carries masks over a distance, and counts pixels.
        late: objects may appear after the first frame: each is given where it first appears and counts behind that. A
            sequence whose masks do nothing but give objects has no truth.
        masks: what values mean; None if the first mask of a sequence decides between labels and 0/255.
        ignore_void: void pixels (255) of a truth count neither as hit nor as miss; else they are background.
        unlabelled: splits whose masks a server keeps: the results are a submission.
        archive: where the server looks for the folders of masks in `submission.zip`.
        grouped: names of sequences start with their class, which counts as an attribute.
        categories: sequences by category, which counts as an attribute.
        method_settings: settings that its protocol asks of methods that have them, by name.
    """

    title: str
    splits: Mapping[str, int | None]
    images: tuple[str, ...] = ("JPEGImages",)
    annotations: tuple[str, ...] = ("Annotations",)
    index: str | None = None
    ranges: str | None = None
    protocol: Literal["davis", "given", "listed", "jump"] = "davis"
    late: bool = False
    masks: Masks | None = "labels"
    ignore_void: bool = False
    unlabelled: frozenset[str] = frozenset()
    archive: str = ""
    grouped: bool = False
    categories: Mapping[str, str] = field(default_factory=dict)
    method_settings: Mapping[str, Any] = field(default_factory=dict)


def _youtube_vos(year: int, valid: int, test: int) -> DatasetSpec:
    return DatasetSpec(
        f"YouTube-VOS {year}",
        {"valid": valid, "test": test, "train": 3471},
        images=("{split}/JPEGImages", "JPEGImages"),
        annotations=("{split}/Annotations", "Annotations"),
        protocol="listed",
        unlabelled=frozenset({"valid", "test"}),
        archive="Annotations/",
    )


def _from_masks(title: str, **splits: int) -> DatasetSpec:
    """A folder for each split; the masks that are there say where objects appear, and whether there is a truth."""
    images, masks = ("{split}/JPEGImages", "JPEGImages"), ("{split}/Annotations", "Annotations")
    return DatasetSpec(title, splits, images, masks, late=True)


def _lvos(title: str, **splits: int) -> DatasetSpec:
    return replace(_from_masks(title, **splits), ranges="{split}_meta.json", archive="Annotations/")


_FRAMES_480P = ("JPEGImages/480p", "JPEGImages")
_MASKS_480P = ("Annotations/480p", "Annotations")

DATASETS: dict[str, DatasetSpec] = {
    "davis16": DatasetSpec(
        "DAVIS-2016",
        {"val": 20, "train": 30, "trainval": 50},
        _FRAMES_480P,
        _MASKS_480P,
        index="ImageSets/480p/{split}.txt",
        masks="binary",
    ),
    "davis17": DatasetSpec(
        "DAVIS-2017",
        {"val": 30, "train": 60, "test-dev": 30},
        _FRAMES_480P,
        _MASKS_480P,
        index="ImageSets/2017/{split}.txt",
        unlabelled=frozenset({"test-dev"}),
    ),
    "ytvos18": _youtube_vos(2018, 474, 508),
    "ytvos19": _youtube_vos(2019, 507, 541),
    "mose": _from_masks("MOSE", valid=311, train=1507),
    "mose2": _from_masks("MOSE v2", valid=433, train=3666),
    "lvos": _lvos("LVOS", valid=50, train=120, test=50),
    "lvos2": _lvos("LVOS v2", valid=140, train=420, test=160),
    "vost": DatasetSpec(
        "VOST", {"val": 70, "train": 572, "test": 71}, index="ImageSets/{split}.txt", late=True, ignore_void=True
    ),
    "segtrack2": DatasetSpec("SegTrack v2", {"all": 14}, annotations=("GroundTruth",), protocol="given", masks="grey"),
    "youtube-objects": DatasetSpec("YouTube-Objects", {"all": 126}, protocol="given", masks=None, grouped=True),
    # VideoMatch, 4.3: an object may be anywhere after a jump; the categories are those of its Table 3.
    "jumpcut": DatasetSpec(
        "JumpCut",
        {"all": 22},
        protocol="jump",
        masks=None,
        method_settings={"outlier_removal": False},
        categories={
            "animal": "bear giraffe goat pig",
            "human": "couple park station",
            "static": "car cup pot toy",
            "snapcut": "animation fish horse",
            "fast": "bball cheetah dance hiphop kongfu skater supertramp tricking",
        },
    ),
    "folder": DatasetSpec(
        "Own clips",
        {"all": None},
        images=("JPEGImages/*", "JPEGImages", "clips"),
        annotations=("Annotations/*", "Annotations"),
        late=True,
        masks=None,
    ),
}


def titled(title: str, split: str) -> str:
    """What a dataset and its split are called in a heading."""
    return title if split == "all" else f"{title} {split}"


@dataclass(frozen=True, slots=True)
class Dataset:
    """An opened dataset.

    Attributes:
        name: key in `DATASETS`.
        sequences: those that were chosen, in order; at least one.
        official: how many there are in the published split.
        distance: JumpCut's transfer distance, in frames.
    """

    name: str
    split: str
    root: Path
    sequences: tuple[Sequence, ...]
    official: int | None
    distance: int | None = None

    @property
    def spec(self) -> DatasetSpec:
        """What the dataset looks like."""
        return DATASETS[self.name]

    @property
    def submission(self) -> bool:
        """Whether there are no masks but the given ones, so that nothing can be scored here; a server may."""
        return not any(sequence.scored for sequence in self.sequences)

    @property
    def subset(self) -> str | None:
        """That these are not all sequences, if so; figures must not be shown without it."""
        count = len(self.sequences)
        return f"subset of {count} of {self.official}" if self.official and count != self.official else None


def open_dataset(
    name: str,
    root: Path | None = None,
    split: str | None = None,
    *,
    sequences: Names[str] | None = None,
    limit: int | None = None,
    allow_subset: bool = False,
    distance: int = 16,
    callbacks: Callbacks | None = None,
) -> Dataset:
    """Find a dataset and check that it is whole.

    Args:
        name: one of `DATASETS`.
        root: its folder; else it is looked for in `$VOSTRACK_DATA` and `./data`.
        split: one of its splits; the first of its spec, if not given.
        sequences: names of those that are wanted; all, if not given.
        limit: take at most so many of them, the first ones.
        allow_subset: leave out sequences that the list names and the root lacks.
        distance: for JumpCut, how far masks are carried, in frames.
        callbacks: told how many sequences are read: without a list of objects, all masks have to be looked at.

    Raises:
        DatasetError: an unknown name, or something that the root lacks: a list, a sequence, a frame, a mask.
    """
    _check_known("dataset", name, DATASETS)
    spec = DATASETS[name]
    split = split or next(iter(spec.splits))
    _check_known(f"split of {name}", split, spec.splits)
    root, images, masks = _find(name, spec, root, split)
    build, listed = _builder(spec, root, split, images, distance)
    for each in sequences or ():
        _check_known("sequence", each, listed)
    chosen = listed if sequences is None else list(dict.fromkeys(sequences))
    if allow_subset and sequences is None:
        chosen = [each for each in chosen if find_source(each, images) and (masks / each).is_dir()]
    _check_there(chosen, images, masks, root)
    attributes = read_attributes(root)
    chosen, opened, told = chosen[:limit], [], checked_callbacks(callbacks)
    for sequence in chosen:
        found = layouts.find_files(sequence, images, masks)
        opened.append(_finish(build(found), spec, attributes.get(sequence, ())))
        told.progress(len(opened), len(chosen))
    jumps = spec.protocol == "jump"
    dataset = Dataset(name, split, root, tuple(opened), spec.splits[split], distance if jumps else None)
    if not dataset.sequences:
        raise DatasetError(f"{shown(root)} has no sequence of {name} {split}")
    return dataset


def data_folders(local: str) -> list[Path]:
    """Where data is looked for that nobody named: in `$VOSTRACK_DATA`, then in a folder below the current one."""
    return [Path(base) for base in (os.environ.get("VOSTRACK_DATA"), local) if base]


def _check_known(kind: str, name: str, valid: Collection[str]) -> None:
    if name not in valid:
        raise DatasetError(unknown_name(kind, name, valid))


def _builder(
    spec: DatasetSpec, root: Path, split: str, images: Path, distance: int
) -> tuple[Callable[[SequenceFiles], Sequence], list[str]]:
    """How a sequence is built from its files, and the names of all sequences."""
    labelled = split not in spec.unlabelled
    if spec.protocol == "listed":
        meta = read_meta(images.parent / "meta.json")
        return lambda found: layouts.follow_listed(found, meta[found.name], labelled), list(meta)
    lists = read_list(root / spec.index.format(split=split)) if spec.index else None
    names = list(lists) if lists is not None else _folder_names(images)
    if spec.protocol == "jump":
        return lambda found: layouts.jump(found, distance), names
    path = images.parent / (spec.ranges or "").format(split=split)
    ranges = read_ranges(path) if spec.ranges and path.is_file() else {}

    def build(found: SequenceFiles) -> Sequence:
        if lists is not None:
            # DAVIS has a mask for each frame; a gap would shift which frame is the last, and so the scores.
            frames = lists[found.name] or found.frames or ()
            layouts.require(found.name, "listed frame", frames, found.frames or (), found.source)
            found.require_masks(frames if labelled and not spec.late else frames[:1])
        if found.name in ranges:
            return layouts.follow_ranges(found, ranges[found.name])
        prompts = layouts.appearances(found.masks, spec.masks) if spec.late else None
        return layouts.follow(found, prompts, labelled, drop_last=spec.protocol == "davis")

    return build, names


def _finish(sequence: Sequence, spec: DatasetSpec, attributes: tuple[str, ...]) -> Sequence:
    masks = spec.masks
    if masks is None:
        firsts = [files for part in sequence.parts for files in part.prompts.values()]
        single = (read_mask(files[0]) for files in firsts if len(files) == 1)
        first = next((labels for labels in single if labels.any()), None)
        masks = "binary" if first is not None and is_binary(first) else "labels"
    attributes += tuple(name for name, members in spec.categories.items() if sequence.name.lower() in members.split())
    if spec.grouped:
        attributes = (*attributes, sequence.name.split("_")[0].split("-")[0])
    return replace(sequence, masks=masks, attributes=attributes, ignore_void=spec.ignore_void)


def _check_there(chosen: list[str], images: Path, masks: Path, root: Path) -> None:
    for what, missing in (
        ("the frames", [name for name in chosen if find_source(name, images) is None]),
        ("the masks", [name for name in chosen if not (masks / name).is_dir()]),
    ):
        if missing:
            raise DatasetError(
                f"{shown(root)} lacks {what} of {len(missing)} of {len(chosen)} sequences: {named(missing)}; "
                "complete it, or use `allow_subset=True` or `sequences`"
            )


def _folder_names(images: Path) -> list[str]:
    """Sequences of a dataset without a list: all folders, or videos."""
    there = [name for name in list_folder(images) if (images / name).is_dir()]
    there += [Path(name).stem for name in list_folder(images) if name.lower().endswith(layouts.VIDEOS)]
    return [plain_name(name, images) for name in dict.fromkeys(there)]


def _find(name: str, spec: DatasetSpec, root: Path | None, split: str) -> tuple[Path, Path, Path]:
    """The root of a dataset, and its folders of frames and of masks."""
    places = [root] if root is not None else [base / folder for base in data_folders("data") for folder in (name, ".")]
    lacking = []
    for place in places:
        for images in _image_folders(place, spec, split):
            patterns = [text.format(split=split).replace("*", images.name) for text in spec.annotations]
            for pattern in patterns:
                if (place / pattern).is_dir():
                    return place, images, place / pattern
            expected = f"{' or '.join(patterns)} in {shown(place)}"
            lacking.append(f"{shown(images)} is there, but no masks: expected {expected}")
    if lacking:
        raise DatasetError(lacking[0])
    wanted = " or ".join(f"{pattern}/SEQUENCE".format(split=split) for pattern in spec.images)
    where = " or ".join(map(shown, places))
    what = f"{spec.title} is not" if None not in spec.splits.values() else "there are no sequences"
    below = (root / name for name in list_folder(root)) if root and root.is_dir() else iter(())
    fits = (f"did you mean {shown(folder)}?" for folder in below if any(_image_folders(folder, spec, split)))
    fix = next(fits, "name its folder as `root`")
    raise DatasetError(f"{what} in {where}: expected {wanted} below it; {fix}")


def _image_folders(place: Path, spec: DatasetSpec, split: str) -> Iterator[Path]:
    for pattern in spec.images:
        for folder in sorted(place.glob(pattern.format(split=split))) if place.is_dir() else ():
            # What stands for "*" must hold sequences, not be one.
            if folder.is_dir() and ("*" not in pattern or any(child.is_dir() for child in folder.iterdir())):
                yield folder


def plain_name(name: object, where: Path) -> str:
    """A name from a list, if it names something in a folder and nothing outside of it.

    Raises:
        DatasetError: it is a path, empty, hidden, or not printable.
    """
    if not isinstance(name, str) or not name.isprintable() or not re.fullmatch(r"[^./\\:][^/\\:]{0,199}", name):
        raise DatasetError(f"{shown(where)} names {shown(repr(name)[:80])}, which is no name of a sequence or frame")
    return name


def read_list(path: Path) -> dict[str, tuple[str, ...]]:
    """Sequences of a split, each with the frames that the list names; no frames where it names the sequence alone.

    Args:
        path: a text file with a sequence in each line, or, as in DAVIS-2016, a frame and its mask:
            "/JPEGImages/480p/dog/00000.jpg /Annotations/480p/dog/00000.png".

    Raises:
        DatasetError: it is missing, or a line cannot be understood.
    """
    frames: dict[str, list[str]] = {}
    for line in _read(path).splitlines():
        words = line.split()
        if not words:
            continue
        # The first path alone: of a pair, both lead to the same frame.
        parts = words[0].strip("/").split("/")
        if len(parts) == 1 and len(words) == 1:
            frames.setdefault(plain_name(words[0], path), [])
        elif len(parts) > 2 and len(words) <= 2:
            for part in parts:
                plain_name(part, path)
            frames.setdefault(parts[-2], []).append(Path(parts[-1]).stem)
        else:
            raise DatasetError(f"{shown(path)} has a line {shown(line[:80])!r}: expected a sequence or a pair of files")
    if not frames:
        raise DatasetError(f"{shown(path)} names no sequence")
    return {name: tuple(dict.fromkeys(found)) for name, found in frames.items()}


def read_meta(path: Path) -> dict[str, dict[int, tuple[str, ...]]]:
    """Frames of each object of each sequence, from YouTube-VOS's `meta.json`.

    Raises:
        DatasetError: it is missing or not laid out so.
    """

    def frames(entry: Mapping[str, Any]) -> tuple[str, ...]:
        if not entry["frames"]:
            raise ValueError("an object has no frames")
        return tuple(plain_name(frame, path) for frame in entry["frames"])

    return _read_objects(path, frames)


def read_ranges(path: Path) -> dict[str, dict[int, range]]:
    """Numbers of the frames of each object of each sequence, from LVOS's `valid_meta.json`.

    Raises:
        DatasetError: it is missing or not laid out so.
    """
    return _read_objects(path, lambda entry: range(*(int(entry["frame_range"][key]) for key in ("start", "end"))))


def _read_objects(path: Path, read: Callable[[Mapping[str, Any]], T]) -> dict[str, dict[int, T]]:
    """What a list of videos says of their objects, by sequence and id."""
    try:
        found = {
            plain_name(name, path): {int(number): read(entry) for number, entry in video["objects"].items()}
            for name, video in read_json(path, dict[str, Any])["videos"].items()
        }
        if not found:
            raise ValueError("it names no video")
        if not all(1 <= number <= MAX_OBJECTS for objects in found.values() for number in objects):
            raise ValueError(f"objects need ids from 1 to {MAX_OBJECTS}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"cannot use {shown(path)} as a list of videos and objects: {shown(error)}") from error
    return found


def read_attributes(folder: Path) -> dict[str, tuple[str, ...]]:
    """DAVIS's attributes of its sequences, from `db_info.yaml`; none where the file is not there.

    Only the two fields that matter are looked for, which needs no YAML reader: "name: dog" and "attributes: [FM, OCC]".
    """
    for path in (folder / "db_info.yaml", folder / "data" / "db_info.yaml", folder / "Annotations" / "db_info.yml"):
        if path.is_file():
            entries = re.split(r"^\s*- (?=\w+:)", _read(path), flags=re.MULTILINE)
            pairs = (
                (re.search(r"\bname: *([\w-]+)", entry), re.search(r"\battributes: *\[([^\]]*)\]", entry))
                for entry in entries
            )
            return {name[1]: tuple(re.findall(r"\w+", given[1])) for name, given in pairs if name and given}
    return {}


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            raise OSError("it is missing")
        if path.stat().st_size > 2**26:
            raise OSError("it is too large for a list")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read list {shown(path)}: {shown(error)}") from error
