"""`vostrack frame`: saves a frame of a clip, to paint a mask on."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path, PurePath
from typing import Annotated

import typer

from vostrack.cli.console import pasted, plain, say_next
from vostrack.cli.help import ClipPath, Deinterlace, Overwrite, in_output
from vostrack.cli.segment import frame_names, parse_frame
from vostrack.errors import OutputError
from vostrack.files import shown
from vostrack.run.place import default_folder


def frame(
    clip: ClipPath,
    number: Annotated[
        str, typer.Argument(metavar="FRAME", help="Number from 0, time such as 12.5s, or name of an image.")
    ] = "0",
    deinterlace: Deinterlace = False,
    out: Annotated[
        Path | None,
        in_output("--out", "-o", metavar="FILE", help="The PNG.", show_default="CLIP_00040.png beside the clip"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Save a frame of a clip, to paint a mask on.

    Examples:
        vostrack frame dog.mp4
        vostrack frame dog.mp4 40 -o dog.png
        vostrack frame dog.mp4 00:00:12.5
        vostrack frame frames/ shot_1004

    A time means the frame that is shown then. The image is upright and at full size: paint each object on it in a flat
    colour and all else black, and give it as the mask of that frame.
    """
    from vostrack.run.inspection import check_output, read_frames, write_picture
    from vostrack.video.playback import Playback
    from vostrack.video.ranges import choose
    from vostrack.video.stream import size_text

    names = frame_names(clip)
    moment = parse_frame(number, names, "FRAME")
    index = choose(clip, (moment, moment), {})[0].first
    place = Path(os.path.abspath(clip))
    default = place.with_name(f"{place.name if place.is_dir() else place.stem}_{index:05d}.png")
    path = (clip.with_name(default.name) if clip.name else default) if out is None else out
    if path.suffix.lower() != ".png":
        raise OutputError(f"{shown(path)}: a frame is saved as a PNG, so give a name that ends with .png")
    if place.is_dir() and path.resolve().parent == place.resolve():
        raise OutputError(f"{shown(path)} would be among the frames of the clip: choose another --out")
    if clip.exists():  # else reading it says so
        check_output(path, [clip], overwrite)
    (image,) = read_frames(clip, [index], Playback(deinterlace))
    write_picture(path, image.permute(1, 2, 0).numpy())
    print(f"frame {index}, {size_text((image.shape[1], image.shape[2]))}: {shown(path)}", file=sys.stderr)
    named = any(str(index) == PurePath(name).stem for name in names)
    mask = shlex.quote(plain(f"{names[index] if named else index}:{path.with_name(f'{path.stem}_mask.png')}"))
    paint = f"paint the objects on it in flat colours, all else black, save it as {path.stem}_mask.png, then "
    run, whole = default_folder(clip), " --deinterlace" if deinterlace else ""
    if (run / "summary.json").is_file():
        say_next(f"{paint}vostrack update {pasted(run)} -m {mask}")
    else:
        start = f"vostrack segment {pasted(clip)} -m {mask}{whole}"
        say_next(f"{paint}vostrack update RUN -m {mask}, or, without a run, {start}")
