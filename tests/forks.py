"""Processes that start at once: they are forked from a server that has imported all that takes long.

Each worker of the tests has one such server, so that nobody starts it with other modules.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
_PRELOADED = ["pytest", "lightning_fabric", "tests.fakes", "vostrack.run.segment", "vostrack.cli"]


def fork(log: Path, function: Callable[..., object], *arguments: Any) -> ForkServerProcess:
    """Start a function of a module in a process of its own.

    Args:
        log: folder for what it prints, "out" and "err".
        function: what it runs.
        arguments: of the function; they are pickled.
    """
    log.mkdir(parents=True, exist_ok=True)
    process = server().Process(target=_child, args=(log, function, arguments))
    process.start()
    return process


def server() -> ForkServerContext:
    """What starts them."""
    _FORKS.set_forkserver_preload(_PRELOADED)
    return _FORKS


def _child(log: Path, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    print_to(log)
    try:
        function(*arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def print_to(log: Path) -> None:
    """Send what this process prints to the files "out" and "err" of a folder."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(log / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    # Those that they replace must not close the files with them.
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(number, "w", closefd=False)) for number in (1, 2))


def finish(process: ForkServerProcess, log: Path) -> tuple[int, str, str]:
    """Wait for a process; its exit code, stdout and stderr."""
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode, (log / "out").read_text(), (log / "err").read_text()
