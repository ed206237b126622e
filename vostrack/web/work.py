"""The engine, in a process of its own: one run or update at a time, which can be watched and stopped."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from vostrack.errors import Cancelled, ChangedError, MaskError, VostrackError, one_line
from vostrack.files import shaped
from vostrack.notes import NOTE, WARNING, Code, Note
from vostrack.run.callbacks import Callbacks
from vostrack.run.folder import OutputFolder
from vostrack.run.passes import FIRST_PASS, SECOND_PASS
from vostrack.run.worker import Pipe, follow_parent

_STOP = "stop"

Told = tuple[str, str, str]
"""Code, severity and text of a note."""

_PLAIN = {
    "start again with `segment` and `overwrite=True`": "follow all anew",
    "start again with `overwrite=True`": "follow all anew",
    " with `overwrite=True`": "",  # the page replaces what it exports
    "use a smaller `size`, such as 240": "choose a faster preset",
    ": no-keep does without": "",
    "; give a mask for a frame after it": "; draw on a frame after it",
    SECOND_PASS: FIRST_PASS,
}
"""What people without a command line read in the place of words of it."""


@dataclass(frozen=True)
class Progress:
    """How far the work is.

    Attributes:
        number: of the work, from 1; 0 before there was any.
        running: whether it goes on.
        phase: that it is in.
        done, total: frames or steps of the phase; None where it is not known.
        notes: that were told.
        error: why it failed, or "".
        stopped: whether it was stopped.
    """

    number: int = 0
    running: bool = False
    phase: str = ""
    done: int = 0
    total: int | None = None
    notes: tuple[Told, ...] = field(default=())
    error: str = ""
    stopped: bool = False


class Work:
    """Runs and updates, one at a time.

    Attributes:
        context: how processes are started.
    """

    context: Any = multiprocessing.get_context("spawn")  # or another, of a type that Windows does not have

    def __init__(self) -> None:
        """Nothing runs."""
        self.progress = Progress()
        self._process: BaseProcess | None = None
        self._pipe: Pipe | None = None
        self._heard: threading.Thread | None = None

    def check_idle(self) -> None:
        """Raise `MaskError` where something runs."""
        if self.progress.running:
            raise MaskError("something is being followed: stop it first, or wait")

    def start(self, kind: str, arguments: Mapping[str, Any]) -> None:
        """Begin `vostrack.segment` or `vostrack.update` with arguments; raises `MaskError` where something runs."""
        self.check_idle()
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_work, args=(theirs, kind, dict(arguments)), daemon=True)
        process.start()
        theirs.close()
        self.progress = Progress(self.progress.number + 1, running=True, phase="starting")
        self._process, self._pipe = process, ours
        self._heard = threading.Thread(target=self._listen, args=(process, ours), name="vostrack-work", daemon=True)
        self._heard.start()

    def stop(self) -> None:
        """Ask it to stop where it can be gone on with; what is done stays."""
        if self._pipe is not None and self.progress.running:
            with suppress(OSError):
                self._pipe.send(_STOP)

    def close(self, seconds: float = 20) -> None:
        """Stop, wait for that for so long, and kill what is still there."""
        self.stop()
        if self._process is not None:
            self._process.join(seconds)
            self._process.kill()
            self._process.join()
        if self._heard is not None:
            self._heard.join()

    def _listen(self, process: BaseProcess, pipe: Pipe) -> None:
        ended: dict[str, Any] = {"error": "the process died, perhaps for lack of memory: choose a faster preset"}
        with suppress(EOFError, OSError):
            while True:
                kind, told = pipe.recv()
                if kind == "ended":
                    ended = told
                    break
                self.progress = replace(self.progress, **told)
        process.join()
        pipe.close()
        self.progress = replace(self.progress, running=False, **ended)


class _Told(Callbacks):
    """Callbacks that tell the parent."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._notes: list[Told] = []
        self._phase = FIRST_PASS

    def progress(self, done: int, total: int | None) -> None:
        self._pipe.send(("moved", {"phase": self._phase, "done": done, "total": total}))

    def phase(self, name: str) -> None:
        self._phase = _plain(name)
        self._pipe.send(("moved", {"phase": self._phase, "done": 0, "total": None}))

    def note(self, note: Note) -> None:
        self._notes.append((str(note.code), note.code.severity, _plain(note)))
        self._pipe.send(("moved", {"notes": tuple(self._notes)}))

    def cancelled(self) -> bool:
        return self._pipe.poll() and self._pipe.recv() == _STOP


def told_before(run: OutputFolder) -> tuple[Told, ...]:
    """What was said of a complete run when it was made, but for what concerns its exports."""
    try:
        summary = run.summary()
        told = [(each, shaped(note, dict[str, str])) for each in (WARNING, NOTE) for note in summary[f"{each}s"]]
        return tuple(
            (note["code"], severity, _plain(note["text"]))
            for severity, note in told
            if note["code"] != str(Code.EXPORT_OLDER)  # which may be made again by now
        )
    except (VostrackError, ValueError, KeyError):  # whoever goes on with the run says so
        return ()


def _plain(text: str) -> str:
    """A note or an error, as it reads on a page."""
    for words, plainer in _PLAIN.items():
        text = text.replace(words, plainer)
    return str(text)


def _work(pipe: Pipe, kind: str, arguments: dict[str, Any]) -> None:
    """What the process does."""
    follow_parent()
    import torch

    from vostrack.run.segment import segment
    from vostrack.run.update import update

    try:
        follow: Callable[..., Any] = segment if kind == "segment" else update
        if kind == "update" and (threads := OutputFolder(Path(arguments["run"])).threads()):
            torch.set_num_threads(threads)  # as the run had, which a batch may have given fewer
        try:
            follow(**arguments, **({"resume": True} if kind == "segment" else {}), callbacks=_Told(pipe))
        except ChangedError:  # a run that was stopped, with other masks or settings
            segment(**arguments, overwrite=True, callbacks=_Told(pipe))
        pipe.send(("ended", {}))
    except Cancelled:
        pipe.send(("ended", {"stopped": True}))
    except OSError:
        os._exit(1)  # the parent is gone
    except Exception as error:
        pipe.send(("ended", {"error": _plain(one_line(error))}))
