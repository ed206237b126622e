"""Finds the masks of each sequence in a folder of results, and the ground truth that belongs to them.

All is looked for before anything is scored, so that a gap shows before hours of work rather than after them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from vostrack.benchmark.datasets.mask_folders import frame_key, list_folder, list_frames, named
from vostrack.errors import DatasetError, unknown_name
from vostrack.files import shown
from vostrack.notes import Code, Note

_RUN = "_vostrack"
"""What the name of a run has behind that of its clip."""

_LAYOUTS = ("480p", "Annotations/480p", "Annotations", "Annotations/*", "*/Annotations")
"""Where datasets and benchmarks have folders of masks, the first that is there counts."""


@dataclass(frozen=True, slots=True)
class FolderPair:
    """A sequence's folders of results and of ground truth.

    Attributes:
        files: names of the ground truth's files in order, three or more, with those of the results; of the first and
            the last one, which are not scored, the results need no file.
    """

    name: str
    results: Path
    truth: Path
    files: Mapping[str, str]


def find_pairs(results: Path, truth: Path, sequences: Sequence[str] | None) -> list[FolderPair]:
    """The sequences to score, as `score_folders` describes its folders.

    Raises:
        DatasetError: nothing is there, a sequence or a frame is missing, or both folders are the same.
    """
    truths, run = _truth_folders(truth), results.resolve().name.removesuffix(_RUN)
    if sequences is None and run in truths and _is_one(results):
        sequences = [run]
    chosen = list(dict.fromkeys(truths if sequences is None else sequences))
    for name in chosen:
        if name not in truths:
            raise DatasetError(unknown_name("sequence", name, truths))
    folders = _result_folders(results, chosen)
    for folder, other in [(results, truth), *((folders[name], truths[name]) for name in chosen)]:
        if os.path.samefile(folder, other):
            raise DatasetError(f"results and ground truth are the same folder, {shown(folder.resolve())}")
    return [FolderPair(name, folders[name], truths[name], _match(name, folders[name], truths[name])) for name in chosen]


def unscored(results: Path, pairs: Sequence[FolderPair]) -> list[Note]:
    """Warnings of results that are named like no sequence of the ground truth."""
    names = {pair.name for pair in pairs}
    if {pair.results for pair in pairs} & {results, results / "masks"}:
        run = results.resolve().name
        there = {run.removesuffix(_RUN)} if run.endswith(_RUN) else set()
    else:
        below = _below(results)
        held = [name for name in list_folder(below) if list_frames(below / name) or list_frames(below / name / "masks")]
        there = {name if name in names else name.removesuffix(_RUN) for name in held}
    if not (others := sorted(there - names)):
        return []
    text = f"{shown(results)} has masks of {named(others)}, and the ground truth is of {named(sorted(names))}"
    return [Note(Code.SEQUENCES_DIFFER, text)]


def _is_one(results: Path) -> bool:
    """Whether results are those of a single sequence: masks, or a run."""
    return any(map(list_frames, (results, results / "masks")))


def is_run(masks: Path) -> bool:
    """Whether a folder of masks is in the output folder of a run."""
    return (masks.resolve().parent / "summary.json").is_file()


def _truth_folders(truth: Path) -> dict[str, Path]:
    """Folders of ground truth by sequence; `truth` itself may be that of one, and `masks` has the name of its clip."""
    found = _sequences(truth)
    if not found and list_frames(truth):
        found = {truth.resolve().name: truth}
    if list(found) == ["masks"]:
        found = {found["masks"].resolve().parent.name.removesuffix(_RUN) or "masks": found["masks"]}
    if not found:
        found = _sequences(_below(truth))
    if not found:
        raise DatasetError(f"no ground truth in {shown(truth)}: expected folders of PNG files, SEQUENCE/00000.png")
    return found


def _sequences(folder: Path) -> dict[str, Path]:
    """Folders of PNG files in a folder, by name."""
    return {name: folder / name for name in list_folder(folder) if list_frames(folder / name)}


def _below(folder: Path) -> Path:
    """The folder itself, or, of a dataset or a benchmark's variant, the one below that holds its sequences.

    Raises:
        DatasetError: several do.
    """
    for pattern in () if _sequences(folder) else _LAYOUTS:
        places = [place for place in sorted(folder.glob(pattern)) if place.is_dir() and _sequences(place)]
        if len(places) > 1:
            names = named([str(place.relative_to(folder)) for place in places])
            raise DatasetError(f"{shown(folder)} holds masks in {names}: give one of these folders")
        if places:
            return places[0]
    return folder


def _result_folders(results: Path, names: Sequence[str]) -> dict[str, Path]:
    """Folders of masks by sequence: its own, that of its run, or, of a single sequence, `results` itself."""
    own = _is_one(results)
    results = results if own else _below(results)
    there = list_folder(results)
    found: dict[str, Path] = {}
    for name in names:
        places = [results / name, results / name / "masks", results / f"{name}{_RUN}" / "masks"]
        places += [results, results / "masks"] if len(names) == 1 else []
        place = next(filter(list_frames, places), places[0])
        if place.is_dir():
            found[name] = place
    if missing := [name for name in names if name not in found]:
        held = f"masks of one sequence: name it by `sequences`, as {names[0]}" if own else named(there) or "nothing"
        raise DatasetError(f"{shown(results)} lacks {named(missing)} of {len(names)} sequences; it holds {held}")
    return found


def _match(name: str, results: Path, truth: Path) -> dict[str, str]:
    """Files of the ground truth with those of the results; names may have more zeros or fewer."""
    wanted, there = list_frames(truth), list_frames(results)
    if len(wanted) < 3:
        raise DatasetError(f"{shown(name)}: expected 3 frames or more (two are not scored), found {len(wanted)}")
    count = Counter(map(frame_key, there))
    alike = {frame_key(file): file for file in there if count[frame_key(file)] == 1}  # of two, neither is meant
    found = {file: file if file in there else alike.get(frame_key(file), "") for file in wanted}
    if missing := [file for file in wanted[1:-1] if not found[file]]:
        held = named(there, 3) if there else "no PNG files"
        raise DatasetError(
            f"{shown(results)} lacks {named(missing)} of {len(wanted) - 2} scored frames (all but the first and the "
            f"last); it holds {held}"
        )
    _refuse_shift(results, there, truth, wanted)
    return found


def _refuse_shift(results: Path, there: Sequence[str], truth: Path, wanted: Sequence[str]) -> None:
    """Refuse results of as many frames that count from another number: each would be scored against its neighbour."""
    keys = [tuple(map(frame_key, files)) for files in (there, wanted)]
    if len(there) != len(wanted) or not all(key.isdecimal() and len(key) < 20 for key in chain(*keys)):
        return
    if len(shifts := {int(ours) - int(theirs) for ours, theirs in zip(*keys, strict=True)}) == 1 and shifts != {0}:
        raise DatasetError(
            f"{shown(results)} has {there[0]} to {there[-1]}, {shown(truth)} as many frames from {wanted[0]} to "
            f"{wanted[-1]}: number both alike"
        )
