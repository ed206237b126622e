"""Runs command lines, each in a process forked from this one, and says what they did.

It is run as a file, and takes `vostrack` and `tests.fakes` from its working directory, so that the same inputs can be
given to another version. A line of JSON in is a command line, a line out is how it ended.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import platform
import re
import resource
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

HANGS = 60.0
"""Seconds on the clock after which a process is ended; what may be asked of it is judged by processor time."""

_WAITS = 2.0
"""Seconds for which an answer that does not end is waited for."""

ADDRESSES = 6 << 30
"""Bytes of address space that a process may add, so that no input can take the machine down."""

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
_RUNS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile"}
_NETWORK = {"connect", "sendto", "sendmsg", "getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo"}
_CALLER = "somebody who asks the page"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main() -> None:
    """Read command lines from stdin to its end."""
    sys.path.insert(0, os.getcwd())
    sys.dont_write_bytecode = True
    _prepare(Path(sys.argv[1]))
    gc.collect()
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        print(json.dumps(_judged(json.loads(line))), file=answers)


def _prepare(weights: Path) -> None:
    """Import all that takes long, and make the methods of the tests known."""
    os.environ["VOSTRACK_WEIGHTS"] = str(weights)
    from PIL import Image

    import vostrack
    from tests import fakes
    from vostrack.methods import METHODS

    METHODS[fakes.NAME], METHODS["tiny"] = fakes.PATH, "tests.train.samples:TinyMethod"
    os.fsync = lambda fd: None  # no power is cut here
    platform.processor()  # which starts a program, once
    fakes.write_weights(weights)
    names = [each.name for each in pkgutil.walk_packages(vostrack.__path__, "vostrack.", lambda name: None)]
    for name in ("tests.train.samples", "rich.table", *names):
        with contextlib.suppress(Exception):  # what needs a package that is not there
            importlib.import_module(name)
    Image.init()


def _judged(job: dict[str, Any]) -> dict[str, Any]:
    """Run one command line: exit code or minus a signal, seconds of processor, most MiB, and what it should not do."""
    log, begun = Path(job["log"]), time.monotonic()
    log.mkdir(parents=True)
    process = os.fork()
    if not process:
        _run(job, log)
    ready = select.poll()
    watched = os.pidfd_open(process)
    ready.register(watched, select.POLLIN)
    hung = not ready.poll(HANGS * 1000)
    os.close(watched)
    if hung:
        os.kill(process, signal.SIGKILL)
    _, status, used = os.wait4(process, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "hung": hung,
        "seconds": used.ru_utime + used.ru_stime,
        "wall": time.monotonic() - begun,
        "mib": used.ru_maxrss >> 10,
        "did": (log / "did").read_text(errors="replace").splitlines(),
    }


def _run(job: dict[str, Any], log: Path) -> None:
    """Become the command line; does not come back."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(log / name, os.O_WRONLY | os.O_CREAT), number)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as the program does before it runs a command line
    os.chdir(job["folder"])
    tempfile.tempdir = job["folder"]
    places = {"TMPDIR": job["folder"], "XDG_CACHE_HOME": job["folder"]}
    places["TORCHINDUCTOR_CACHE_DIR"] = f"{job['folder']}/inductor"  # PyTorch makes it as it is imported
    os.environ.update({**places, **job["environment"]})
    with open("/proc/self/statm") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if job["stop"]:
        _stop_at_frame(job["stop"])
    if "TALKS" in os.environ:
        threading.Thread(target=_talk, args=(Path(os.environ["TALKS"]), log), name=_CALLER, daemon=True).start()
    from vostrack import cli

    _watch(os.open(log / "did", os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.path.realpath(job["folder"]))
    sys.argv, code = ["vostrack", *job["arguments"]], 1
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking torch down takes longer than most commands


def _watch(report: int, folder: str) -> None:
    """Write down each change outside a folder, each program that is started, and each connection."""

    def outside(path: Any) -> bool:
        if isinstance(path, int):
            return False
        real = os.path.realpath(os.fsdecode(path))
        return not real.startswith((folder + "/", "/dev/", "/proc/self/")) and real != folder

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if threading.current_thread().name == _CALLER:
            return
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & _WRITING
            wrong = bool(writes) and outside(os.path.dirname(path) if flags & os.O_NOFOLLOW else path)
        elif event in _CHANGES:
            paths = arguments[:2] if event in ("os.rename", "os.link") else arguments[:1]
            paths = arguments[1:2] if event == "os.symlink" else paths  # the first is what it leads to
            named = paths if event in ("os.truncate", "os.chmod") else [os.path.dirname(path) for path in paths]
            wrong = (event == "os.truncate" or arguments[-1] in (-1, None)) and any(map(outside, named))
        else:
            wrong = event in _RUNS or event.removeprefix("socket.") in _NETWORK
        if wrong:
            os.write(report, f"{event} {str(arguments)[:300]!a}\n".encode())

    sys.addaudithook(hook)


def _talk(sent: Path, log: Path) -> None:
    """Send a page what a file holds, see that it goes on, and stop it.

    Args:
        sent: a request, in which HOST and TOKEN stand for those of the page; or a body, named like what it is sent to.
        log: where the page says its address, if it is served at all.
    """
    while not (found := re.search(r"http://(127.0.0.1:(\d+))/([\w-]+)/", (log / "err").read_text())):
        time.sleep(0.01)
    host, port, token = found[1], int(found[2]), found[3]
    head = f"Host: {host}\r\nConnection: close\r\n"
    state = f"GET /{token}/state?client=a HTTP/1.1\r\n{head}\r\n".encode()
    _asked(port, state)
    data = sent.read_bytes()
    if sent.suffix == ".json":
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        data = f"POST /{token}/{sent.stem}?client=a HTTP/1.1\r\n{head}\r\n".encode() + data
    answer = _asked(port, data.replace(b"HOST", host.encode()).replace(b"TOKEN", token.encode()))
    print("answer:", ascii(answer.partition(b"\r\n")[0]))
    if b" 500 " in answer[:20] or b" 200 " not in _asked(port, state)[:20]:
        print("error: unexpected: the page fails at a request, or after it", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGINT)


def _asked(port: int, data: bytes) -> bytes:
    """What comes back for bytes, as far as it comes soon."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port)) as connection, contextlib.suppress(OSError):
        connection.settimeout(_WAITS)
        with contextlib.suppress(OSError):  # refused before all is sent
            connection.sendall(data)
        while part := connection.recv(1 << 16):
            answer += part
    return answer


def _stop_at_frame(number: int) -> None:
    """Get SIGTERM at a frame of the fake method."""
    from tests.fakes import FakeMethod

    remember, frames = FakeMethod.remember, iter(range(1, 1 << 30))

    def stopping(*arguments: Any) -> Any:
        if next(frames) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return remember(*arguments)

    FakeMethod.remember = stopping  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    main()
