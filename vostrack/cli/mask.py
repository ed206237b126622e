"""`vostrack mask`: what is in a mask, and what would be made of it; `mask convert` writes it as a palette PNG."""

from __future__ import annotations

import json as json_text
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vostrack.cli.console import print_notes, say_next
from vostrack.cli.help import (
    Background,
    Command,
    Group,
    InvertMask,
    Json,
    Names,
    NoBackground,
    Overwrite,
    ResizeMask,
    in_output,
)
from vostrack.cli.segment import check_order, frame_names, parse_masks
from vostrack.cli.settings import parse_color, parse_names
from vostrack.errors import MaskError, OutputError, counted
from vostrack.files import escaped, shown

_MOST_ROWS = 40

app = typer.Typer(name="mask", cls=Group, no_args_is_help=True)

MaskPath = Annotated[str, typer.Argument(metavar="[FRAME:]PATH", help="As for `segment --mask`.", show_default=False)]
OwnClip = Annotated[
    Path | None,
    typer.Argument(
        metavar="[CLIP]", help="Its clip; without one, frames and size are not checked.", show_default=False
    ),
]


@app.callback()
def mask() -> None:
    """Check masks, or convert those of other tools.

    Examples:
        vostrack mask check first.png dog.mp4
        vostrack mask check annotations.json dog.mp4 --preview preview.png
        vostrack mask convert annotations.json dog.mp4 -o masks
    """


@app.command(cls=Command)
def check(
    path: MaskPath,
    clip: OwnClip = None,
    preview: Annotated[
        Path | None,
        in_output("--preview", metavar="FILE", help="Draw the masks over their frames, as a PNG.", show_default=False),
    ] = None,
    name: Names = None,
    resize_mask: ResizeMask = False,
    background: Background = None,
    invert_mask: InvertMask = False,
    no_background: NoBackground = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Say what a run would read in a mask, and what is wrong with it.

    Examples:
        vostrack mask check first.png dog.mp4
        vostrack mask check 40:labelme.json dog.mp4 --preview preview.png
        vostrack mask check labels/ dog.mp4 --json

    The exit code is 4 if the mask cannot be used.
    """
    from vostrack.run.inspection import check_output, write_picture

    if preview is not None:
        if preview.suffix.lower() != ".png":
            raise OutputError(f"{shown(preview)}: the preview is a PNG, so give a name that ends with .png")
        check_output(preview, [Path(path), *([clip] if clip else [])], overwrite)
    try:
        report = _report(path, clip, name, resize_mask, background, invert_mask, no_background)
    except MaskError as error:
        if json:
            print(json_text.dumps({"usable": False, "error": str(error)}, indent=2))
        raise
    record: dict[str, Any] = report.record()
    if json:
        print(json_text.dumps({"usable": True, **record}, indent=2, sort_keys=True))
    else:
        _print(path, record)
        print_notes(report.given.notes)
    if preview is not None:
        write_picture(preview, report.preview(clip))
        say_next(f"look at {preview}")
    if clip is None and not json:
        say_next(f"vostrack mask check {shlex.quote(path)} CLIP, which says whether size and frames fit the clip")


@app.command(cls=Command)
def convert(
    path: MaskPath,
    clip: OwnClip = None,
    out: Annotated[
        Path | None,
        in_output("--out", "-o", metavar="OUT", help="A PNG for one frame, or a folder.", show_default=False),
    ] = None,
    name: Names = None,
    resize_mask: ResizeMask = False,
    background: Background = None,
    invert_mask: InvertMask = False,
    no_background: NoBackground = False,
    overwrite: Overwrite = False,
) -> None:
    """Write masks as palette PNGs, whose values are object ids: one file, or a folder named by frame.

    Examples:
        vostrack mask convert annotations.json dog.mp4 -o masks
        vostrack mask convert 40:labelme.json dog.mp4 -o 40.png
    """
    from vostrack.run.mask_report import write_masks
    from vostrack.run.place import default_folder, held

    if out is None:
        raise typer.BadParameter("say where to, as in -o masks or -o mask.png", param_hint="--out")
    report = _report(path, clip, name, resize_mask, background, invert_mask, no_background)
    inputs, names = [Path(path), *([clip] if clip else [])], frame_names(clip) if clip else ()
    written = write_masks(report.given, out, overwrite, inputs, names)
    print_notes(report.given.notes)
    print(f"{counted(len(written), 'mask')}: {shown(out)}", file=sys.stderr)
    frame = "" if out.is_dir() else f"{next(iter(report.given.labels))}:"
    called = "".join(f" --name {shlex.quote(f'{title}={number}')}" for number, title in report.given.names.items())
    given = f"{shlex.quote(str(clip or 'CLIP'))} -m {shlex.quote(f'{frame}{out}')}{called}"
    say_next(f"vostrack segment {given}{' -o OUT' if clip and held(default_folder(clip)) else ''}")


def _report(
    path: str,
    clip: Path | None,
    names: list[str] | None,
    resize_mask: bool,
    background: str | None,
    invert_mask: bool,
    no_background: bool,
) -> Any:
    """What is made of a mask."""
    from vostrack.run.mask_report import check_mask
    from vostrack.video.ground import Reading

    masks = parse_masks([path], frame_names(clip) if clip is not None else ())
    if clip is not None:
        check_order(clip, masks)
    reading = Reading(resize_mask, parse_color(background), invert_mask, no_background)
    return check_mask(masks, clip, names=parse_names(names), reading=reading)


def _print(path: str, record: dict[str, Any]) -> None:
    """What is in a mask, as lines for people."""
    height, width = record["size"]
    count = counted(len(record["frames"]), "frame")
    print(f"{shown(path)}: {record['kind']}, {width}x{height}, masks of {count}")
    rows = [("frame", "object", "name", "colour", "pixels", "share")]
    for frame in record["frames"]:
        for number, part in frame["objects"].items():
            called, share = record["objects"][number], f"{100 * part['share']:.2f} %"
            told = called["name"] or "", called["color"] or ""
            rows.append((str(frame["frame"]), number, *told, f"{part['pixels']:,}", share))
    widths = [max(map(len, column)) for column in zip(*rows[: _MOST_ROWS + 1], strict=True)]
    for row in rows[: _MOST_ROWS + 1]:
        print(escaped("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True))).rstrip())
    if len(rows) > _MOST_ROWS + 1:
        print(f"and {len(rows) - 1 - _MOST_ROWS} more; --json has all")
