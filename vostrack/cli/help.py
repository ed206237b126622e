"""Help pages: how they are laid out, the groups that options are in, and the options that several commands have."""

from __future__ import annotations

import os
import re
import shlex
import signal
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from vostrack.cli.console import Form, Stopped
from vostrack.methods import WORKING_SIZE, registered
from vostrack.video.look import Style

in_input, in_output, in_method, in_refinement, in_run = (
    partial(typer.Option, rich_help_panel=group) for group in ("Input", "Output", "Method", "Refinement", "Run")
)

ClipPath = Annotated[Path, typer.Argument(metavar="CLIP", help="A video or a folder of images.", show_default=False)]
FrameRange = Annotated[
    str | None,
    in_input(
        "--range",
        metavar="A-B",
        help="Frames to follow: 40-60, 40- or 1.5s-4s, both ends included.",
        show_default="all",
    ),
]
StartNumber = Annotated[
    int | None,
    in_output(
        "--start-number",
        metavar="N",
        min=0,
        help="Number of the first frame in file names.",
        show_default="its own",
    ),
]
Deinterlace = Annotated[bool, in_input("--deinterlace", help="Make whole frames from interlaced video.")]
Fps = Annotated[
    str | None,
    in_output("--fps", metavar="RATE", help="Frame rate of a folder of images: 25, 24000/1001.", show_default="24"),
]
Names = Annotated[
    list[str] | None,
    in_input(
        "--name",
        metavar="NAME=COLOUR",
        help="Name an object by its colour, id or file: dog=#ff0000, cat=2. Colours get ids in this order. Repeatable.",
    ),
]
ResizeMask = Annotated[bool, in_input("--resize-mask", help="Accept masks of another size.")]
Background = Annotated[
    str | None,
    in_input(
        "--background",
        metavar="COLOUR",
        help="Background colour of masks: white, 68,1,84 or #440154.",
        show_default="black",
    ),
]
InvertMask = Annotated[bool, in_input("--invert-mask", help="Swap object and background in masks.")]
NoBackground = Annotated[bool, in_input("--no-background", help="Masks have no background: objects fill the frame.")]
Method = Annotated[
    str,
    in_method(
        "--method",
        metavar="NAME",
        help="Method that follows objects; see `vostrack methods`.",
        autocompletion=lambda: list(registered()),
    ),
]
Weights = Annotated[
    str | None,
    in_method(
        "--weights",
        metavar="FILE",
        help="File or name of weights; see `vostrack weights`.",
        show_default="the method's own",
    ),
]
Size = Annotated[
    str,
    in_method(
        "--size",
        metavar="PX",
        help=f"{WORKING_SIZE.meaning.capitalize()}, in {WORKING_SIZE.unit}, or `full`; less is quicker.",
    ),
]
DEFAULT_SIZE = str(WORKING_SIZE.default)
Device = Annotated[str, in_run("--device", metavar="NAME", help="Where to compute: auto, cpu, cuda or mps.")]
Jobs = Annotated[int, in_run("--jobs", "-j", metavar="N", min=1, help="Number of processes.")]
Overwrite = Annotated[bool, in_output("--overwrite", help="Replace earlier results.")]
OverlayStyle = Annotated[
    Style, in_output("--overlay-style", metavar="STYLE", help=f"How objects are shown: {', '.join(Style)}.")
]
OverlayLabels = Annotated[
    bool, in_output("--overlay-labels", help="Write ids, names and frame numbers on the overlay.")
]
Json = Annotated[bool, in_output("--json", help="Print the results as JSON on stdout.")]
Gone = Annotated[
    list[str] | None,
    in_input("--gone", metavar="OBJECT@FRAMES", help="Frames without an object: 2@131-160, dog@131-. Repeatable."),
]
MovedClip = Annotated[
    Path | None, in_input("--clip", metavar="CLIP", help="Where the clip is now.", show_default="where it was")
]
Progress = Annotated[
    Form, in_run("--progress", metavar="FORM", help="`auto` for a bar or lines, `jsonl` for JSON lines on stderr.")
]
Quiet = Annotated[bool, in_run("--quiet", "-q", help="Print errors only.")]


_HINTS = {"--mask": "To make one, save a frame with `vostrack frame` and paint objects in flat colours, all else black"}
"""How to come by the value of a required option."""


def joined(text: str) -> str:
    """A docstring with each paragraph on one line, for the terminal to wrap, and its examples on a line each."""
    return "\n\n".join(
        re.sub("\n +", "\n", part) if "\n " in part else part.replace("\n", " ") for part in text.split("\n\n")
    )


class _Page:
    """What the help page of a command and that of a group have in common."""

    help: str | None

    def get_params(self, ctx: Any) -> list[Any]:
        """Flags and arguments name no type; --help is among what concerns the run if the options are in groups."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        grouped = any(getattr(param, "rich_help_panel", None) for param in params)
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
            if param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: None  # of Typer: what the argument is, its help says
            if grouped and param.name == "help":
                param.rich_help_panel = "Run"
        return params

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments that are required stand there as they are called, without the braces of Typer."""
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [re.sub(r"^\{(.+)\}|^\[(\[.+\])\]", r"\1\2", piece) for piece in pieces]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        self.help = self.help and joined(self.help)
        super().format_help(ctx, formatter)  # type: ignore[misc]


class Command(_Page, TyperCommand):
    """A command whose help page is laid out in this way, and which says what an argument too many may stand for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Where a required option is missing and an argument is too many, that is probably its value."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            flags = getattr(error.param, "opts", [""])
            if hasattr(error, "param_type") and flags[0].startswith("-"):  # the only one that has a type: it is missing
                left = self.make_parser(ctx).parse_args(given)[1]
                error.message += f"Did you mean {flags[0]} {left[0]}?" if left else _HINTS.get(flags[0], "")
            raise

    def invoke(self, ctx: Any) -> Any:
        """Say how to go on where Ctrl-C comes while the command does not look after it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            stopped = Stopped(signal.SIGINT)
            stopped.args = stop.args or ("go on with the same command",)
            raise stopped from None


class Group(_Page, TyperGroup):
    """A group of commands whose help page is laid out in this way, and which knows a clip in a command's place."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Where the first word is a file or a folder, `segment` was forgotten."""
        word = args[0]
        clip = word not in self.commands and (Path(word).suffix or os.path.exists(word))
        if clip and "segment" in self.commands and not ctx.resilient_parsing:
            ctx.fail(f"No such command {word!r}. Did you mean {ctx.command_path} segment {shlex.quote(word)}?")
        return super().resolve_command(ctx, args)


class DefaultGroup(Group):
    """A group whose first command may be left out: `benchmark davis17` is `benchmark run davis17`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the first command where there is none."""
        named = args[:1] in [[name] for name in (*self.commands, "-h", "--help")]
        if not named and (args or not self.no_args_is_help):
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)
