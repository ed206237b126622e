"""What commands share on the terminal: a progress bar that can be interrupted, options, a summary for people."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vostrack.cli.pace import Pace, duration
from vostrack.errors import InputError, counted, exit_code, one_line
from vostrack.files import escaped, shown
from vostrack.methods import preset_name, registered
from vostrack.notes import WARNING, Code, Note
from vostrack.run.callbacks import Callbacks

LINE_SECONDS = 30.0
"""From one line of progress to the next, where there is no terminal."""

LONG_SECONDS = 600.0
"""A run that takes longer is told what would be quicker."""

_JSON_SECONDS, _ESTIMATE_SECONDS = 1.0, 20.0


def plain(text: object) -> str:
    """Text of others for the terminal, lines kept: control characters, which could steer it, are escaped."""
    return "\n".join(map(escaped, str(text).split("\n")))


def input_error(error: OSError) -> InputError:
    """The one-line error for a path that the operating system does not take."""
    return InputError(f"cannot use {shown(error.filename)}: {error.strerror}; give another path, or change this one")


def usage_fault(error: BaseException) -> str:
    """What is wrong with a command line, on one line as all errors are; empty for an error that is none of Click's."""
    message = getattr(error, "format_message", None)
    said = " ".join(message().replace("Value error, ", "").split()).rstrip(".") if callable(message) else ""
    said = re.sub(r"[.]? (Did|To|Choose)(?= (?:you mean|make one|from)\b)", lambda at: f"; {at[1].lower()}", said)
    return re.sub("^[A-Z](?=[a-z])", lambda at: at[0].lower(), said)


class Stopped(BaseException):
    """Ctrl-C, SIGTERM or a closed terminal, at a point from which the run can be resumed.

    Not a KeyboardInterrupt: Typer catches those, and message and exit code would be lost.
    """

    def __init__(self, number: int) -> None:
        super().__init__("go on with the same command and --resume")
        self.exit_code = 128 + number


class StopSignals:
    """While entered, the first Ctrl-C, SIGTERM or SIGHUP is kept for `check`, the second one stops at once."""

    def __init__(self, console: Console, after: str) -> None:
        """Name what is finished first, e.g. "this frame"."""
        self._console, self.after = console, after
        self._previous: dict[int, Any] = {}
        self.number = 0
        """Of the signal that came; 0 where none did."""

    def check(self) -> None:
        """Raise `Stopped` if the user wants to stop."""
        if self.number:
            raise Stopped(self.number)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
                number = getattr(signal, name, None)
                # A signal that is ignored stays so: that is what `nohup` is for.
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.number and number == getattr(signal, "SIGHUP", None):
            return  # a terminal that closes sends it twice, as kernel and as shell
        again, self.number = bool(self.number), number
        self._came(again)

    def _came(self, again: bool) -> None:
        if again:
            raise Stopped(self.number)
        with contextlib.suppress(OSError):  # a closed terminal takes no more text
            self._console.print(f"stopping after {self.after} (once more to stop at once)")


class StopAtOnce(StopSignals):
    """While entered, each of these signals ends the work at once."""

    def _came(self, again: bool) -> None:
        raise KeyboardInterrupt


def progress_bar(console: Console, *columns: ProgressColumn, quiet: bool = False) -> Progress:
    """A progress bar with some columns of its own; not drawn when quiet, or where the console is not a terminal."""
    name = TextColumn("{task.description}", markup=False)  # a file's name may look like markup
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(name, BarColumn(), *columns, *times, console=console, disable=quiet or not console.is_terminal)


def print_note(console: Console, note: Note) -> None:
    """Print a note, above a bar that is drawn there; a warning stands out."""
    severity = note.code.severity
    style = "yellow" if severity == WARNING else ""
    from vostrack.cli import with_flags  # which imports all commands, and these this

    text = f"{severity} [{note.code}] {plain(with_flags(note))}"
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_notes(notes: Iterable[Note]) -> None:
    """Print notes on stderr."""
    console = Console(stderr=True)
    for note in notes:
        print_note(console, note)


class Form(StrEnum):
    """How progress is shown: a bar on a terminal and else a line now and then, or JSON for programs."""

    AUTO = "auto"
    JSONL = "jsonl"


