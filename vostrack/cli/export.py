"""`vostrack export`: the masks of a run, for another tool."""

from __future__ import annotations

import json as json_text
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vostrack.cli.console import Form, FrameBar, Stopped, near, pasted, plain, say_next
from vostrack.cli.help import Fps, Json, MovedClip, Overwrite, Progress, Quiet, StartNumber, in_input, in_output, in_run
from vostrack.cli.settings import parse_objects, parse_range, parse_rate
from vostrack.errors import counted
from vostrack.formats import FORMATS


def export(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Output folder of a run, or a folder of palette PNGs.", show_default=False),
    ] = None,
    format_: Annotated[
        str,
        in_output(
            "--format",
            "-f",
            metavar="FORMAT",
            help="A format; --list shows all.",
            autocompletion=lambda: [*FORMATS],
        ),
    ] = "",
    out: Annotated[
        Path | None,
        in_output("--out", "-o", metavar="PATH", help="File or folder to write.", show_default="beside the run"),
    ] = None,
    only: Annotated[
        str | None,
        in_input("--only", metavar="OBJECTS", help="Ids or names: 2 or dog,cat.", show_default="all"),
    ] = None,
    range_: Annotated[
        str | None,
        in_input(
            "--range", metavar="A-B", help="Frames: 40-60, 40- or 1.5s-4s, both ends included.", show_default="all"
        ),
    ] = None,
    clip: MovedClip = None,
    start_number: StartNumber = None,
    fps: Fps = None,
    hard: Annotated[bool, in_output("--hard", help="Hard edges, as in the masks.")] = False,
    feather: Annotated[float, in_output("--feather", metavar="PX", min=0, max=100, help="Blur edges.")] = 0.0,
    grow: Annotated[int, in_output("--grow", metavar="PX", min=0, max=100, help="Make objects larger.")] = 0,
    shrink: Annotated[int, in_output("--shrink", metavar="PX", min=0, max=100, help="Make objects smaller.")] = 0,
    bits: Annotated[int, in_output("--bits", metavar="N", help="Depth of PNGs of `matte`: 8 or 16.")] = 8,
    each: Annotated[bool, in_output("--each", help="A movie, or a folder of cut-outs, for each object.")] = False,
    polygons: Annotated[bool, in_output("--polygons", help="Polygons in COCO instead of run lengths.")] = False,
    folders: Annotated[
        bool, in_output("--folders", help="Images as dog/00000.jpg in COCO, CVAT and YouTube-VIS, for several clips.")
    ] = False,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, in_run("--resume", help="Go on with an interrupted export; a single file starts again.")
    ] = False,
    list_: Annotated[bool, in_run("--list", help="Show all formats.")] = False,
    json: Json = False,
    progress: Progress = Form.AUTO,
    quiet: Quiet = False,
) -> None:
    """Write the masks of a run in the format of another tool.

    Examples:
        vostrack export --list
        vostrack export dog_vostrack --format coco
        vostrack export dog_vostrack --format prores4444 --only dog -o dog.mov
        vostrack export dog_vostrack --format matte --bits 16 --feather 1.5
        vostrack export dog_vostrack --format exr --range 40-60 --start-number 1001

    Retouched masks are exported as they are now. An export gets its final name when it is complete.
    """
    if list_:
        _print_list()
        return
    if run is None or not format_:
        missing = "a RUN" if run is None else "a --format"
        raise typer.BadParameter(f"give {missing}; --list shows all formats", param_hint="export")
    if grow and shrink:
        raise typer.BadParameter("give --grow or --shrink, not both", param_hint="--shrink")
    from vostrack.run.export import export as write

    with FrameBar(run.name, quiet, form=progress) as bar:
        try:
            made: dict[str, Any] = write(
                run,
                format_,
                out,
                only=parse_objects(only),
                range=parse_range(range_),
                start_number=start_number,
                clip=clip,
                fps=parse_rate(fps),
                overwrite=overwrite,
                resume=resume,
                callbacks=bar,
                hard=hard,
                feather=feather,
                grow=grow - shrink,
                bits=bits,
                each=each,
                polygons=polygons,
                folders=folders,
            )
        except Stopped as stop:
            if each or FORMATS[format_].ending:  # else files of frames stay, and can be gone on with
                stop.args = ("nothing was written",)
            raise
    if json:
        print(json_text.dumps(made, indent=2, sort_keys=True))
    elif not quiet and progress is not Form.JSONL:
        objects = counted(len(made["objects"]), "object")
        print(f"{counted(made['frames'], 'frame')}, {objects}: {plain(near(Path(made['out'])))}", file=sys.stderr)
        chosen = {"--range": range_, "--start-number": start_number, "--clip": clip}
        say_next(_opening(made, run, folders, chosen))


def _opening(made: dict[str, Any], run: Path, folders: bool, chosen: dict[str, Any]) -> str:
    """What to do with an export, and where the images are that it names, with the folder of their clip or without.

    `chosen` are options that name them too.
    """
    kind = FORMATS[made["format"]]
    names = dict.fromkeys(made["objects"].values())
    text = kind.opens.format(out=near(Path(made["out"])), names=", ".join(names))
    if not kind.names_images:
        return text
    source = Path(made["clip"] or "CLIP")
    if made["clip"] and source.is_dir():
        return f"{text}; its images are in {near(source.parent if folders else source)}"
    if folders:
        chosen["--out"] = f"images/{source.stem}"
    chosen["--clip"] = chosen["--clip"] or (None if source.exists() else "CLIP")
    options = "".join(f" {flag} {shlex.quote(str(value))}" for flag, value in chosen.items() if value is not None)
    return f"{text}; its images: vostrack export {pasted(run)} --format frames{options}"


def _print_list() -> None:
    """All formats, a line each."""
    width = max(map(len, FORMATS))
    for who in dict.fromkeys(each.who for each in FORMATS.values()):
        print(f"For {who}:")
        for each in (each for each in FORMATS.values() if each.who == who):
            print(f"  {each.name:{width}}  {each.what}")
