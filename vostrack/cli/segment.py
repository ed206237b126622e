"""`vostrack segment`: a clip and masks in, a mask for every frame out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from vostrack.adapt.config import PRESETS
from vostrack.cli.console import Form, FrameBar, printed_summary
from vostrack.cli.help import (
    DEFAULT_SIZE,
    Background,
    ClipPath,
    Device,
    InvertMask,
    Json,
    Method,
    NoBackground,
    OverlayLabels,
    OverlayStyle,
    Overwrite,
    ResizeMask,
    Size,
    Weights,
    in_input,
    in_method,
    in_output,
    in_refinement,
    in_run,
)
from vostrack.cli.settings import parse_all_settings, parse_color, parse_gone, parse_size
from vostrack.methods import DEFAULT, QUALITY, Direction, method_class, preset_name
from vostrack.video.look import Style

_SMALLER = 240


def segment(
    clip: ClipPath,
    mask: Annotated[
        list[str],
        in_input(
            "--mask",
            "-m",
            metavar="[FRAME:]PATH",
            help="Image of the objects in the first frame, or in another: flat colours on black. Repeatable.",
        ),
    ],
    direction: Annotated[
        Direction,
        in_input(
            "--direction",
            help="Follow objects from the frames with masks backwards too, or one way only.",
        ),
    ] = Direction.BOTH,
    gone: Annotated[
        list[str] | None,
        in_input("--gone", metavar="OBJECT@FRAMES", help="Object that is not there: 2@131-160, dog@131-. Repeatable."),
    ] = None,
    resize_mask: ResizeMask = False,
    background: Background = None,
    invert_mask: InvertMask = False,
    no_background: NoBackground = False,
    out: Annotated[
        Path | None,
        in_output("--out", "-o", metavar="DIR", help="Output folder.", show_default="CLIP_vostrack beside the clip"),
    ] = None,
    overlay: Annotated[bool, in_output("--overlay/--no-overlay", help="Write overlay.mp4.")] = True,
    overlay_style: OverlayStyle = Style.TINT,
    overlay_labels: OverlayLabels = False,
    objects: Annotated[bool, in_output("--objects", help="Also write a black and white PNG per object.")] = False,
    probs: Annotated[bool, in_output("--probs", help="Also write probabilities (.npz).")] = False,
    keep: Annotated[
        bool, in_output("--keep/--no-keep", help="Keep what later corrections and soft edges are made from.")
    ] = True,
    overwrite: Overwrite = False,
    json: Json = False,
    method: Method = DEFAULT,
    size: Size = DEFAULT_SIZE,
    weights: Weights = None,
    preset: Annotated[
        str, in_method(metavar="NAME", help="Named settings of the method; `vostrack methods NAME` lists them.")
    ] = "default",
    set_: Annotated[
        list[str] | None, in_method("--set", metavar="KEY=VALUE", help="Change a setting of the method. Repeatable.")
    ] = None,
    adapt: Annotated[
        bool, in_refinement("--adapt", help="Improve the masks in a second pass, after learning from all of them.")
    ] = False,
    adapt_live: Annotated[
        bool, in_refinement("--adapt-live", help="The same in one pass, from earlier frames only.")
    ] = False,
    adapt_preset: Annotated[
        str, in_refinement(metavar="NAME", help=f"Named settings of the adaptation: {', '.join(PRESETS)}.")
    ] = "default",
    adapt_set: Annotated[
        list[str] | None,
        in_refinement("--adapt-set", metavar="KEY=VALUE", help="Change a setting of the adaptation. Repeatable."),
    ] = None,
    refine: Annotated[
        str | None,
        in_refinement(
            "--refine", metavar="crf", help="Fit the borders of the masks to edges of the image.", show_default="no"
        ),
    ] = None,
    refine_set: Annotated[
        list[str] | None,
        in_refinement("--refine-set", metavar="KEY=VALUE", help="Change a setting of the refinement. Repeatable."),
    ] = None,
    refine_feedback: Annotated[
        bool, in_refinement("--refine-feedback", help="Let the method go on with the refined masks.")
    ] = False,
    device: Device = "auto",
    resume: Annotated[bool, in_run("--resume", help="Go on with an interrupted run.")] = False,
    progress: Annotated[
        Form, in_run("--progress", metavar="FORM", help="A bar or lines (auto), or jsonl: JSON lines on stderr.")
    ] = Form.AUTO,
    quiet: Annotated[bool, in_run("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Follow the objects of a mask through a clip.

    Examples:
        vostrack segment dog.mp4 --mask first.png
        vostrack segment frames/ -m first.png -m 40:second.png --gone 2@60- -o result
        vostrack segment dog.mp4 -m first.png --method mast-mem --size 240
        vostrack segment dog.mp4 -m first.png --adapt --refine crf
        vostrack segment dog.mp4 -m first.png --resume

    Masks go to OUT/masks, one palette PNG for each frame, and OUT/overlay.mp4 shows them over the clip.
    """
    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other", param_hint="--resume")
    if not overlay and (overlay_labels or overlay_style is not Style.TINT):
        raise typer.BadParameter(
            "there is no overlay with --no-overlay", param_hint="--overlay-style, --overlay-labels"
        )
    if adapt and adapt_live:
        raise typer.BadParameter("--adapt and --adapt-live exclude each other", param_hint="--adapt")
    if not (adapt or adapt_live) and (adapt_set or adapt_preset != "default"):
        hint = "--adapt-set" if adapt_set else "--adapt-preset"
        raise typer.BadParameter("it needs --adapt or --adapt-live", param_hint=hint)
    from vostrack.run.segment import segment as run

    wanted = {"masks": True, "overlay": overlay, "objects": objects, "probs": probs}
    masks = parse_masks(mask)
    _check_order(clip, masks)
    form = "clip" if adapt else "live" if adapt_live else None
    settings: dict[str, Any] = parse_all_settings(
        method, preset, set_, form, adapt_preset, adapt_set, refine, refine_set
    )
    if refine_feedback:
        settings["refine_settings"]["feedback"] = True
    working = parse_size(size)
    quicker = partial(_quicker, clip, method, preset, working, form)
    with FrameBar(clip.name, quiet, form=progress, quicker=quicker) as bar:
        summary: dict[str, Any] = run(
            clip,
            masks,
            out,
            method=method,
            weights=weights,
            preset=preset,
            size=working,
            device=device,
            adapt=form,
            adapt_preset=adapt_preset,
            refine=refine,
            **settings,
            outputs=[name for name, on in wanted.items() if on],
            overlay_style=overlay_style,
            overlay_labels=overlay_labels,
            direction=direction,
            gone=parse_gone(gone),
            keep=keep,
            resize_mask=resize_mask,
            background=parse_color(background),
            invert_mask=invert_mask,
            no_background=no_background,
            overwrite=overwrite,
            resume=resume,
            callbacks=bar,
        )
    printed_summary(summary, json, quiet or progress is Form.JSONL)


