"""Serves the page until it is stopped."""

from __future__ import annotations

import contextlib
import signal
import socket
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from vostrack.errors import OutputError
from vostrack.files import shown
from vostrack.video.ground import Reading
from vostrack.video.masks import read_prompts
from vostrack.video.ranges import choose
from vostrack.video.reader import open_clip
from vostrack.web.app import Page
from vostrack.web.session import Command, Session, drawn_in, held, run_folder

_HOST = "127.0.0.1"


def serve(
    path: Path,
    masks: Mapping[Any, Path],
    out: Path | None,
    port: int,
    browser: bool,
    say: Callable[[str], None],
    command: Command,
) -> Path:
    """Open a session and serve its page on this machine until Ctrl-C; gives the folder of its run.

    Args:
        path: a clip, or the output folder of a run.
        masks: to begin with, by frame or time.
        out: folder of the run.
        port: 0 for any that is free.
        browser: whether the page is opened.
        say: told the address.
        command: as `Session.command`.

    Raises:
        InputError, MaskError: the clip or a mask cannot be read.
        OutputError: the folder or the port is taken.
    """
    given = None
    if masks:
        with open_clip(path) as stream:
            chosen = choose(path, None, dict(masks))[1]
            given = read_prompts(chosen, stream.size, Reading(), stream.stored_size)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    say(f"opening {shown(path)} ...")
    with contextlib.ExitStack() as stack:
        folder = run_folder(path, out)
        for each in (folder, drawn_in(folder)):
            if not each.exists():
                stack.callback(_without_nothing, each)
        stack.enter_context(held(folder))
        session = stack.enter_context(contextlib.closing(Session.open(path, out, given)))
        session.command = command
        listener = stack.enter_context(_listening(port))
        host = f"{_HOST}:{listener.getsockname()[1]}"
        page = Page(session, (host, host.replace(_HOST, "localhost")))
        address = f"http://{host}/{page.token}/"
        say(f"the page is at {address} (Ctrl-C ends it)")
        if browser:
            webbrowser.open(address)
        config = uvicorn.Config(page.app, log_level="error", access_log=False, lifespan="off")
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        session.save()
        return session.out


def _without_nothing(folder: Path) -> None:
    """Remove a folder in which nothing is, since nothing was drawn or followed."""
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
            listener.listen()  # who asks before the server runs has to wait, and is not refused
        except OSError as error:
            raise OutputError(f"port {port} cannot be used ({error.strerror}): give another one, or 0") from error
        yield listener
