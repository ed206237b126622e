"""The versions of a run: an update is made beside it, takes its place when complete, and can be undone.

A version without masks, as one with other names alone, shares them, and all else that it lacks, with the one before.

A new version and earlier ones lie in the hidden folder. To exchange them is a list of moves that is written down first,
so that whoever comes after a kill finishes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath

from vostrack.errors import OutputError
from vostrack.files import OutputRoot, make_folder, open_regular, output_error, parse_json, read_json, shown
from vostrack.run.place import EXPORTS, HIDDEN, MOVES, RECORD, REVIEW
from vostrack.run.signs import SIGNS

NEXT = f"{HIDDEN}/next"
"""Where a version is made."""

_STEPS, _UNDONE, FRAMES = f"{HIDDEN}/steps", f"{HIDDEN}/undone", f"{HIDDEN}/frames.jsonl"
_PARTS = (
    "masks",
    "objects",
    "probs",
    "overlay.mp4",
    "confidence.csv",
    REVIEW,
    f"{HIDDEN}/cells",
    f"{HIDDEN}/given",
    f"{HIDDEN}/request.json",
    FRAMES,
    SIGNS,
    RECORD,
    "summary.json",
)
"""What a version is made of; what says that it is complete goes last."""


@dataclass(frozen=True)
class _Moves:
    """Moves that are under way: `going` parts of the run to one place, `coming` ones from another."""

    come_from: str
    go_to: str
    coming: list[str]
    going: list[str]


def take_next(run: Path) -> None:
    """Put the version that was made in the place of the run, which becomes its latest earlier version.

    Call it, as all of these, under the folder's lock; raises `OutputError`.
    """
    last = int(PurePath(earlier[-1]).name) if (earlier := steps(run)) else 0
    _exchange(run, NEXT, f"{_STEPS}/{last + 1:04d}")


def take_back(run: Path) -> None:
    """Put the latest earlier version in the place of the run, which is dropped.

    Raises:
        OutputError: there is none.
    """
    earlier = steps(run)
    if not earlier:
        raise OutputError(f"{shown(run)} has no update to undo")
    _exchange(run, earlier[-1], _UNDONE)


def steps(run: Path) -> list[str]:
    """Earlier versions of a run, below its folder, oldest first."""
    folder = OutputRoot(run).at(_STEPS)
    names = os.listdir(folder) if folder.is_dir() else []
    complete = [name for name in sorted(names) if (folder / name / "summary.json").is_file()]
    return [f"{_STEPS}/{name}" for name in complete if re.fullmatch("[0-9]{4,}", name)]


def finish_moves(run: Path) -> str:
    """Finish an exchange that was broken off, if there is one.

    Returns:
        Where the version came from that is now in the place of the run: `NEXT`, or an earlier one; empty for none.

    Raises:
        OutputError: what is known of the exchange is damaged, or it fails.
    """
    root = OutputRoot(run)
    try:
        moves: _Moves = read_json(root.at(MOVES), _Moves)
        if not {*moves.coming, *moves.going} <= {*_PARTS} or not _is_ours(moves.come_from, moves.go_to):
            raise ValueError("it names other files than ours")
        if moves.come_from == moves.go_to or not {"summary.json", RECORD} <= {*moves.coming}:
            raise ValueError("what it puts in the place of the run is no version of one")
    except FileNotFoundError:
        remove_tree(run, _UNDONE)  # a kill came right before that
        return ""
    except (OSError, ValueError) as error:
        raise OutputError(f"{shown(run / MOVES)} is damaged ({shown(error)})") from error
    _move(root, moves)
    return moves.come_from


def remove_tree(run: Path, name: str) -> None:
    """Drop a version and all that is in it, if it is there."""
    path = OutputRoot(run).at(name)
    if path.exists():
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise output_error(error, path) from error


def forget_steps(run: Path) -> None:
    """Drop all versions but the run itself."""
    for name in (NEXT, _UNDONE, _STEPS):
        remove_tree(run, name)


def _is_ours(*names: str) -> bool:
    return all(name in (NEXT, _UNDONE) or re.fullmatch(rf"{re.escape(_STEPS)}/[0-9]{{4,}}", name) for name in names)


def _exchange(run: Path, come_from: str, go_to: str) -> None:
    root = OutputRoot(run)
    remove_tree(run, go_to)
    coming = [part for part in _PARTS if os.path.lexists(root.at(f"{come_from}/{part}"))]
    whole = "masks" in coming
    going = [part for part in _PARTS if os.path.lexists(root.at(part)) and (whole or part in (*coming, REVIEW))]
    moves = _Moves(come_from, go_to, coming, going)
    root.write_json(MOVES, asdict(moves))
    _move(root, moves)


def _move(root: OutputRoot, moves: _Moves) -> None:
    """Make the moves that were not made before, and forget them."""
    try:
        for part in _PARTS:
            here, away = root.at(part), root.at(f"{moves.go_to}/{part}")
            if part in moves.going and not os.path.lexists(away):
                make_folder(away.parent)
                here.rename(away)
            there = root.at(f"{moves.come_from}/{part}")
            if part in moves.coming and os.path.lexists(there):
                make_folder(here.parent)
                there.rename(here)
        for name in _foreign(root.path / moves.go_to):
            here, away = root.at(name), root.at(f"{moves.go_to}/{name}")
            if not os.path.lexists(here):
                make_folder(here.parent)
                away.rename(here)
    except OSError as error:
        raise output_error(error, root.path) from error
    root.remove(EXPORTS)  # they are of another version
    # In this order: while the moves are known, what went away must be there, or it would be taken for not yet moved.
    remove_tree(root.path, moves.come_from)
    root.remove(MOVES)
    remove_tree(root.path, _UNDONE)


def _foreign(version: Path) -> list[str]:
    """Files of others among the results of a version, below it: they stay with the run."""
    names = set[str]()
    with contextlib.suppress(OSError, ValueError), open_regular(version / FRAMES) as file:
        for line in file:
            with contextlib.suppress(ValueError):
                names.add(parse_json(line, str))
    folders = [version / "masks", version / "probs", *(version / "objects").glob("*")]
    return [
        str(path.relative_to(version))
        for folder in folders
        if folder.is_dir() and not folder.is_symlink()
        for path in folder.iterdir()
        if path.stem not in names or path.suffix not in (".png", ".npz")
    ]
