"""`vostrack inspect`: a picture of where a method looks for the match of a pixel."""

from __future__ import annotations

import sys
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
from vostrack.files import shown


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
    out: Annotated[
        Path | None,
        in_output("--out", "-o", metavar="FILE", help="The PNG.", show_default="CLIP_inspect.png beside the clip"),
    ] = None,
    overwrite: Overwrite = False,
    method: Method = "rpm-net",
    weights: Weights = None,
    size: Size = DEFAULT_SIZE,
) -> None:
    """Draw where a method looks for the matches of some pixels of a frame in another one.

    Examples:
        vostrack inspect dog.mp4 --frame 12
        vostrack inspect dog.mp4 --frame 12 --reference 7 --point 420,260

    Of the methods that come with vostrack, `rpm-net` can tell.

    Green is a pixel of the frame, red the places that are sampled for it, yellow its match in the reference frame.
    Without --point and --mask, points lie all over the frame.
    """
    from vostrack.methods import load_method
    from vostrack.run import inspection
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
    loaded, _ = load_method(method, weights=weights)
    inspection.inspectable(loaded)
    known, target = inspection.read_frames(clip, (before, frame))
    points = given or inspection.choose_points((target.shape[1], target.shape[2]), mask, reading)
    inspection.write_picture(path, inspection.draw_matching(loaded, known, target, points, working))
    pixels = "1 pixel" if len(points) == 1 else f"{len(points)} pixels"
    print(f"frame {frame} from frame {before}, {pixels}: {shown(path)}", file=sys.stderr)
    say_next("open it: a line from green to yellow joins a pixel and its match")


def _point(text: str) -> tuple[float, float]:
    parts = text.split(",")
    try:
        x, y = (float(part) for part in parts)
    except ValueError:
        raise typer.BadParameter(f"expected X,Y in pixels, found {text!r}", param_hint="--point") from None
    return x, y
