"""`review.html`: a run to look at, in one file that needs no network: where its masks are probably wrong.

Gathers what `review.html.j2` lays out.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vostrack.errors import OutputError
from vostrack.files import OutputRoot, escaped, lock_folder, read_json, shown, write_text
from vostrack.run.confidence import Row
from vostrack.run.folder import OutputFolder
from vostrack.run.pages import jpeg, jpeg_address, templates
from vostrack.run.place import REVIEW, WORST
from vostrack.run.request import Request
from vostrack.run.signs import LOW
from vostrack.run.suggestions import Suggestion, best_frames, read_rows
from vostrack.video.drawing import Painter
from vostrack.video.look import Look
from vostrack.video.masks import Prompts
from vostrack.video.palette import PALETTE
from vostrack.video.reader import open_clip

_WIDTH, _MOMENTS, _POINTS = 480, 9, 600
_TEMPLATES = templates(__package__)


@dataclass(frozen=True)
class Curve:
    """An object over time.

    Attributes:
        number: its id.
        name: how it is called, or "".
        color: what it is drawn in, as CSS.
        mean, low, low_frame: the mean confidence, the lowest one and its frame.
        confidence, area: points of lines, as SVG, in a box of 100 by 100; the largest area is at the top.
        largest: largest area in pixels.
    """

    number: int
    name: str
    color: str
    mean: float
    low: float
    low_frame: int
    confidence: str
    area: str
    largest: int


@dataclass(frozen=True)
class Moment:
    """A frame to look at, and its picture as an address."""

    frame: int
    rows: Sequence[Row]
    picture: str


def review(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    clip: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a page that shows where the masks of a complete run are probably wrong.

    Args:
        run: output folder of `vostrack.segment`.
        out: the page, which is replaced; `review.html` in the folder by default.
        clip: where the clip is now, if it was moved.

    Returns:
        The page.

    Raises:
        OutputError: the folder holds no complete run, or the page cannot be written.
        InputError: the clip cannot be read.
    """
    path, page = Path(run), Path(out) if out is not None else Path(run) / REVIEW
    folder = OutputFolder(path)
    request, given = Request.kept_in(folder)
    rows, source = read_rows(path), Path(clip) if clip is not None else request.source
    wanted = best_frames(rows, given.labels.keys(), 3)
    frames = [*{suggestion.frame: None for suggestion in wanted}, *_worst(rows, wanted)][:_MOMENTS]
    folder = OutputFolder(path, given.labels, direction=request.direction)
    drawn = _drawn(folder, request, source, given, frames)
    pictures = {frame: jpeg_address(jpeg(pixels, _WIDTH)) for frame, pixels in drawn}
    text = _TEMPLATES.get_template(f"{REVIEW}.j2").render(
        clip=escaped(source.name),
        warnings=_warnings(path),
        curves=_curves(rows, given),
        suggestions=[suggestion.frame for suggestion in wanted],
        moments=[
            Moment(frame, [row for row in rows if row.frame == frame], pictures[frame])
            for frame in frames
            if frame in pictures
        ],
        names={row.number: given.names.get(row.number, "") for row in rows},
        first=rows[0].frame,
        last=rows[-1].frame,
        given=sorted(given.labels),
        low=LOW,
        clip_path=_typed(source),
        run_path=_typed(path),
        deinterlace=request.playback.deinterlace,
    )
    with lock_folder(path):
        write_text(page, text)
    return page


def draw_worst(run: Path) -> None:
    """Draw the frame of a complete run whose masks are least sure, for an overview; raises what `review` raises."""
    folder = OutputFolder(run)
    request, given = Request.kept_in(folder)
    frame = min(read_rows(run), key=lambda row: (row.confidence, row.frame)).frame
    folder = OutputFolder(run, given.labels, direction=request.direction)
    for _, pixels in _drawn(folder, request, request.source, given, [frame]):
        OutputRoot(run).write(WORST, jpeg(pixels, _WIDTH))


def _worst(rows: Sequence[Row], wanted: Sequence[Suggestion]) -> list[int]:
    """Frames with the least confidence, apart from each other and from those that are wanted."""
    apart = max(3, (rows[-1].frame - rows[0].frame) // 20)
    found, taken = list[int](), [suggestion.frame for suggestion in wanted]
    for row in sorted(rows, key=lambda row: row.confidence):
        if row.confidence < 1 and all(abs(row.frame - frame) >= apart for frame in taken):
            found.append(row.frame)
            taken.append(row.frame)
        if len(found) == _MOMENTS:
            break
    return found


def _typed(path: Path) -> str:
    """A path as one types it."""
    return shlex.quote(escaped(os.path.abspath(path)))


def _warnings(run: Path) -> list[tuple[str, str]]:
    """Codes and texts of the warnings in a summary, which may hold anything."""
    try:
        told = read_json(run / "summary.json", dict[str, Any]).get("warnings")
    except (OSError, ValueError) as error:
        raise OutputError(f"{shown(run)} holds no complete run ({shown(error)}): resume it first") from error
    listed = told if isinstance(told, list) else []
    return [(str(each.get("code", "")), str(each.get("text", ""))) for each in listed if isinstance(each, dict)]


def _curves(rows: Sequence[Row], given: Prompts) -> list[Curve]:
    curves, span = [], (rows[0].frame, max(rows[-1].frame, rows[0].frame + 1))
    for number in sorted({row.number for row in rows}):
        own = [row for row in rows if row.number == number]
        low, largest = min(own, key=lambda row: row.confidence), max(row.area for row in own)
        color = given.colors.get(number, tuple(PALETTE[number].tolist()))
        curves.append(
            Curve(
                number,
                given.names.get(number, ""),
                "#{:02x}{:02x}{:02x}".format(*color),
                sum(row.confidence for row in own) / len(own),
                low.confidence,
                low.frame,
                _points([(row.frame, row.confidence) for row in own], span),
                _points([(row.frame, row.area / max(largest, 1)) for row in own], span),
                largest,
            )
        )
    return curves


def _points(values: Sequence[tuple[int, float]], span: tuple[int, int]) -> str:
    """A line in a box of 100 by 100; of a long one, the least value of each stretch."""
    step = -(-len(values) // _POINTS)
    chosen = [min(values[at : at + step], key=lambda value: value[1]) for at in range(0, len(values), step)]
    first, last = span
    return " ".join(f"{100 * (frame - first) / (last - first):.2f},{100 - 100 * value:.2f}" for frame, value in chosen)


def _drawn(
    folder: OutputFolder, request: Request, source: Path, given: Prompts, frames: Collection[int]
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Frames with their masks, in the order of the clip; reads it up to the last one."""
    painter = Painter(Look(colors=given.colors, names=given.names))
    with open_clip(source, request.playback) as whole:
        for frame in request.span.of(whole):
            if frame.index in frames:
                yield frame.index, painter.draw(frame.image, folder.read_prediction(frame).mask, frame.index)
            if frame.index >= max(frames, default=0):
                return
