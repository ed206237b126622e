"""`vostrack update`: a run is corrected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from vostrack.cli.console import Form, FrameBar, Stopped, near, pasted, print_note, printed_summary, say_next
from vostrack.cli.help import Gone, Json, MovedClip, Names, Progress, Quiet, in_input, in_output, in_run
from vostrack.cli.segment import frame_names, parse_frame, parse_masks
from vostrack.cli.settings import parse_gone, parse_names, parse_object, parse_range


def update(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of a complete run.", show_default=False)],
    mask: Annotated[
        list[str] | None,
        in_input(
            "--mask",
            "-m",
            metavar="FRAME:PATH",
            help="Mask of another frame, or one that replaces an earlier mask. Repeatable.",
        ),
    ] = None,
    name: Names = None,
    gone: Gone = None,
    drop_mask: Annotated[
        list[str] | None,
        in_input(
            "--drop-mask", metavar="FRAME", help="Take back the mask of a frame: 40, 12.5s or the name of its image."
        ),
    ] = None,
    drop_gone: Annotated[
        list[str] | None,
        in_input("--drop-gone", metavar="OBJECT", help="Take back every --gone of an object."),
    ] = None,
    clip: MovedClip = None,
    lock: Annotated[
        list[str] | None,
        in_output("--lock", metavar="OBJECT", help="Keep the pixels of a finished object as they are. Repeatable."),
    ] = None,
    lock_range: Annotated[
        list[str] | None,
        in_output("--lock-range", metavar="A-B", help="Keep the masks of these frames as they are. Repeatable."),
    ] = None,
    unlock: Annotated[bool, in_output("--unlock", help="Release what earlier updates locked.")] = False,
    undo: Annotated[bool, in_run("--undo", help="Take back the last update.")] = False,
    json: Json = False,
    progress: Progress = Form.AUTO,
    quiet: Quiet = False,
) -> None:
    """Correct a run with further masks, or by saying when objects are gone.

    Examples:
        vostrack update dog_vostrack -m 40:fix.png
        vostrack update dog_vostrack -m 40:fix.png --lock cat --lock-range 0-30
        vostrack update dog_vostrack --gone dog@131-160
        vostrack update dog_vostrack --drop-mask 40
        vostrack update dog_vostrack --name dog=1
        vostrack update dog_vostrack --undo

    The result equals a run that had all masks from the start. The run stays as it is until the update is complete.
    """
    from vostrack.errors import MaskError
    from vostrack.files import shown

    changes = [name, mask, gone, drop_mask, drop_gone, unlock]
    if undo:
        if any([*changes, lock, lock_range, clip]):
            raise typer.BadParameter("it takes back the last update, and nothing else", param_hint="--undo")
        _take_back(run)
        return
    if not any(changes):
        raise typer.BadParameter(
            "give a mask (-m FRAME:PATH), --name, --gone, --drop-mask, --drop-gone, --unlock or --undo"
            + ("; --lock and --lock-range only say what these must not change" if lock or lock_range else ""),
            param_hint="update",
        )
    from vostrack.formats.readers import read_drawings
    from vostrack.run.update import clip_of

    names = frame_names(clip or clip_of(run))
    masks: dict[Any, Path] = dict(parse_masks(mask or (), names))
    dropped: list[Any] = [parse_frame(text, names, "--drop-mask") for text in drop_mask or ()]
    if None in masks and read_drawings(masks[None], {Path(name).stem for name in names}) is None:
        file = masks[None].name
        number = next(reversed(re.findall(r"[0-9]{1,9}", masks[None].stem)), "40")
        raise MaskError(f"say which frame {shown(file)} is for, as in -m {int(number)}:{shown(file)}")
    spans = [_frames(text) for text in lock_range or ()]
    from vostrack.run.update import update as correct

    _take_threads_of(run)
    with _stopping(), FrameBar(run.name, quiet, form=progress) as bar:
        summary: dict[str, Any] = correct(
            run,
            masks,
            names=parse_names(name),
            gone=parse_gone(gone),
            drop_masks=dropped,
            drop_gone=_objects(drop_gone),
            lock=_objects(lock),
            lock_ranges=spans,
            unlock=unlock,
            clip=clip,
            callbacks=bar,
        )
    named_only = not any(changes[1:])
    why = "to take the names back" if named_only else "if that is no better"
    undoing = f"{why}: vostrack update {pasted(run)} --undo"
    printed_summary(summary, json, quiet or progress is Form.JSONL, lambda out: undoing, look=not named_only)


def _take_threads_of(run: Path) -> None:
    """Work with as many threads as the run had, which a batch may have given fewer: others round differently."""
    import torch

    from vostrack.run.folder import OutputFolder

    if threads := OutputFolder(run).threads():
        torch.set_num_threads(threads)


@contextmanager
def _stopping() -> Iterator[None]:
    """What is said where an update is stopped."""
    try:
        yield
    except Stopped as stop:
        stop.args = ("the run is as it was; go on with the same command",)
        raise


def _objects(texts: list[str] | None) -> list[int | str]:
    """Ids and names of objects."""
    return [parse_object(text) for text in texts or ()]


def _take_back(run: Path) -> None:
    """Undo the last update of a run."""
    from vostrack.run.export import older
    from vostrack.run.update import undo

    undo(run)
    for note in older(run):
        print_note(Console(stderr=True), note)
    say_next(f"look at {near(run)}; the last update was taken back")


def _frames(text: str) -> tuple[int, int]:
    """First and last frame, from `0-80` or `12`."""
    first, last = parse_range(text) or (None, None)
    if not isinstance(first, int) or not isinstance(last, int):
        raise typer.BadParameter(f"expected frames such as 0-80 or 12, found {text!r}", param_hint="--lock-range")
    return first, last
