"""`vostrack inspect`: a picture of what a method sees: matches, similarities, features."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vostrack.cli.console import say_next
from vostrack.cli.help import (
    DEFAULT_SIZE,
    Background,
    ClipPath,
    InvertMask,
    Method,
    NoBackground,
    Overwrite,
    ResizeMask,
    Size,
    Weights,
    in_input,
    in_output,
)
from vostrack.cli.settings import parse_color, parse_size
from vostrack.errors import counted
from vostrack.files import shown


class Shown(StrEnum):
    """What is drawn."""

    match = "match"
    similarity = "similarity"
    features = "features"


_NEXT = {
    Shown.match: "open it: a line from green to yellow joins a pixel and its match",
    Shown.similarity: "open it: on the right is what resembles the pixel on the left, from black through red to white",
    Shown.features: "open it: what looks alike to the method has similar colours in both frames",
}


def inspect(
    clip: ClipPath,
    frame: Annotated[int, in_input("--frame", "-f", metavar="N", min=0, help="Frame to label, counted from 0.")] = 1,
    reference: Annotated[
        int | None, in_input(metavar="N", min=0, help="Frame whose labels are known.", show_default="the one before")
    ] = None,
    point: Annotated[
        list[str] | None, in_input("--point", "-p", metavar="X,Y", help="A pixel of the frame to label. Repeatable.")
    ] = None,
    mask: Annotated[
        Path | None,
        in_input("--mask", "-m", metavar="FILE", help="Take points inside this mask of the frame.", show_default=False),
    ] = None,
    resize_mask: ResizeMask = False,
    background: Background = None,
    invert_mask: InvertMask = False,
    no_background: NoBackground = False,
    show: Annotated[
        Shown, in_input("--show", help="`match` needs `rpm-net`; the others take any method.")
    ] = Shown.match,
    out: Annotated[
        Path | None,
        in_output("--out", "-o", metavar="FILE", help="The PNG.", show_default="CLIP_inspect.png beside the clip"),
    ] = None,
    overwrite: Overwrite = False,
    method: Method = "rpm-net",
    weights: Weights = None,
    size: Size = DEFAULT_SIZE,
) -> None:
    """Draw what a method sees in two frames.

    Examples:
        vostrack inspect dog.mp4 --frame 12
        vostrack inspect dog.mp4 --frame 12 --reference 7 --point 420,260
        vostrack inspect dog.mp4 --frame 12 --show similarity --method best

    `match`: where `rpm-net` looks for the matches of some pixels, drawn over both frames and over their features. Green
    is a pixel of the frame, red what is sampled for it, yellow its match in the reference frame.

    `similarity`: how similar the features of the reference frame are to those of each pixel; yellow is the most similar
    cell. `features`: their three principal components as colours.

    Without --point and --mask, points lie all over the frame.
    """
    from vostrack.methods import load_method
    from vostrack.methods.base import in_parts
    from vostrack.run import inspection
    from vostrack.run.given import choose_masks
    from vostrack.video.ground import Reading

    if point and mask is not None:
        raise typer.BadParameter("--point and --mask exclude each other", param_hint="--point")
    working = parse_size(size)
    reading = Reading(resize_mask, parse_color(background), invert_mask, no_background)
    given = [_point(text) for text in point or []]
    if frame == 0 and reference is None:
        raise typer.BadParameter("there is no frame before 0: give another frame, or --reference", param_hint="--frame")
    before = frame - 1 if reference is None else reference
    path = out or clip.with_name(f"{clip.stem}_inspect.png")
    inspection.check_output(path, [clip, *([mask] if mask is not None else [])], overwrite)
    loaded = in_parts(load_method(method, weights=weights)[0])
    if show is Shown.match:
        inspection.inspectable(loaded)
    known, target = inspection.read_frames(clip, (before, frame))
    drawn = None if mask is None else choose_masks(clip, (frame, frame), mask)[1][frame]
    points = given or inspection.choose_points((target.shape[1], target.shape[2]), drawn, reading)
    pair = inspection.encode_pair(loaded, known, target, points, working)
    told = ""
    if show is Shown.match:
        found = inspection.correspondences(loaded, pair)
        picture = inspection.draw_matching(pair, found)
        told = f", similarity to what is sampled {inspection.sampled_similarity(pair, found):.3f}"
    else:
        picture = inspection.draw_similarity(pair) if show is Shown.similarity else inspection.draw_features(pair)
    inspection.write_picture(path, picture)
    print(f"frame {frame} from frame {before}, {counted(len(points), 'pixel')}{told}: {shown(path)}", file=sys.stderr)
    say_next(_NEXT[show])


def _point(text: str) -> tuple[float, float]:
    parts = text.split(",")
    try:
        x, y = (float(part) for part in parts)
    except ValueError:
        raise typer.BadParameter(f"expected X,Y in pixels, found {text!r}", param_hint="--point") from None
    return x, y