def _quicker(clip: Path, method: str, preset: str, size: int | None, adapt: str | None) -> str:
    """What would take less time; opens the clip, since frames are never enlarged to the working size."""
    from vostrack.errors import VostrackError
    from vostrack.video.reader import open_clip

    try:
        with open_clip(clip) as stream:
            short = min(stream.size)
    except VostrackError:
        short = 0
    quickest = next((name for name in QUALITY if name in method_class(method).presets), preset)
    ways = ["no --adapt" if adapt == "clip" else "no --adapt-live"] if adapt else []
    ways += [f"--preset {quickest}"] if preset_name(method, preset) != quickest else []
    ways += [f"--size {_SMALLER}"] if min(size or short, short) > _SMALLER else []
    return ", or ".join(ways)


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


def _check_order(clip: Path, masks: Mapping[int, Path]) -> None:
    """Refuse a video as the mask of an image: neither can be meant so."""
    from vostrack.errors import MaskError
    from vostrack.files import shown
    from vostrack.video.series import ENDINGS, VIDEO_ENDINGS

    videos = [mask for mask in masks.values() if mask.suffix.lower() in VIDEO_ENDINGS]
    if videos and clip.suffix.lower() in ENDINGS:
        raise MaskError(f"clip and mask have changed places: give {shown(videos[0])} --mask {shown(clip)}")


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False
