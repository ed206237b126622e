"""`vostrack review` and `vostrack suggest`: where a run is probably wrong, and which frames to give masks for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vostrack.cli.console import mending, near, say_next
from vostrack.cli.help import Overwrite, Quiet, in_input, in_output
from vostrack.files import shown

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of a complete run.", show_default=False)]


def review(
    run: RunPath,
    clip: Annotated[
        Path | None, in_input("--clip", metavar="CLIP", help="Where the clip is now.", show_default="where it was")
    ] = None,
    out: Annotated[
        Path | None, in_output("--out", "-o", metavar="FILE", help="The page.", show_default="RUN/review.html")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write a page that shows where masks are probably wrong.

    Examples:
        vostrack review dog_vostrack
        vostrack review dog_vostrack -o dog.html --clip moved/dog.mp4

    The page shows the confidence and area of each object over time, the frames to look at first, and the commands that
    mend them. It is one file and needs no network.
    """
    from vostrack.run.inspection import check_output
    from vostrack.run.review import review as write

    if out is not None:
        check_output(out, [clip] if clip is not None else [], overwrite)
    page = write(run, out, clip=clip)
    if not quiet:
        print(f"review: {shown(page)}", file=sys.stderr)
        say_next(f"open {near(page)} in a browser")


def suggest(
    run: RunPath,
    count: Annotated[int, in_output("--count", "-n", metavar="N", min=1, max=100, help="Number of frames.")] = 3,
    quiet: Quiet = False,
) -> None:
    """Print the frames where a mask would help a run most, best first.

    Examples:
        vostrack suggest dog_vostrack
        vostrack suggest dog_vostrack -n 1

    Masks around these frames are probably wrong. The frames lie apart from each other and from given masks.
    """
    from vostrack.run.suggestions import suggest as find

    found = find(run, count)
    for each in found:
        print(each.frame)
    if quiet:
        return
    for each in found:
        who = shown(each.name) or f"object {each.number}"
        print(f"frame {each.frame}: {who}, confidence {each.confidence:.2f}", file=sys.stderr)
    if not found:
        print("no frame: a further mask is not expected to help", file=sys.stderr)
        return
    first = " first" if len(found) > 1 else ""
    say_next(f"paint frame {found[0].frame}{first}: {mending(run, found[0].frame)}")
