"""The command line: one command a file, assembled here; errors become one line and an exit code.

Importing this imports neither torch nor numpy: commands import what they need when they run.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, TextIO, cast

import typer

from vostrack.cli.batch import app as batch
from vostrack.cli.benchmark import app as benchmark
from vostrack.cli.console import Stopped, input_error, plain, usage_fault
from vostrack.cli.demo import demo
from vostrack.cli.edit import edit
from vostrack.cli.export import export
from vostrack.cli.frame import frame
from vostrack.cli.help import Command, Group
from vostrack.cli.inspect import inspect
from vostrack.cli.mask import app as mask
from vostrack.cli.methods import methods
from vostrack.cli.review import review, suggest
from vostrack.cli.score import score
from vostrack.cli.segment import segment
from vostrack.cli.speed import app as speed
from vostrack.cli.train import train
from vostrack.cli.update import update
from vostrack.cli.weights import app as weights
from vostrack.errors import INTERRUPTED, OUT_OF_MEMORY, OutputError, VostrackError, exit_code, is_of_a_path, one_line

_LONGEST = 300
"""Characters of an error that nobody foresaw: a compiler's can fill a screen."""

app = typer.Typer(
    name="vostrack",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (segment, edit, update, export, review, suggest, frame, demo, train, inspect, methods, score):
    app.command(cls=Command)(command)
app.add_typer(mask)
app.add_typer(batch)
app.add_typer(benchmark)
app.add_typer(speed)
app.add_typer(weights)


def _version(wanted: bool) -> None:
    if wanted:
        from vostrack import __version__

        print(f"vostrack {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Follow objects through video: a clip and a mask of its first frame go in, a mask for every frame comes out.

    Examples:
        vostrack demo
        vostrack segment video.mp4 --mask first.png

    The first needs no footage of yours. For the second, `vostrack frame video.mp4 -o first.png` saves the first frame
    of your clip: paint the objects on it, each in a flat colour, and all else black.
    """


def main() -> None:
    """Run the command line and exit with its code (docs/formats.md lists them)."""
    sys.stderr = cast(TextIO, Lenient(sys.stderr))
    sys.exit(run(sys.argv[1:]))


class Lenient:
    """A stream for messages; what it cannot write is dropped: a full log must not end a run or change its code."""

    def __init__(self, stream: TextIO) -> None:
        """Take the stream."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, as far as that goes."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run(arguments: list[str]) -> int:
    """Run a command line and give its exit code; errors raised on purpose become one line on stderr."""
    debug = "--debug" in arguments
    try:
        # Without the flag, so that it may stand before or after the command.
        plain = [argument for argument in arguments if argument != "--debug"]
        result = app(plain, prog_name="vostrack", standalone_mode=False)
        sys.stdout.flush()
    except Stopped as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return 1
    except Exception as error:
        if debug and not hasattr(error, "show"):
            raise
        return _report(error, arguments)
    return result if isinstance(result, int) else 0


def _drop_output() -> None:
    """Let nothing more be written to stdout, so that the interpreter does not complain when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: Exception, arguments: list[str]) -> int:
    show = getattr(error, "show", None)
    if callable(show):  # a usage error of Click
        if type(error).__name__ == "NoArgsIsHelpError":
            show()
        else:
            command = getattr(getattr(error, "ctx", None), "command_path", "vostrack")
            print(f"error: {plain(usage_fault(error))} (see `{command} --help`)", file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    if isinstance(error, OSError) and is_of_a_path(error):
        error = input_error(error)
    if isinstance(error, VostrackError):
        print(f"error: {plain(with_flags(' '.join(str(error).splitlines()), arguments))}", file=sys.stderr)
        return error.exit_code
    text, code = " ".join(str(error).split()), exit_code(error)
    if code == OUT_OF_MEMORY:
        print(f"error: {with_flags(one_line(error), arguments)}", file=sys.stderr)
        return code
    if isinstance(error, OSError) and code == OutputError.exit_code:
        _drop_output()
        print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        return code
    text = plain(text)
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    print(f"error: unexpected {type(error).__name__}: {short} (run again with vostrack --debug ...)", file=sys.stderr)
    return 1


def with_flags(message: str, arguments: Sequence[str] = ()) -> str:
    """A message of the library, whose arguments are named as on the command line: `resize_mask=True`, --resize-mask.

    Args:
        message: the message.
        arguments: of the command line; what its command calls a thing goes before what others call it.
    """
    commands: list[Any] = [typer.main.get_command(app)]
    for command in commands:
        commands += getattr(command, "commands", {}).values()
    named = [command for command in commands if command.name in arguments[:2]]
    flags = {
        param.name: param.opts[0]
        for command in commands + named
        for param in command.params
        if param.opts[0].startswith("--")
    }

    def flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        value = value and re.sub(r"[() ]", "", value)  # (68, 1, 84) becomes 68,1,84
        words = [flags.get(name, match[0])] + ([value] if name in flags and value not in (None, "True") else [])
        return " ".join(words)

    return re.sub(r"`(\w+)(?:=(\w+|\([\d, ]+\)))?`", flag, message)
