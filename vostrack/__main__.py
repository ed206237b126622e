"""The program: `vostrack`, and `python -m vostrack` for launchers such as `torchrun` that start modules."""

import os
import signal
from contextlib import suppress
from multiprocessing import parent_process
from typing import NoReturn


def _stop(number: int, frame: object) -> NoReturn:
    """End at once: Ctrl-C while modules are imported would print a traceback."""
    with suppress(OSError):
        os.write(2, b"stopped: go on with the same command\n")
    os._exit(128 + number)


# Until the command line takes over; a process that is started for one has this module as well, and is silent.
_CALM = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _CALM:
    signal.signal(signal.SIGINT, _stop if parent_process() is None else signal.SIG_DFL)


def main() -> None:
    """Run the command line and exit with its code (docs/formats.md lists them)."""
    from vostrack.cli import main as command_line

    if _CALM:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command_line()


if __name__ == "__main__":
    main()
