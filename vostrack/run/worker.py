"""A process that works for another one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection as Pipe
else:
    from multiprocessing.connection import Connection as Pipe

__all__ = ["Pipe", "follow_parent"]


def follow_parent() -> None:
    """In a process that was spawned: leave Ctrl-C to the parent, and end with it.

    A parent that was killed tells nobody; without this its processes would go on, beside those of the next run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, name="vostrack-orphan", daemon=True).start()
