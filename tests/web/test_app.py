from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.forks import fork
from tests.runs import until
from vostrack.cli import run
from vostrack.web.session import Session


class Client:
    """Asks a served page."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token

    def ask(self, path: str, body: Any = None, token: str | None = None, **headers: str) -> tuple[int, bytes, Any]:
        data = None if body is None else json.dumps(body).encode()
        told = {
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        address = f"http://127.0.0.1:{self.port}/{self.token if token is None else token}/{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(address, data, told), timeout=60) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def post(self, path: str, body: Any = None, client: str = "a") -> tuple[int, Any]:
        status, data, _ = self.ask(f"{path}?client={client}", body or {})
        return status, json.loads(data)


@pytest.fixture
def client(session: Session) -> Iterator[Client]:
    """A page that is served, whose pen client "a" has."""
    import uvicorn

    from vostrack.web.app import Page

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        page = Page(session, (f"127.0.0.1:{port}",))
        server = uvicorn.Server(uvicorn.Config(page.app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        made = Client(port, page.token)
        made.ask("state?client=a")
        yield made
        server.should_exit = True
        thread.join()


pytestmark = pytest.mark.needs("uvicorn", "edit")


def test_the_page_its_modules_and_its_policy(client: Client) -> None:
    status, page, headers = client.ask("")
    assert (status, b"static/main.js" in page) == (200, True)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    for name in (
        "main.js",
        "api.js",
        "objects.js",
        "pointer.js",
        "scissors.js",
        "style.css",
        "timeline.js",
        "tools.js",
        "view.js",
    ):
        status, _, headers = client.ask(f"static/{name}")
        assert (status, headers["Content-Type"].split(";")[0]) == (
            200,
            "text/css" if name == "style.css" else "text/javascript",
        )
    for name in ("none.js", "..%2fapp.py", "%2e%2e/app.py", "index.html.bak", "app.py"):
        assert client.ask(f"static/{name}")[0] == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": "x"},
        {"token": ""},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
    ids=str,
)
def test_whoever_is_not_the_page_is_refused(client: Client, wrong: dict[str, str]) -> None:
    for path, body in (("state", None), ("frame/0.jpg", None), ("do?client=a", {"kind": "add"})):
        status, told, _ = client.ask(path, body, **wrong)
        assert (status, b"refused" in told) == (403, True)
    assert json.loads(client.ask("state?client=a")[1])["things"] == []


def test_drawing_over_the_page(client: Client, session: Session) -> None:
    assert client.post("do", {"kind": "add", "name": "dog"})[1]["things"][0]["name"] == "dog"
    status, told = client.post(
        "do", {"kind": "brush", "frame": 2, "id": 1, "points": [[20, 20], [30.5, 22]], "radius": 4}
    )
    assert (status, told["changed"], told["drawn"], told["canUndo"]) == (200, [2], [2], True)
    status, data, headers = client.ask("mask/2.png")
    assert headers["Content-Type"] == "image/png"
    ids = np.array(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(ids, session.labels(2))
    assert ids[20, 20] == 1
    assert client.post("undo")[1]["drawn"] == []
    assert client.post("redo")[1]["drawn"] == [2]
    assert client.ask("frame/0.jpg")[1][:2] == b"\xff\xd8"
    assert [client.ask(path)[0] for path in ("frame/99.jpg", "mask/99.png")] == [404, 404]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("do", {"kind": "paint"}),
        ("do", {"frame": 0}),
        ("do", [1]),
        ("do", {"kind": "brush", "points": "x"}),
        ("do", {"kind": "brush", "frame": 1e99}),
        ("do", {"kind": "gone", "id": "1"}),
        ("do", {"kind": "gone", "id": 1, "last": 0.5}),
        ("follow", {}),
        ("follow", {"size": "x"}),
        ("export", {"format": "../../x"}),
        ("propose", {"kind": "region", "points": []}),
    ],
)
def test_what_is_sent_wrong_is_refused_in_a_line(client: Client, path: str, body: Any) -> None:
    status, told = client.post(path, body)
    assert status == 422
    assert told["error"]
    assert "\n" not in told["error"]


def test_bodies_are_json_and_not_too_large(client: Client) -> None:
    assert client.ask("do?client=a", {"kind": "add"}, Content_Type="text/plain")[0] == 415
    assert client.ask("do?client=a", {"kind": "add", "data": "x" * (9 << 20)})[0] == 413


def test_whoever_goes_away_while_sending_leaves_no_error(session: Session) -> None:
    from vostrack.web.app import Page

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    sent = list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/x/do", "query_string": b"",
        "headers": [(b"host", b"here"), (b"content-type", b"application/json")],
    }  # fmt: skip
    asyncio.run(Page(session, ("here",), "x").app(scope, receive, send))
    assert not any(each.get("status") == 500 for each in sent)
    assert not session.document.things, "half of a step is none"


def test_one_window_draws_and_the_others_look(client: Client) -> None:
    assert json.loads(client.ask("state?client=b")[1])["pen"] is False
    status, told = client.post("do", {"kind": "add"}, client="b")
    assert (status, "only look" in told["error"]) == (409, True)
    assert client.post("do", {"kind": "add"})[0] == 200


@contextlib.contextmanager
def program(clip: Path, log: Path) -> Iterator[Client]:
    """`vostrack edit`, until Ctrl-C at the end."""
    process = fork(log, run, ["edit", str(clip), "--no-browser"])
    try:
        assert until(lambda: (log / "err").exists() and "Ctrl-C ends it" in (log / "err").read_text(), 120)
        address = re.search(r"http://[^:]+:(\d+)/([^/]+)/", (log / "err").read_text())
        assert address is not None
        yield Client(int(address[1]), address[2])
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(60)
        assert process.exitcode == 0, (log / "err").read_text()
    finally:
        process.kill()


def test_where_nothing_was_drawn_nothing_is_left(clip: Path, tmp_path: Path) -> None:
    there = sorted(clip.parent.iterdir())
    with program(clip, tmp_path / "log") as client:
        client.ask("state?client=a")
    assert sorted({*clip.parent.iterdir()} - {tmp_path / "log"}) == there
    assert "next: the same command goes on; nothing was followed yet" in (tmp_path / "log" / "err").read_text()


def test_the_program_saves_when_it_ends(clip: Path, tmp_path: Path) -> None:
    with program(clip, tmp_path / "log") as client:
        client.ask("state?client=a")
        client.post("do", {"kind": "add"})
        assert client.post("do", {"kind": "brush", "frame": 2, "id": 1, "points": [[20, 20]], "radius": 4})[0] == 200
    with Image.open(clip.with_name("dog_vostrack_drawn") / "00002.png") as image:
        assert (np.array(image) == 1).sum() > 40
