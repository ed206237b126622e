"""Every error that vostrack raises on purpose.

    VostrackError                 exit code 1
    ├── InputError                5   a video or an image folder cannot be read
    │   └── MaskError             4   a given mask cannot be used
    ├── OutputError               6   a result cannot be written (no permission, disk full)
    │   ├── ChangedError          6   a run cannot be resumed with other inputs or settings
    │   ├── ExportError           *   a run is complete, an export of it is not; the code is that of the cause
    │   └── OutputExistsError     9   a result is there already and nobody asked to overwrite it
    │       └── InUseError        9   another process works in the folder
    ├── WeightsError              8   weights are missing, damaged or made for another network
    ├── MethodError               2   an unknown method or format, or options that it does not have
    ├── DatasetError              5   a dataset folder is not laid out as expected
    │   └── NoObjectError         5   a sequence's masks hold no object, so that there is nothing to follow or score
    ├── PlanError                 5   a plan of many clips has faults
    └── Cancelled                 1   the caller's callbacks asked to stop

A message says in one line what was expected, what was found, where, and what to do next. The command line prints it
as it is and ends with `exit_code`; the other codes (2 usage, 7 out of memory, 130 and 143
signals) are listed in docs/formats.md.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

OUT_OF_MEMORY = 7
INTERRUPTED = 130
_OF_A_PATH = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR)
_OUT_OF_MEMORY_SIGNS = ("out of memory", "allocate memory", "not enough memory", "failed to map segment")


class VostrackError(Exception):
    """Base of all errors raised on purpose; its message is one line for a person."""

    exit_code = 1


class InputError(VostrackError):
    """A video or a folder of images is missing, damaged, empty or of the wrong size."""

    exit_code = 5


class MaskError(InputError):
    """A given mask is missing, damaged, empty, of the wrong size or has too many objects."""

    exit_code = 4


class OutputError(VostrackError):
    """A result cannot be written."""

    exit_code = 6


class ChangedError(OutputError):
    """A run cannot be resumed, since its inputs or settings are others.

    Attributes:
        changes: what is another, and from what to what.
        is_complete: whether that run is.
    """

    def __init__(self, message: str, changes: str = "", is_complete: bool = False) -> None:
        """Take the message, and what it is about."""
        super().__init__(message)
        self.changes, self.is_complete = changes, is_complete


class ExportError(OutputError):
    """A run is complete, and an export of it could not be made: resuming the run makes that alone."""

    def __init__(self, message: str, exit_code: int = 6) -> None:
        """Take the message, and the exit code of what went wrong."""
        super().__init__(message)
        self.exit_code = exit_code


class OutputExistsError(OutputError):
    """A result is there already and neither overwriting nor resuming was asked for."""

    exit_code = 9


class InUseError(OutputExistsError):
    """Another process works in the output folder; it may be free later."""


class WeightsError(VostrackError):
    """Weights are missing, damaged, or do not fit the network."""

    exit_code = 8


class MethodError(VostrackError):
    """A method, a refinement, a format or a device, or an option of one, is not known."""

    exit_code = 2


class DatasetError(VostrackError):
    """A dataset folder is incomplete or not laid out as expected."""

    exit_code = 5


class NoObjectError(DatasetError):
    """The masks of a sequence hold no object; other sequences of its dataset go on."""


class PlanError(VostrackError):
    """A plan cannot be worked through; `faults` has a line for each reason."""

    exit_code = 5

    def __init__(self, faults: Sequence[str]) -> None:
        """Take the lines."""
        self.faults = list(faults)
        more = f" (and {len(self.faults) - 1} more faults)" if len(self.faults) > 1 else ""
        super().__init__(f"{self.faults[0]}{more}")

    def __reduce__(self) -> tuple[type[PlanError], tuple[list[str]]]:
        """Go from process to process: it is made of its lines, not of its message."""
        return type(self), (self.faults,)


class Cancelled(VostrackError):
    """The caller's callbacks asked to stop; what was done so far is kept."""


def is_of_a_path(error: BaseException) -> bool:
    """Whether the operating system does not take a path that somebody named."""
    return isinstance(error, OSError) and error.filename is not None and error.errno in _OF_A_PATH


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is too little memory, in Python's way or in those of PyTorch and the system."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY_SIGNS)


def one_line(error: BaseException) -> str:
    """What an error says, in a line; of too little memory, what to do."""
    if not isinstance(error, VostrackError) and is_out_of_memory(error):
        return "out of memory: use a smaller `size`, such as 240, or give the process more memory"
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def damage_as(refusal: Callable[[Exception], Exception], *meant: type[Exception]) -> Iterator[None]:
    """Read what anyone may have written in a `with` block: all that decoders raise on it becomes one kind of error.

    Too little memory stays what it is, since it says nothing of the file.

    Args:
        refusal: gives the error to raise in the place of another.
        meant: errors that are raised on purpose, and stay.
    """
    try:
        yield
    except meant:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise refusal(error) from error


def exit_code(error: BaseException) -> int:
    """The exit code of a command that ended with an error which is none of usage."""
    if isinstance(error, VostrackError):
        return error.exit_code
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    if is_of_a_path(error):
        return InputError.exit_code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) and error.filename is None:
        return OutputError.exit_code
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else int(getattr(error, "exit_code", 1))


def counted(number: int, noun: str) -> str:
    """A number of things for a message: "1 clip", "2 clips", "3 processes"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> str:
    """Message for a name that is not in a list of valid ones, with the closest as a suggestion.

    Args:
        kind: what the name stands for, e.g. "method".
        name: what was given.
        valid: all names that would have been right.
    """
    names = sorted(valid)
    folded = {each.casefold(): each for each in names}
    close = [folded[each] for each in difflib.get_close_matches(name.casefold(), folded, n=1)]
    name = name if len(name) <= 60 else f"{name[:56]} ..."
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}{hint} (choose from: {', '.join(names)})"