class FrameBar(Callbacks):
    """Progress on stderr, with an ETA; the first Ctrl-C ends the run after the frame at hand, the second at once."""

    def __init__(
        self,
        name: str,
        quiet: bool = False,
        unit: str = "frame",
        form: Form = Form.AUTO,
        quicker: Callable[[], str] = lambda: "",
    ) -> None:
        """Prepare; nothing is drawn where stderr is not a terminal: then there is a line every half minute.

        Args:
            name: of what runs.
            quiet: whether nothing is shown at all.
            unit: what is counted.
            form: how it is shown.
            quicker: gives what would take less time, asked for and said early in a run that takes long.
        """
        self.console = Console(stderr=True)
        self._quiet, self._json, self._quicker = quiet, form is Form.JSONL and not quiet, quicker
        columns = (MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
        self._bar = progress_bar(self.console, *columns, quiet=quiet or self._json)
        self._name, self._unit = plain(name), unit
        self._task = self._bar.add_task(self._name, total=None, rate="")
        self._signals = StopSignals(self.console, f"this {unit}")
        self._phase, self._pace, self._estimated = "", Pace(), False

    def phase(self, name: str) -> None:
        """Begin the bar again for what comes next; that counts steps if it is a training, else frames."""
        self._unit = "step" if name == "training" else "frame"
        self._signals.after = f"this {self._unit}"
        self._bar.remove_task(self._task)
        self._task = self._bar.add_task(f"{self._name}: {name}", total=None, rate="")
        self._phase, self._pace = name, Pace()
        self._emit("phase")

    def progress(self, done: int, total: int | None) -> None:
        """Show that `done` of `total` frames are done; raises `Stopped` if the user wants to stop."""
        task, pace = self._bar.tasks[0], self._pace
        rate = f"{task.speed:.2f} {self._unit}s/s" if task.speed else ""
        self._bar.update(self._task, completed=done, total=total, rate=rate)
        pace.update(done, total)
        self._estimate()
        if self._json:
            if pace.due(_JSON_SECONDS) or pace.calls == 1 or done == total:
                self._emit("progress")
        elif not self.console.is_terminal and pace.due(LINE_SECONDS):
            self._print(f"{self._name}: {self._phase + ': ' if self._phase else ''}{pace.line(self._unit)}")
        self._signals.check()

    def _estimate(self) -> None:
        """Say once, soon after the start, how long all will take, and what would be quicker if that is long."""
        left, seconds = self._pace.left, self._pace.seconds
        if self._estimated or left is None or seconds < _ESTIMATE_SECONDS or self._phase == "resuming":
            return
        self._estimated = True
        ways = self._quicker() if seconds + left > LONG_SECONDS else ""
        quicker = f"; quicker: {ways}" if ways else ""
        text = f"about {duration(seconds + left)} {'for ' + self._phase if self._phase else 'in all'}{quicker}"
        if self._json:
            self._emit("estimate", text)
        elif quicker or not self.console.is_terminal:
            self._print(f"{self._name}: {text}")

    def _print(self, text: str) -> None:
        if not self._quiet:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _emit(self, event: str, note: str | None = None, code: Code | None = None, **more: int) -> None:
        """Print an object for programs, where they are wanted."""
        if self._json:
            from vostrack.cli import with_flags  # which imports all commands, and these this

            pace, note = self._pace, note and with_flags(note)
            told = {"event": event, "done": pace.done, "total": pace.total, "seconds": round(pace.seconds, 3)}
            kind = {"code": code and str(code), "severity": code and code.severity}
            line = json.dumps(told | {"phase": self._phase or None, "note": note} | kind | more)
            print(line, file=sys.stderr, flush=True)

    def cancelled(self) -> bool:
        """Whether the caller should stop; never, since `Stopped` is raised if the user wants to stop."""
        self._signals.check()
        return False

    def note(self, note: Note) -> None:
        """Print a note above the bar."""
        if self._json:
            self._emit("note", note, note.code)
        elif not self._quiet:
            print_note(self.console, note)

    def __enter__(self) -> Self:
        self._signals.__enter__()
        self._bar.start()
        self._emit("start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._bar.stop()
        self._signals.__exit__(kind, error, trace)
        if error is None:
            self._emit("end")
        else:
            self._emit("failed", one_line(error), exit_code=exit_code(error))


def say_next(text: str) -> None:
    """Print on stderr the one thing to do after a command that went well."""
    print(f"next: {plain(text)}", file=sys.stderr)


def near(path: Path) -> Path:
    """A path as one types it here: relative where it is below the working directory."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def pasted(path: Path) -> str:
    """A path to be pasted into a command."""
    return shlex.quote(plain(near(path)))


def mending(run: Path, frame: int) -> str:
    """What to do to mend a frame of a run."""
    from vostrack.run.folder import OutputFolder
    from vostrack.run.request import Request

    request, _ = Request.kept_in(OutputFolder(run))
    whole = " --deinterlace" if request.playback.deinterlace else ""
    return (
        f"vostrack frame {pasted(request.source)} {frame}{whole} -o frame-{frame}.png, paint it as that says, "
        f"vostrack update {pasted(run)} -m {frame}:frame-{frame}_mask.png"
    )


def printed_summary(
    summary: dict[str, Any],
    as_json: bool,
    quiet: bool = False,
    then: Callable[[Path], str] = lambda out: "",
    look: bool = True,
) -> None:
    """Print a run's summary: all of it as JSON on stdout, or three lines for people on stderr.

    Args:
        summary: of the run.
        as_json: whether it is for programs.
        quiet: whether nothing is said to people.
        then: what may be done after a look at the results in a folder.
        look: whether there is something new to look at.
    """
    if as_json:
        print(json.dumps(summary, indent=2, sort_keys=True))
        return
    if quiet:
        return
    seconds, out = summary["seconds_per_frame"], near(Path(summary["out"]))
    # An adaptation or a refinement that did not run is None in the summary.
    known = ("decode", "model", "adapt", "refine", "write")
    names = [name for name in seconds if name in known and summary.get(name, True)]
    parts = ", ".join(f"{name} {seconds[name]:.2f}" for name in names)
    objects = counted(len(summary["objects"]), "object")
    method, preset = summary["method"], summary["preset"]
    # A summary that is there may name anything.
    preset = preset_name(method, preset) if method in registered() else preset
    named, part = plain(f"{method}, preset {preset}"), summary.get("range")
    begins = plain(f" from {part[0]} on") if isinstance(part, list) and part else ""
    frames = counted(summary["frames"], "frame") + begins
    given = plain(", ".join(summary["masks"])) if isinstance(summary.get("masks"), dict) else ""
    objects += f" ({'masks of frames' if ',' in given else 'mask of frame'} {given})" if given else ""
    print(
        f"{named}: {frames}, {objects}, {seconds['total']:.2f} s a frame "
        f"({parts}), peak {summary['peak_rss_mb']} MiB\nresults: {plain(out)}",
        *(f"exported: {plain(near(Path(path)))}" for path in summary.get("exports", {}).values()),
        file=sys.stderr,
        sep="\n",
    )
    shows = Path(out, "overlay.mp4" if "overlay" in summary["outputs"] else "masks")
    say_next("; ".join(filter(None, (f"look at {shows}" if look else "", then(out)))))
