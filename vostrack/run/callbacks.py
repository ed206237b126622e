"""How a run talks to its caller: progress, phases, notes, and whether to stop.

Imports no torch, so that the command line can derive its progress bar from it.
"""

from __future__ import annotations

from vostrack.errors import VostrackError
from vostrack.notes import Note


class Callbacks:
    """What a run calls while it works, all in the caller's thread. Override what you need; by default nothing happens.

    What a method raises stops the run at a point from which it can be resumed.
    """

    def progress(self, done: int, total: int | None) -> None:
        """Called after each frame, or each step while an adaptation trains.

        Args:
            done: frames or steps that are done, from 1.
            total: how many there are; None where the clip does not say.
        """

    def phase(self, name: str) -> None:
        """Called where a run enters a phase.

        Args:
            name: "resuming", "following", "training", "segmenting", "drawing", or "exporting" and a format.
        """

    def note(self, note: Note) -> None:
        """Called with each thing worth knowing, as soon as it is known: a line of text, whose `code` says its kind."""

    def cancelled(self) -> bool:
        """Asked after each frame or step; where it says yes, the run stops with `vostrack.Cancelled`."""
        return False


def checked_callbacks(callbacks: Callbacks | None) -> Callbacks:
    """The callbacks, or some that do nothing; raises `VostrackError` where they are of another class."""
    if callbacks is None:
        return Callbacks()
    if not isinstance(callbacks, Callbacks):
        raise VostrackError(
            f"callbacks must be an object of a class derived from vostrack.Callbacks, not {callbacks!r}"
        )
    return callbacks
