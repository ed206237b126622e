"""`vostrack segment`: a clip and masks in, a mask for every frame out."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from vostrack.adapt.config import PRESETS
from vostrack.cli.console import Form, FrameBar, mending, pasted, printed_summary
from vostrack.cli.help import (
    DEFAULT_SIZE,
    Background,
    ClipPath,
    Deinterlace,
    Device,
    Fps,
    FrameRange,
    Gone,
    InvertMask,
    Json,
    Method,
    Names,
    NoBackground,
    OverlayLabels,
    OverlayStyle,
    Overwrite,
    Progress,
    Quiet,
    ResizeMask,
    Size,
    StartNumber,
    Weights,
    in_input,
    in_method,
    in_output,
    in_refinement,
    in_run,
)
from vostrack.cli.settings import (
    parse_all_settings,
    parse_color,
    parse_gone,
    parse_moment,
    parse_names,
    parse_range,
    parse_rate,
    parse_size,
)
from vostrack.formats import FORMATS
from vostrack.methods import DEFAULT, QUALITY, Direction, OnCut, method_class, preset_name, registered
from vostrack.refine import REFINERS
from vostrack.run.place import below, check_free, default_folder
from vostrack.video.look import Style

Moment = int | Fraction

_SMALLER = 240


def segment(
    clip: ClipPath,
    mask: Annotated[
        list[str],
        in_input(
            "--mask",
            "-m",
            metavar="[FRAME:]PATH",
            help="Mask of the first frame: an image in flat colours on black, a folder with a file for each object, "
            "annotations, a matte or EXR layers. For another frame: 40:PATH, 12.5s:PATH or NAME:PATH. Repeatable.",
        ),
    ],
    name: Names = None,
    range_: FrameRange = None,
    direction: Annotated[
        Direction,
        in_input(
            "--direction",
            help="Which way objects are followed from given masks.",
        ),
    ] = Direction.BOTH,
    gone: Gone = None,
    on_cut: Annotated[
        OnCut,
        in_input(
            "--on-cut",
            metavar="WAY",
            help="At a scene cut: `continue` with a warning, or `stop`, with empty masks from there on.",
        ),
    ] = OnCut.CONTINUE,
    resize_mask: ResizeMask = False,
    background: Background = None,
    invert_mask: InvertMask = False,
    no_background: NoBackground = False,
    deinterlace: Deinterlace = False,
    out: Annotated[
        Path | None,
        in_output("--out", "-o", metavar="DIR", help="Output folder.", show_default="CLIP_vostrack beside the clip"),
    ] = None,
    start_number: StartNumber = None,
    fps: Fps = None,
    overlay: Annotated[bool, in_output("--overlay/--no-overlay", help="Write overlay.mp4.")] = True,
    overlay_style: OverlayStyle = Style.TINT,
    overlay_labels: OverlayLabels = False,
    objects: Annotated[bool, in_output("--objects", help="Also write a black and white PNG per object.")] = False,
    probs: Annotated[bool, in_output("--probs", help="Also write probabilities (.npz).")] = False,
    export: Annotated[
        list[str] | None,
        in_output(
            "--export",
            metavar="FORMAT",
            help="Also export, beside OUT; `vostrack export --list` shows formats. Repeatable.",
            autocompletion=lambda: [*FORMATS],
        ),
    ] = None,
    keep: Annotated[
        bool,
        in_output("--keep/--no-keep", help="Keep what `vostrack update` and soft edges in exports need."),
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
        list[str] | None,
        in_method(
            "--set", metavar="KEY=VALUE", help="Change a setting of the method (`vostrack methods NAME`). Repeatable."
        ),
    ] = None,
    adapt: Annotated[
        bool,
        in_refinement("--adapt", help="Learn from all masks and follow again: bad masks get better, good ones worse."),
    ] = False,
    adapt_live: Annotated[
        bool, in_refinement("--adapt-live", help="The same in one pass, learning from earlier frames only.")
    ] = False,
    adapt_preset: Annotated[
        str, in_refinement(metavar="NAME", help=f"Named settings of the adaptation: {', '.join(PRESETS)}.")
    ] = "default",
    adapt_set: Annotated[
        list[str] | None,
        in_refinement(
            "--adapt-set", metavar="KEY=VALUE", help="Change a setting (`vostrack methods adaptation`). Repeatable."
        ),
    ] = None,
    refine: Annotated[
        str | None,
        in_refinement(
            "--refine", metavar="crf", help="Fit the borders of masks to edges in the image.", show_default="no"
        ),
    ] = None,
    refine_set: Annotated[
        list[str] | None,
        in_refinement(
            "--refine-set", metavar="KEY=VALUE", help="Change a setting (`vostrack methods crf`). Repeatable."
        ),
    ] = None,
    refine_feedback: Annotated[
        bool, in_refinement("--refine-feedback", help="Let the method continue from refined masks.")
    ] = False,
    device: Device = "auto",
    resume: Annotated[bool, in_run("--resume", help="Go on with an interrupted run.")] = False,
    progress: Progress = Form.AUTO,
    quiet: Quiet = False,
) -> None:
    """Follow the objects of a mask through a clip.

    Examples:
        vostrack segment dog.mp4 --mask first.png
        vostrack segment frames/ -m first.png -m 40:second.png --gone 2@60- -o result
        vostrack segment dog.mp4 -m first.png --method mast-mem --size 240
        vostrack segment dog.mp4 -m first.png --adapt --refine crf
        vostrack segment dog.mp4 -m first.png --name dog=#ff0000 --name cat=#00ff00
        vostrack segment dog.mp4 -m first.png --range 40-60
        vostrack segment dog.mp4 -m first.png --export prores4444
        vostrack segment dog.mp4 -m first.png --resume

    Masks go to OUT/masks, one palette PNG for each frame, and OUT/overlay.mp4 shows them over the clip.
    """
    options = dict(locals())
    _check_together(options)
    _parsed(options)
    plausible = _plausible(clip, mask, refine)
    free = partial(check_free, out or default_folder(clip), overwrite, resume)
    usual = (preset, adapt_preset) == ("default", "default") and not (set_ or adapt_set or refine_set)
    if plausible and usual and method in registered():
        free()  # before torch is imported
    arguments = segment_arguments(options)
    if plausible:
        free()  # before the network is loaded
    from vostrack.run.segment import segment as run

    quicker = partial(_quicker, clip, method, preset, arguments["size"], arguments["adapt"])
    with FrameBar(clip.name, quiet, form=progress, quicker=quicker) as bar:
        summary: dict[str, Any] = run(**arguments, callbacks=bar)
    printed_summary(summary, json, quiet or progress is Form.JSONL, _mend)


def segment_arguments(options: Mapping[str, Any], base: Path = Path()) -> dict[str, Any]:
    """What `vostrack.segment` is called with, from values of the options, which a plan of many clips has too.

    Args:
        options: by name of the parameters of the command, all of them.
        base: what relative paths begin at.
    """
    _check_together(options)
    given, parsed = SimpleNamespace(**options), _parsed(options)
    clip = below(base, given.clip)
    masks = parse_masks(given.mask, frame_names(clip), base)
    check_order(clip, masks)
    form = "clip" if given.adapt else "live" if given.adapt_live else None
    settings: dict[str, Any] = parse_all_settings(
        given.method,
        given.preset,
        given.set_,
        form,
        given.adapt_preset,
        given.adapt_set,
        given.refine,
        given.refine_set,
    )
    if given.refine_feedback:
        settings["refine_settings"]["feedback"] = True
    wanted = {"masks": True, "overlay": given.overlay, "objects": given.objects, "probs": given.probs}
    as_they_are = (
        *("out", "start_number", "method", "preset", "device", "adapt_preset", "refine", "overlay_style"),
        *("overlay_labels", "direction", "keep", "on_cut", "resize_mask", "invert_mask", "no_background"),
        *("deinterlace", "overwrite", "resume"),
    )
    return {name: options[name] for name in as_they_are} | {
        "clip": clip,
        "masks": masks,
        **parsed,
        "weights": _located(given.weights, base),
        "adapt": form,
        **settings,
        "outputs": [name for name, on in wanted.items() if on],
        "exports": given.export or [],
    }


def _parsed(options: Mapping[str, Any]) -> dict[str, Any]:
    """What options mean whose text says all of it."""
    return {
        "names": parse_names(options["name"]),
        "range": parse_range(options["range_"]),
        "size": parse_size(options["size"]),
        "gone": parse_gone(options["gone"]),
        "background": parse_color(options["background"]),
        "fps": parse_rate(options["fps"]),
    }


def _located(weights: str | None, base: Path) -> str | Path | None:
    """A file of weights, or a name."""
    return base / weights if weights and (base / weights).is_file() else weights


def _check_together(options: Mapping[str, Any]) -> None:
    """Refuse options that exclude each other."""
    given = SimpleNamespace(**options)
    if given.resume and given.overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other", param_hint="--resume")
    if not given.overlay and (given.overlay_labels or given.overlay_style != Style.TINT):
        raise typer.BadParameter(
            "there is no overlay with --no-overlay", param_hint="--overlay-style, --overlay-labels"
        )
    if given.adapt and given.adapt_live:
        raise typer.BadParameter("--adapt and --adapt-live exclude each other", param_hint="--adapt")
    if not (given.adapt or given.adapt_live) and (given.adapt_set or given.adapt_preset != "default"):
        hint = "--adapt-set" if given.adapt_set else "--adapt-preset"
        raise typer.BadParameter("it needs --adapt or --adapt-live", param_hint=hint)


def _plausible(clip: Path, masks: Sequence[str], refine: str | None) -> bool:
    """Whether clip and masks are there, and masks can be read, as far as that is seen at once.

    What is wrong is said by those that read them: with it, it does not matter yet whether the output folder is free.
    """
    known = refine is None or refine in REFINERS
    return known and _exists(clip) and all(any(map(_readable, _tails(text))) for text in masks)


def _tails(text: str) -> Iterator[Path]:
    """All that may be the path in `FRAME:PATH`: what follows each colon, and the whole."""
    parts = text.split(":")
    return (Path(":".join(parts[start:])) for start in range(len(parts)))


def _readable(path: Path) -> bool:
    """Whether there is a folder, or an image that is whole."""
    from PIL import Image

    from vostrack.errors import damage_as

    if not _exists(path) or not path.is_file():
        return _exists(path) and path.is_dir()
    with (
        suppress(ValueError),
        damage_as(ValueError),
        warnings.catch_warnings(action="ignore"),
        Image.open(path) as image,
    ):
        image.verify()
        return True
    return False


def _mend(run: Path) -> str:
    """How to mend a frame of a run, as an example the one whose mask would help most; else how to hand masks over."""
    from vostrack.errors import VostrackError
    from vostrack.run.suggestions import read_rows, suggest

    try:
        rows = read_rows(run)
        if all(row.confidence == 1 for row in rows):  # nothing was predicted
            return f"to hand them over: vostrack export {pasted(run)} --format FORMAT"
        frame = next((each.frame for each in suggest(run, 1)), rows[-1].frame)
        return f"to mend a frame, such as {frame}: {mending(run, frame)}"
    except VostrackError:  # what is there of an earlier run may be less than this
        return ""


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


def parse_masks(texts: Sequence[str], names: Sequence[str] = (), base: Path = Path()) -> dict[Moment | None, Path]:
    r"""Paths by frame or time, from `FRAME:PATH`, `TIME:PATH`, `NAME:PATH`, or `PATH` alone.

    What stands before the path is a frame as `40`, a time as `12.5s` or `00:00:12.5`, or the name of a frame of a
    folder. All else is part of the path, as in `C:\mask.png` and `-1:mask.png`. A file that is there under the whole
    name is a path too, unless the rest is there as well.

    Args:
        texts: as typed.
        names: file names of the frames of a folder, in order.
        base: what relative paths begin at.

    Returns:
        Paths; None stands for the first frame, or all that a file of several images names.
    """
    from vostrack.errors import MaskError
    from vostrack.files import shown

    def exists(text: str) -> bool:
        return _exists(base / text)

    paths: dict[Moment | None, Path] = {}
    for text in texts:
        if not text.strip():
            raise MaskError("the mask is an empty name; expected PATH or FRAME:PATH, such as 0:first.png")
        moment, rest = split_head(text, names)
        path_first, _, last = text.rpartition(":")
        if moment is None and last.isdecimal() and not exists(text) and path_first and exists(path_first):
            raise MaskError(f"the frame comes first: {last}:{shown(path_first)}")
        if not rest and not exists(text):
            raise MaskError(f"{shown(text)} names no mask: give FRAME:PATH without a space, such as 12:mask.png")
        number, _, after = text.partition(":")
        if moment is None and after and re.fullmatch(r"[\d.,+-]+s?", number) and not exists(text) and exists(after):
            raise MaskError(
                f"{shown(number)} is not the number of a frame: give a whole number from 0, as in 12:mask.png, "
                "or a time, as in 12.5s:mask.png"
            )
        if moment is None and not exists(text) and (close := _frame_before(text)) and exists(close[1]):
            raise MaskError(f"{shown(text)} is not there; if it is for frame {close[0]}, give {shown(':'.join(close))}")
        if moment is None or (exists(text) and not exists(rest)):
            moment, rest = None, text
        if moment in paths:
            from vostrack.video.ranges import two_masks

            raise MaskError(two_masks(moment, paths[moment], base / rest))
        paths[moment] = below(base, rest)
    return paths


def _frame_before(text: str) -> tuple[str, str] | None:
    """The frame and the path that `30-mask.png` and the like may mean."""
    match = re.fullmatch(r"([0-9.:]+s?)[^0-9A-Za-z./\\]+(.+)", text, re.DOTALL)
    return None if match is None or parse_moment(match[1]) is None else (match[1], match[2])


def split_head(text: str, names: Sequence[str]) -> tuple[Moment | None, str]:
    """The frame or time before a path, and the path; None where all of the text is that.

    Args:
        text: as typed.
        names: file names of the frames of a folder, in order.

    Raises:
        MaskError: a number is that of a frame, and the name of another.
    """
    from vostrack.errors import MaskError
    from vostrack.files import shown

    match = re.fullmatch(r"([0-9]{1,2}:[0-9]{2}:[0-9.]+|[0-9.]+s?):(.*)", text, re.DOTALL)
    moment = parse_moment(match[1]) if match else None
    named = [
        (len(known), index)
        for index, name in enumerate(names)
        for known in (name, PurePath(name).stem)
        if text.startswith(f"{known}:")
    ]
    if not named:
        return (None, text) if match is None or moment is None else (moment, match[2])
    length, index = max(named)
    if isinstance(moment, int) and index != moment < len(names) and match and len(match[1]) == length:
        raise MaskError(
            f"{match[1]} is frame {moment}, which is {shown(names[moment])}, and {shown(names[index])}, which is frame "
            f"{index}: give the one that you mean by its name with the ending, as in {shown(names[index])}"
        )
    return index, text[length + 1 :]


def parse_frame(text: str, names: Sequence[str], hint: str) -> Moment:
    """A frame or a time; `names` are the file names of the frames of a folder, and `hint` the option, for messages."""
    moment, rest = split_head(f"{text}:", names)
    if moment is None or rest:
        raise typer.BadParameter(
            f"expected a frame such as 40, a time such as 12.5s or 00:00:12.5, or the name of an image, not {text!r}",
            param_hint=hint,
        )
    return moment


def frame_names(clip: Path) -> list[str]:
    """File names of the frames of a folder, in order; none for a video."""
    from vostrack.video.series import frame_files

    return [path.name for path in frame_files(clip)[0]] if clip.is_dir() else []


def check_order(clip: Path, masks: Mapping[Moment | None, Path]) -> None:
    """Refuse a video as the mask of a file that is none: neither can be meant so."""
    from vostrack.errors import MaskError
    from vostrack.files import shown
    from vostrack.video.series import VIDEO_ENDINGS

    videos = [mask for mask in masks.values() if mask.suffix.lower() in VIDEO_ENDINGS]
    if videos and clip.is_file() and clip.suffix.lower() not in VIDEO_ENDINGS:
        raise MaskError(f"{shown(videos[0])} and {shown(clip)} have changed places: the video is the clip")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
