"""`vostrack edit`: a page to draw, follow, look and correct."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vostrack.cli.console import pasted, plain, say_next
from vostrack.cli.help import in_input, in_output, in_run
from vostrack.cli.segment import frame_names, parse_masks

if TYPE_CHECKING:
    from vostrack.video.ranges import Span
    from vostrack.web.session import Wanted


def edit(
    clip: Annotated[
        Path,
        typer.Argument(metavar="CLIP", help="A clip, or the output folder of a run.", show_default=False),
    ],
    mask: Annotated[
        list[str] | None,
        in_input("--mask", "-m", metavar="[FRAME:]PATH", help="A mask to begin with. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        in_output("--out", "-o", metavar="DIR", help="Output folder.", show_default="CLIP_vostrack beside the clip"),
    ] = None,
    port: Annotated[
        int, in_run("--port", metavar="N", min=0, max=65535, help="Port of the page.", show_default="any free one")
    ] = 0,
    browser: Annotated[bool, in_run("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Draw masks on a page in your browser, follow objects, and correct.

    Examples:
        vostrack edit dog.mp4
        vostrack edit dog_vostrack
        vostrack edit dog.mp4 --mask first.png --no-browser

    Only this machine can open the page. Drawings are kept in OUT_drawn. Ctrl-C ends the program; the same command
    continues.
    """
    try:
        from vostrack.web.server import serve
    except ImportError as error:
        raise typer.BadParameter(
            f"the page needs more packages ({error.name}): pip install 'vostrack[edit]'", param_hint="edit"
        ) from error
    masks = parse_masks(mask or (), frame_names(clip)) if mask else {}
    folder = serve(clip, masks, out, port, browser, _say, command)
    if (folder / "summary.json").is_file():
        export = f"vostrack export {pasted(folder)} --format NAME hands masks over"
        say_next(f"vostrack edit {pasted(folder)} goes on; {export}")
    else:
        say_next("the same command goes on; nothing was followed yet")


def command(
    clip: Path,
    masks: Mapping[int, Path],
    names: Mapping[int, str],
    gone: Mapping[int, Sequence[tuple[int, int | None]]],
    wanted: Wanted,
    span: Span,
    out: Path,
) -> str:
    """The command that follows what is drawn on the page, into another folder than that of the page's own run."""
    words = ["vostrack segment", pasted(clip)]
    words += [f"-m {frame}:{pasted(path)}" for frame, path in masks.items()]
    words += [f"--name {shlex.quote(f'{name}={number}')}" for number, name in names.items()]
    for number, spans in gone.items():
        words += [f"--gone {number}@{first}-{'' if end is None else end}" for first, end in spans]
    last = "" if span.last is None else span.last
    words += [f"--range {span.first}-{last}"] if (span.first, span.last) != (0, None) else []
    words += [f"--start-number {span.start_number}"] if span.start_number is not None else []
    default = type(wanted)()
    for name in ("method", "preset", "size", "direction"):
        value = getattr(wanted, name)
        words += [f"--{name} {'full' if value is None else value}"] if value != getattr(default, name) else []
    words += [f"-o {pasted(out.with_name(f'{out.name}_again'))}"] if out.exists() else []
    return " ".join(words)


def _say(text: str) -> None:
    print(plain(text), file=sys.stderr, flush=True)
