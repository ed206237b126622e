"""`vostrack speed`: how long presets take on this machine; `device`: all of them, at several sizes and precisions;
`dense`: windows against all pairs.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vostrack.cli.benchmark_tables import SequenceBar, print_json, print_line
from vostrack.cli.console import say_next
from vostrack.cli.help import (
    DEFAULT_SIZE,
    Background,
    Command,
    DefaultGroup,
    Device,
    InvertMask,
    Json,
    Method,
    NoBackground,
    ResizeMask,
    Size,
    Weights,
    in_input,
    in_method,
    in_run,
)
from vostrack.cli.pace import duration
from vostrack.cli.settings import parse_color, parse_size
from vostrack.errors import counted
from vostrack.files import shown
from vostrack.methods import DEFAULT, QUALITY, WORKING_SIZE
from vostrack.notes import Code, Note

if TYPE_CHECKING:
    from vostrack.benchmark.speed import Timing
    from vostrack.types import LabelMap

_WIDTH = 80
_BUSY = 0.7
_DEMO_FRAMES = 300
"""Length of the clip that an estimate is for, where there is none of the user's or it does not say."""

_ABOUT = (
    "Seconds a frame: medians of {} once the memory is full; `all` is the time from one mask to the next. Decoding and "
    "writing (masks and overlay, means) go on beside the rest. MiB: peak memory of the process."
)

app = typer.Typer(name="speed", cls=DefaultGroup)


@app.callback()
def speed() -> None:
    """Time the presets on this machine.

    Examples:
        vostrack speed dog.mp4 --mask first.png
        vostrack speed device --device cuda --json
        vostrack speed dense --channels 512 --height 480 --width 854

    `presets` may be left out; `vostrack speed presets --help` shows its options.
    """


@app.command("presets", cls=Command)
def presets(
    clip: Annotated[
        Path | None,
        typer.Argument(metavar="CLIP", help="A video or a folder of images.", show_default="that of `vostrack demo`"),
    ] = None,
    mask: Annotated[
        Path | None, in_input("--mask", "-m", metavar="PATH", help="Mask of its first frame.", show_default=False)
    ] = None,
    resize_mask: ResizeMask = False,
    background: Background = None,
    invert_mask: InvertMask = False,
    no_background: NoBackground = False,
    objects: Annotated[
        str, in_input("--objects", metavar="N,N,...", help="Numbers of objects, besides that of the mask.")
    ] = "1,4,16",
    frames: Annotated[int, in_input(metavar="N", min=1, max=1000, help="Frames to time once the memory is full.")] = 6,
    json: Json = False,
    method: Method = DEFAULT,
    preset: Annotated[
        list[str] | None,
        in_method(
            "--preset",
            metavar="NAME",
            help="Preset to time, the more accurate ones last. Repeatable.",
            show_default=", ".join(QUALITY),
        ),
    ] = None,
    size: Size = DEFAULT_SIZE,
    weights: Weights = None,
    minutes: Annotated[float, in_run(metavar="N", min=0, help="How long the whole clip may take.")] = 10,
    device: Device = "auto",
) -> None:
    """Time each preset part by part, estimate the whole clip, and recommend a preset.

    Examples:
        vostrack speed
        vostrack speed dog.mp4 --mask first.png
        vostrack speed dog.mp4 -m first.png --objects 1 --minutes 30

    Each preset follows a few frames in a process of its own; nothing is written. For other numbers of objects, those of
    the mask are cut into that many parts of equal area. Without a clip, that of the demo is used, with its objects as
    one. Let nothing else run meanwhile.
    """
    from vostrack.benchmark.speed import SpeedTask, time_presets
    from vostrack.methods import configure, method_class
    from vostrack.run.pipeline import PipelineConfig
    from vostrack.video.ground import Reading

    if (clip is None) != (mask is None):
        raise typer.BadParameter("a clip and the mask of its first frame go together", param_hint="CLIP, --mask")
    working, counts = parse_size(size), _counts(objects)
    names = (
        list(dict.fromkeys(preset or ()))
        or [name for name in QUALITY if name in method_class(method).presets]
        or ["default"]
    )
    for name in names:
        configure(method, name)  # fails, where it does, before anything is made
    reading = Reading(resize_mask, parse_color(background), invert_mask, no_background)
    with TemporaryDirectory() as folder, SequenceBar("timing presets", "start again with the same command") as bar:
        if clip is None or mask is None:
            source, given, about = _demo(Path(folder), method, names, frames, working)
        else:
            source, (given, about) = clip, _opened(clip, mask, reading)
        numbers = (len(given.ids), *counts)
        configs = [
            PipelineConfig(method=method, preset=name, weights=weights, size=working, device=device) for name in names
        ]
        if (note := _busy()) is not None:
            bar.note(Note(Code.PROCESSOR_BUSY, note))
        timings = time_presets([SpeedTask(config, source, given, numbers, frames) for config in configs], bar)
    report = _report(timings, about, minutes, device) | {"method": method, "size": working, "timed_frames": frames}
    if json:
        print_json(report)
    else:
        _print(report, timings)
        _say_next(report, clip, mask, size)


