"""`vostrack segment`: a clip and masks in, a mask for every frame out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vostrack.adapt.config import PRESETS
from vostrack.cli.console import FrameBar, printed_summary
from vostrack.cli.settings import DEFAULT_SIZE, Size, parse_all_settings, parse_size
from vostrack.methods import DEFAULT


def segment(
    clip: Annotated[Path, typer.Argument(help="A video file or a folder of images.", show_default=False)],
    mask: Annotated[
        list[str],
        typer.Option(
            "--mask", "-m", metavar="[FRAME:]PATH", help="Mask of the first frame, or of another one. Repeatable."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Output folder.", show_default="CLIP_vostrack beside the clip")
    ] = None,
    method: Annotated[str, typer.Option("--method", help="See `vostrack methods`.")] = DEFAULT,
    size: Size = DEFAULT_SIZE,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    preset: Annotated[str, typer.Option(help="Named settings of the method.")] = "default",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the method. Repeatable.")
    ] = None,
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Mend the masks in a second pass, after learning from all of them.")
    ] = False,
    adapt_live: Annotated[
        bool, typer.Option("--adapt-live", help="The same in one pass, from earlier frames only.")
    ] = False,
    adapt_preset: Annotated[
        str, typer.Option(help=f"Named settings of the adaptation: {', '.join(PRESETS)}.")
    ] = "default",
    adapt_set: Annotated[
        list[str] | None,
        typer.Option("--adapt-set", metavar="KEY=VALUE", help="Change a setting of the adaptation. Repeatable."),
    ] = None,
    refine: Annotated[
        str | None, typer.Option("--refine", metavar="crf", help="Refine the masks.", show_default="no")
    ] = None,
    refine_set: Annotated[
        list[str] | None,
        typer.Option("--refine-set", metavar="KEY=VALUE", help="Change a setting of the refinement. Repeatable."),
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights file or name.", show_default="the method's own")] = None,
    overlay: Annotated[bool, typer.Option("--overlay/--no-overlay", help="Write overlay.mp4.")] = True,
    objects: Annotated[bool, typer.Option("--objects", help="Also write a black and white PNG per object.")] = False,
    probs: Annotated[bool, typer.Option("--probs", help="Also write probabilities (.npz).")] = False,
    resize_mask: Annotated[bool, typer.Option("--resize-mask", help="Accept masks of another size.")] = False,
    background: Annotated[
        str | None,
        typer.Option(
            metavar="COLOUR", help="What is background in the masks, such as white or 68,1,84.", show_default="black"
        ),
    ] = None,
    invert_mask: Annotated[bool, typer.Option("--invert-mask", help="Exchange object and background.")] = False,
    no_background: Annotated[bool, typer.Option("--no-background", help="Objects may fill the frame.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Follow the objects of a mask through a clip.

    Masks go to OUT/masks, one palette PNG for each frame, and OUT/overlay.mp4 shows them over the clip.

    [bold]Examples[/bold]

    vostrack segment dog.mp4 --mask first.png

    vostrack segment frames/ -m first.png -m 40:second.png --method mast-mem -o result

    vostrack segment dog.mp4 -m first.png --refine crf --refine-set iterations=5

    vostrack segment dog.mp4 -m first.png --adapt --adapt-set iterations=100

    vostrack segment dog.mp4 -m first.png --resume
    """
    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other", param_hint="--resume")
    if adapt and adapt_live:
        raise typer.BadParameter("--adapt and --adapt-live exclude each other", param_hint="--adapt")
    if not (adapt or adapt_live) and (adapt_set or adapt_preset != "default"):
        hint = "--adapt-set" if adapt_set else "--adapt-preset"
        raise typer.BadParameter("it needs --adapt or --adapt-live", param_hint=hint)
    from vostrack.run.segment import segment as run

    wanted = {"masks": True, "overlay": overlay, "objects": objects, "probs": probs}
    masks = parse_masks(mask)
    form = "clip" if adapt else "live" if adapt_live else None
    settings: dict[str, Any] = parse_all_settings(
        method, preset, set_, form, adapt_preset, adapt_set, refine, refine_set
    )
    with FrameBar(clip.name, quiet) as bar:
        summary: dict[str, Any] = run(
            clip,
            masks,
            out,
            method=method,
            weights=weights,
            preset=preset,
            size=parse_size(size),
            device=device,
            adapt=form,
            adapt_preset=adapt_preset,
            refine=refine,
            **settings,
            outputs=[name for name, on in wanted.items() if on],
            resize_mask=resize_mask,
            background=None if background is None else parse_color(background),
            invert_mask=invert_mask,
            no_background=no_background,
            overwrite=overwrite,
            resume=resume,
            callbacks=bar,
        )
    printed_summary(summary, json, quiet)


def parse_masks(texts: Sequence[str]) -> dict[int, Path]:
    r"""Paths by frame, from `FRAME:PATH`, or `PATH` for frame 0.

    Only digits before the first colon are a frame: `C:\mask.png` and `-1:mask.png` are paths. A file that is there
    under the whole name is a path too, unless the rest is there as well.
    """
    from vostrack.errors import MaskError
    from vostrack.files import shown

    paths: dict[int, Path] = {}
    for text in texts:
        if not text.strip():
            raise MaskError("the mask is an empty name; expected PATH or FRAME:PATH, such as 0:first.png")
        match = re.fullmatch(r"([0-9]{1,9}):(.+)", text, re.DOTALL)
        path_first, _, last = text.rpartition(":")
        if not match and last.isdecimal() and not _exists(text) and path_first and _exists(path_first):
            raise MaskError(f"the frame comes first: {last}:{shown(path_first)}")
        if re.fullmatch(r"[0-9]{1,9}:", text) and not _exists(text):
            raise MaskError(f"{shown(text)} names no mask: give FRAME:PATH without a space, such as 12:mask.png")
        number, _, rest = text.partition(":")
        if not match and rest and re.fullmatch(r"[\d.,+-]+s?", number) and not _exists(text) and _exists(rest):
            raise MaskError(
                f"{shown(number)} is not the number of a frame: give a whole number from 0, as in 12:mask.png"
            )
        whole = match is None or (_exists(text) and not _exists(match[2]))
        frame, path = (0, Path(text)) if match is None or whole else (int(match[1]), Path(match[2]))
        if frame in paths:
            raise MaskError(
                f"two masks for frame {frame}: {shown(paths[frame])} and {shown(path)}; "
                "give one image, a folder with one file per object, or FRAME:PATH for another frame"
            )
        paths[frame] = path
    return paths


def parse_color(text: str) -> int | tuple[int, int, int]:
    """A number or a colour: `128`, `68,1,84`, `white`, `#440154`, the last also without #, which a shell may drop."""
    from PIL import ImageColor

    try:
        if re.fullmatch(r"[0-9]{1,3}(,[0-9]{1,3},[0-9]{1,3})?", text):
            levels = [int(level) for level in text.split(",")]
        else:
            digits = re.fullmatch(r"[0-9a-fA-F]{6}", text)
            levels = list(ImageColor.getrgb(f"#{text}" if digits else text)[:3])
        if max(levels) > 255:
            raise ValueError
    except ValueError:
        raise typer.BadParameter(
            "expected a colour such as white, 68,1,84 or #440154, or a number from 0 to 255", param_hint="--background"
        ) from None
    return levels[0] if len(levels) == 1 else (levels[0], levels[1], levels[2])


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False
