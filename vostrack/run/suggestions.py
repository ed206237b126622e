"""Which frames of a run to give a mask for: those that the confidence in its masks says would gain most."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vostrack.errors import OutputError
from vostrack.files import OutputRoot, open_regular, shown
from vostrack.run.confidence import CSV, Row
from vostrack.run.folder import OutputFolder
from vostrack.run.request import Request
from vostrack.types import MAX_OBJECTS

_APART, _FADING = 5, 4.0
_MOST_FRAMES = 1000
"""Frames of a long clip that are compared with each other."""

_MOST_BYTES = 256 << 20

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Suggestion:
    """A frame that a mask would help at.

    Attributes:
        frame: index.
        number: the object of which least is expected there.
        confidence: in its mask there.
        gain: how much confidence a mask may make up for, mean over all frames and objects.
        name: how the object is called, or "".
    """

    frame: int
    number: int
    confidence: float
    gain: float
    name: str = ""


def suggest(run: str | os.PathLike[str], count: int = 3) -> list[Suggestion]:
    """The frames of a complete run whose masks would help most, the best one first.

    Args:
        run: output folder of `vostrack.segment`.
        count: how many at most.

    Raises:
        OutputError: the folder holds no complete run.
    """
    path = Path(run)
    given = Request.kept_in(OutputFolder(path))[1]
    found = best_frames(read_rows(path), given.labels.keys(), count)
    return [replace(each, name=given.names.get(each.number, "")) for each in found]


def read_rows(run: Path) -> list[Row]:
    """The confidence in all masks of a run; raises `OutputError`."""
    path = OutputRoot(run).at(CSV)
    try:
        with open_regular(path) as file:
            text = file.read(_MOST_BYTES).decode()
        found = csv.DictReader(io.StringIO(text))
        rows = [Row(int(r["frame"]), int(r["object"]), float(r["confidence"]), int(r["area"])) for r in found]
        if not rows or not all(map(_is_possible, rows)):
            raise ValueError("it holds no confidences")
    except FileNotFoundError:
        raise OutputError(f"{shown(run)} holds no complete run: there is no {CSV}; resume or start it") from None
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise OutputError(f"{shown(path)} cannot be read ({shown(error)}): resume the run to have it again") from error
    return rows


def _is_possible(row: Row) -> bool:
    objects, large = range(1, MAX_OBJECTS + 1), range(1 << 31)
    return 0 <= row.confidence <= 1 and row.number in objects and row.frame in large and row.area in large


def best_frames(rows: Sequence[Row], given: Collection[int], count: int) -> list[Suggestion]:
    """Frames to give a mask for, one after the other, each as if those before it had been given.

    A mask makes up for what confidence is lacking at its frame, and for less of it the farther away a frame is.

    Args:
        rows: the confidence in all masks.
        given: frames whose masks were given; no frame close to one is taken, nor one of which all is known.
        count: how many frames at most.
    """
    every = sorted({row.frame for row in rows})
    frames = np.array(every[:: -(-len(every) // _MOST_FRAMES)])
    numbers = sorted({row.number for row in rows})
    known = {(row.frame, row.number): row.confidence for row in rows}
    sure = np.array([[known.get((frame, number), 1.0) for number in numbers] for frame in frames.tolist()])
    lacking: Array = (1 - sure).mean(axis=1)
    reach = np.exp(-_FADING * np.abs(frames[:, None] - frames) / (every[-1] - every[0] + 1))
    taken, found, apart = list(given), list[Suggestion](), min(_APART, max(1, len(every) // 8))
    for _ in range(count):
        gains = reach @ lacking / len(frames)
        gains[(sure == 1).all(axis=1)] = 0  # all is known there
        gains[(np.abs(frames[:, None] - np.array([*taken, -apart])) < apart).any(axis=1)] = 0
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        frame, least = int(frames[best]), int(sure[best].argmin())
        found.append(Suggestion(frame, numbers[least], float(sure[best, least]), float(gains[best])))
        taken.append(frame)
        lacking = lacking * (1 - reach[best])
    return found