def _busy() -> str | None:
    """What to say where other programs keep the processor busy, as far as the system tells."""
    cores, load = os.cpu_count() or 1, os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < cores * _BUSY:
        return None
    return f"other programs are at work (load {load:.1f}, {counted(cores, 'core')}): all times will be too long"


def _counts(text: str) -> list[int]:
    from vostrack.types import MAX_OBJECTS

    parts = text.split(",")
    if not all(re.fullmatch(" *[0-9]{1,3} *", part) and 0 < int(part) <= MAX_OBJECTS for part in parts):
        raise typer.BadParameter(f"expected numbers from 1 to {MAX_OBJECTS} such as 1,4,16", param_hint="--objects")
    return [int(part) for part in parts]


def _opened(clip: Path, mask: Path, reading: Any) -> tuple[LabelMap, dict[str, Any]]:
    """The first mask of a clip, and what is to be said of the clip."""
    from vostrack.run.given import choose_masks
    from vostrack.video.masks import read_prompts
    from vostrack.video.reader import open_clip

    _, masks = choose_masks(clip, None, mask)
    with open_clip(clip) as stream:
        first = next(iter(read_prompts(masks, stream.size, reading, stream.stored_size).labels.values()))
        about = {"clip": clip.name, "frame_size": list(stream.size), "frames": stream.count}
    return first, about | {"objects": len(first.ids)}


def _demo(
    folder: Path, method: str, names: Sequence[str], frames: int, size: int | None
) -> tuple[Path, LabelMap, dict[str, Any]]:
    """A clip that is just long enough, and all its objects as one."""
    from vostrack.benchmark.speed import frames_to_fill, split
    from vostrack.methods import configure
    from vostrack.video.ground import Reading
    from vostrack.video.synthetic import clip_size, write_clip

    fill = max(frames_to_fill(configure(method, name)) for name in names)
    write_clip(folder, 1 + fill + frames, clip_size(max(size or int(WORKING_SIZE.default), 48)))
    given, about = _opened(folder / "clip.mp4", folder / "first.png", Reading())
    return folder / "clip.mp4", split(given, 1), about | {"clip": None, "frames": None, "objects": 1}


def _report(timings: Sequence[Timing], about: Mapping[str, Any], minutes: float, device: str) -> dict[str, Any]:
    """All that was found, as `--json` prints it."""
    from vostrack.benchmark.speed import recommended

    count = about["frames"] or _DEMO_FRAMES
    seconds = {each.preset: each.seconds * count for each in timings if each.objects == about["objects"]}
    return {
        **about,
        **_machine(device),
        "timings": [each.to_json() for each in timings],
        "estimate": {"frames": count, "seconds": {name: round(value, 1) for name, value in seconds.items()}},
        "minutes": minutes,
        "recommended": recommended(seconds, 60 * minutes),
    }


