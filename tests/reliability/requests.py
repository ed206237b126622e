"""What the server of the page is sent: good requests, and those of strangers and of programs that break the rules."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tests.reliability.mutations import Make, write

REQUEST = b"GET /TOKEN/state?client=a HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"
BODIES: dict[str, object] = {
    "do": {"kind": "brush", "frame": 1, "id": 3, "points": [[9.0, 9.0], [20.0, 12.0]], "radius": 4.0, "only": "all"},
    "propose": {"kind": "region", "frame": 1, "id": 3, "points": [[9.0, 9.0], [20.0, 12.0]], "radius": 4.0},
    "follow": {"method": "fake", "preset": "default", "size": 240, "direction": "forward"},
    "export": {"format": "coco", "hard": False},
}

_TARGETS = (
    b"*", b"//", b"http://evil.example/", b"", b"/TOKEN", b"/TOKEN/../../etc/passwd", b"/TOKEN/state" * 9999,
    b"/TOKEN/static/..%2f..%2fapp.py", b"/TOKEN/static/%2fetc%2fpasswd", b"/TOKEN/static/\0", b"/TOKEN/%ff",
    b"/TOKEN/frame/99999999999999999999999.jpg", b"/TOKEN/frame/-1.jpg", b"/TOKEN/frame/%31.jpg",
    b"/TOKEN/mask/1e9.png", b"/TOKEN/mask/9999.png", b"/TOKEN/static/a%0d%0ab",
)  # fmt: skip


def http(data: bytes) -> Iterator[tuple[str, Make]]:
    """A request of somebody else, or one that breaks the rules of HTTP."""
    line, _, rest = data.partition(b"\r\n")
    post = line.replace(b"GET", b"POST").replace(b"state", b"do"), b"Content-Type: application/json\r\n" + rest
    for host in (
        b"evil.example",
        b"127.0.0.1:1",
        b"localhost",
        b"",
        b"HOST.evil.example",
        b"HOST@evil.example",
        b"\xff",
    ):
        yield f"a stranger's host {host!a}", partial(write, data.replace(b"HOST", host))
    for name in (b"Origin: http://evil.example", b"Origin: null", b"Origin: http://HOST.evil.example", b"Origin: ",
                 b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Site: same-site"):  # fmt: skip
        for kind, (first, others) in (("reads", (line, rest)), ("writes", post)):
            yield f"a stranger {kind}, {name!a}", partial(write, first + b"\r\n" + name + b"\r\n" + others)
    for token in (b"", b"x", b"TOKEN%00", b"TOKENx", b"..", b"%2e%2e/TOKEN", b"t\xf6ken", b"x" * 60_000):
        yield f"a stranger's token {token[:12]!a}", partial(write, data.replace(b"TOKEN", token))
    for target in _TARGETS:
        for method in (b"GET", b"POST", b"OPTIONS"):
            yield f"{method.decode()} {target[:30]!a}", partial(write, b"%b %b HTTP/1.1\r\n%b" % (method, target, rest))
    upgrade = b"Connection: Upgrade\r\nUpgrade: %b\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n"
    for key in (b"AAAAAAAAAAAAAAAAAAAAAA==", b"x"):
        yield (
            f"a web socket {key!a}",
            partial(write, line + b"\r\n" + upgrade % (b"websocket", key) + rest + b"\x81\xff"),
        )
    yield "another protocol", partial(write, line + b"\r\n" + upgrade % (b"h2c", b"x") + rest)
    for length in (b"-1", b"x", b"99999999999999999999", b"1\r\nContent-Length: 2", b"9000000"):
        body = b"x" * 9_000_000 if length == b"9000000" else b"{}"
        first = post[0] + b"\r\nContent-Length: " + length + b"\r\n"
        yield f"a length of {length!a}", partial(write, first + post[1] + body)
    for chunk in (
        b"ffffffffffffffff\r\n{}",
        b"-1\r\n",
        b"x\r\n",
        b"2\r\n[]\r\n" * 9999,
        b"989680\r\n" + b"[" * 10_000_000,
    ):
        first = post[0] + b"\r\nTransfer-Encoding: chunked\r\n"
        yield f"a part {chunk[:12]!a}", partial(write, first + post[1] + chunk)
    yield "many heads", partial(write, line + b"\r\n" + b"X: y\r\n" * 20_000 + rest)
    yield "a long head", partial(write, line + b"\r\nX: " + b"y" * 1_000_000 + b"\r\n" + rest)
    yield "no version", partial(write, line.removesuffix(b" HTTP/1.1") + b"\r\n" + rest)
    yield "no end", partial(write, data[:-2])
    yield "two of it", partial(write, data.replace(b"close", b"keep-alive") * 2)