def _print(report: Mapping[str, Any], timings: Sequence[Timing]) -> None:
    """Print a table of seconds a frame, in 80 columns, and what follows from it."""
    height, width = report["frame_size"]
    many, threads = counted(report["objects"], "object"), counted(report["threads"], "thread")
    about = (
        f"{width}x{height}, {many}; {report['method']}, size {report['size'] or 'full'}, {report['device']}, {threads}"
    )
    print_line(f"{shown(report['clip'] or 'clip of the demo')}: {about}\n")
    wide = {part: max(len(part), 6) for part in timings[0].parts}
    print_line(f"{'preset':<9}objects {' '.join(f'{part:>{wide[part]}}' for part in wide)}    all   fps   MiB")
    digits = _decimals([seconds for each in timings for seconds in (each.seconds, *each.parts.values())], 6)
    rates = _decimals([1 / each.seconds for each in timings], 5)
    for each in timings:
        parts = " ".join(f"{value:>{wide[part]}.{digits}f}" for part, value in each.parts.items())
        memory = f"{each.peak_rss_mb:.0f}" if each.peak_rss_mb else "-"
        rate = f"{each.seconds:>6.{digits}f} {1 / each.seconds:>5.{rates}f}"
        print_line(f"{shown(each.preset):<9}{each.objects:>7} {parts} {rate} {memory:>5}")
    print_line("\n" + fill(_ABOUT.format(report["timed_frames"]), _WIDTH))
    estimate, chosen, limit = report["estimate"], report["recommended"], duration(60 * report["minutes"])
    times = ", ".join(f"{name} {duration(value)}" for name, value in estimate["seconds"].items())
    verdict = f"Recommended: {chosen}, the most accurate within {limit}." if chosen else f"None is done within {limit}."
    whole = "All " if report["frames"] else ""
    print_line(fill(f"{whole}{estimate['frames']} frames, {many}: {times}. {verdict}", _WIDTH))


def _decimals(values: Sequence[float], room: int) -> int:
    """Decimals, three at most, with which the largest of some numbers takes so many characters."""
    return max(0, min(3, room - 1 - len(f"{max(values):.0f}")))


def _say_next(report: Mapping[str, Any], clip: Path | None, mask: Path | None, size: str) -> None:
    chosen = report["recommended"]
    preset = chosen or next(iter(report["estimate"]["seconds"]))
    words = ["vostrack", "segment", str(clip or "VIDEO.mp4"), "--mask", str(mask or "FIRST.png"), "--preset", preset]
    words += ["--method", report["method"]] if report["method"] != DEFAULT else []
    smaller = "240" if not chosen and (report["size"] or 9999) > 240 else size
    words += ["--size", smaller] if smaller != DEFAULT_SIZE else []
    say_next(shlex.join(words))


@app.command("device", cls=Command)
def on_device(
    sizes: Annotated[
        str, in_input(metavar="PX,PX,...", help="Short sides of the clip, in pixels; frames are not resized.")
    ] = "480,1080",
    objects: Annotated[str, in_input("--objects", metavar="N,N,...", help="Numbers of objects.")] = "1,8",
    frames: Annotated[int, in_input(metavar="N", min=1, max=1000, help="Frames to time, once the memory is full.")] = 6,
    json: Json = False,
    method: Method = DEFAULT,
    preset: Annotated[
        list[str] | None,
        in_method(metavar="NAME", help="Preset to time. Repeatable.", show_default=", ".join(QUALITY)),
    ] = None,
    precision: Annotated[
        list[str] | None,
        in_method(
            metavar="NAME", help="32, or auto: bfloat16 where that is fast. Repeatable.", show_default="32, auto"
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Time all presets on a device, from decoding to writing, at several sizes and in both precisions.

    Examples:
        vostrack speed device
        vostrack speed device --device cuda --json

    The clip is that of the demo, drawn at each size, with its objects cut into the number wanted. Columns are those of
    `vostrack speed`; with CUDA, MiB is the peak memory of the device.
    """
    from vostrack.benchmark.speed import SpeedTask, time_presets
    from vostrack.run.pipeline import PipelineConfig

    counts, names = tuple(_counts(objects)), tuple(preset or QUALITY)
    sides = [parse_size(part.strip(), "--sizes") for part in sizes.split(",")]
    rows = []
    with SequenceBar("timing presets", "start again with the same command") as bar:
        for side in sides:
            with TemporaryDirectory() as folder:
                source, given, about = _demo(Path(folder), method, names, frames, side)
                for each in precision or ("32", "auto"):
                    pipelines = [
                        PipelineConfig(method, name, {"precision": each}, size=None, device=device) for name in names
                    ]
                    timings = time_presets([SpeedTask(p, source, given, counts, frames) for p in pipelines], bar)
                    rows += [{"size": about["frame_size"], "precision": each, **timing.to_json()} for timing in timings]
    report = {"method": method, "timed_frames": frames, **_machine(device), "timings": rows}
    if json:
        print_json(report)
        return
    print_line(f"{method}, {report['device']}, {counted(report['threads'], 'thread')}, seconds a frame\n")
    print_line("size      precision preset    objects encode  match enlarge    all    fps   MiB")
    for row in rows:
        (height, width), parts = row["size"], row["parts"]
        memory = row["peak_gpu_mb"] or row["peak_rss_mb"] or 0
        print_line(
            f"{f'{width}x{height}':<9} {row['precision']:<9} {shown(row['preset']):<9} {row['objects']:>7} "
            f"{parts['encode']:>6.3f} {parts['match']:>6.3f} {parts['enlarge']:>7.3f} {row['seconds']:>6.3f} "
            f"{row['fps']:>6.2f} {memory:>5.0f}"
        )


def _machine(device: str) -> dict[str, Any]:
    """What computes."""
    import torch

    from vostrack.device import choose_device

    chosen = choose_device(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else None
    return {"device": str(chosen), "gpu": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


@app.command("dense", cls=Command)
def dense(
    height: Annotated[int, in_input(metavar="PX", min=16, max=2160, help="Height of the image.")] = 480,
    width: Annotated[int, in_input(metavar="PX", min=16, max=3840, help="Width of the image.")] = 854,
    json: Json = False,
    preset: Annotated[str, in_method(metavar="NAME", help="Preset of `anchors`: grid, context, radius.")] = "paper",
    channels: Annotated[int, in_method(metavar="N", min=1, help="Feature channels.")] = 512,
    repeats: Annotated[int, in_run(metavar="N", min=1, help="Runs of each; the best counts.")] = 3,
    device: Device = "auto",
) -> None:
    """Time label propagation on this machine: matching within windows, against matching with the whole frame.

    Examples:
        vostrack speed dense --channels 512 --height 480 --width 854
    """
    from vostrack.benchmark.dense import compare
    from vostrack.device import choose_device
    from vostrack.methods import configure

    config = configure("anchors", preset, {"axes": 0})
    result = compare(config, channels, (height, width), repeats, choose_device(device))
    if json:
        print_json(asdict(result) | {"ratio": result.ratio})
        return
    print(
        f"grid {result.grid[0]}x{result.grid[1]}, {result.channels} channels, {result.frames} frames in memory, "
        f"{result.threads} threads\n"
        f"within windows         {result.restricted:.2f} s a frame\n"
        f"with the whole frame   {result.dense:.2f} s a frame\n"
        f"ratio                  {result.ratio:.1f}\n"
        f"equal labels           {result.equal:.4%}"
    )
