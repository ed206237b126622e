"""The page over HTTP, for this machine alone: what is asked for by whoever knows the token, and nobody else.

The token is the first part of every path, so that pages, pictures and modules need no cookie. Host and Origin must be
ours: a page of another site that guesses the port can neither read nor do anything.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vostrack.errors import MaskError, VostrackError
from vostrack.files import parse_json
from vostrack.web.session import Session, Wanted
from vostrack.web.strokes import png
from vostrack.web.things import Step

_MOST_BYTES, _PEN_SECONDS = 8 << 20, 8.0
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Page:
    """The page of a session.

    Attributes:
        token: what every path begins with.
        app: the application, for any ASGI server.
    """

    def __init__(self, session: Session, hosts: tuple[str, ...], token: str | None = None) -> None:
        """Take the session, and the values that the Host header may have, as "127.0.0.1:8000"."""
        self.session, self.token, self._hosts = session, token or secrets.token_urlsafe(24), hosts
        self._turn = threading.Lock()
        self._pen, self._seen = "", 0.0
        routes = [
            Route("/", self._static),
            Route("/static/{name}", self._static),
            Route("/state", self._state),
            Route("/findings", self._findings),
            Route("/frame/{index:int}.jpg", self._frame),
            Route("/mask/{index:int}.png", self._mask),
            Route("/do", self._do, methods=["POST"]),
            Route("/propose", self._propose, methods=["POST"]),
            Route("/undo", self._undo, methods=["POST"]),
            Route("/redo", self._redo, methods=["POST"]),
            Route("/follow", self._follow, methods=["POST"]),
            Route("/release", self._release, methods=["POST"]),
            Route("/stop", self._stop, methods=["POST"]),
            Route("/save", self._save, methods=["POST"]),
            Route("/export", self._export, methods=["POST"]),
        ]
        for route in routes:
            route.path = f"/{self.token}{route.path}"
        self.app = Starlette(
            routes=[Route(route.path, route.endpoint, methods=[*(route.methods or ())]) for route in routes],
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=self._guard)],
        )

    async def _guard(self, request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuse whoever is not our page, and say what the browser may do with what it gets."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        site = request.headers.get("sec-fetch-site", "same-origin")
        ours = host in self._hosts and origin in (None, f"http://{host}") and site in ("same-origin", "none")
        if not ours or not secrets.compare_digest(request.url.path.split("/")[1].encode(), self.token.encode()):
            return Response("refused: open the address that `vostrack edit` printed\n", 403, _HEADERS)
        response = await call(request)
        response.headers.update(_HEADERS)
        return response

    async def _static(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        kind = _KINDS.get(name.rpartition(".")[2])
        place = files("vostrack.web") / "static" / name
        if kind is None or "/" in name or "\\" in name or not place.is_file():
            return Response("not found\n", 404)
        return Response(place.read_bytes(), media_type=kind)

    async def _state(self, request: Request) -> Response:
        client = request.query_params.get("client", "")
        now = time.monotonic()
        if client and (self._pen in ("", client) or now - self._seen > _PEN_SECONDS):
            self._pen, self._seen = client, now
        return JSONResponse({**await run_in_threadpool(self.session.state), "pen": self._pen == client})

    async def _findings(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self.session.findings))

    async def _frame(self, request: Request) -> Response:
        try:
            data = await run_in_threadpool(self.session.frames.jpeg, request.path_params["index"])
        except VostrackError as error:
            return _refused(error, 404)
        return Response(data, media_type="image/jpeg")

    async def _mask(self, request: Request) -> Response:
        def read() -> bytes:
            index = request.path_params["index"]
            self.session.frames.name(index)  # others need not wait for a frame that is still to come
            with self._turn:
                return png(self.session.labels(index))

        try:
            return Response(await run_in_threadpool(read), media_type="image/png")
        except VostrackError as error:
            return _refused(error, 404)

    async def _do(self, request: Request) -> Response:
        return await self._changing(request, Step, self.session.do)

    async def _propose(self, request: Request) -> Response:
        return await self._changing(request, Step, self.session.propose)

    async def _undo(self, request: Request) -> Response:
        return await self._changing(request, dict[str, Any], lambda _: self.session.document.undo())

    async def _redo(self, request: Request) -> Response:
        return await self._changing(request, dict[str, Any], lambda _: self.session.document.redo())

    async def _follow(self, request: Request) -> Response:
        return await self._changing(request, Wanted, self.session.follow)

    async def _release(self, request: Request) -> Response:
        """A page that is closed or loaded again lets the next one draw."""
        if request.query_params.get("client", "") == self._pen:
            self._pen = ""
        return JSONResponse({})

    async def _stop(self, request: Request) -> Response:
        return await self._changing(request, dict[str, Any], lambda _: self.session.work.stop())

    async def _save(self, request: Request) -> Response:
        return await self._changing(request, dict[str, Any], lambda _: len(self.session.save()))

    async def _export(self, request: Request) -> Response:
        def write(told: dict[str, Any]) -> str:
            return self.session.export(str(told.get("format", "")), told.get("hard") is True)

        return await self._changing(request, dict[str, Any], write, alone=False)  # others need not wait for it

    async def _changing(
        self, request: Request, kind: Any, change: Callable[[Any], Any], alone: bool = True
    ) -> Response:
        """Do something for the page that has the pen: what it sends, of a kind, as JSON. Gives the new state."""
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _refused(MaskError("send JSON"), 415)
        if request.query_params.get("client", "") != self._pen:
            return _refused(MaskError("another tab or window is drawing: this one can only look"), 409)
        body, length = b"", 0
        try:
            async for part in request.stream():  # to the end, or who sends would not hear the answer
                length += len(part)
                if length <= _MOST_BYTES:
                    body += part
                elif length > 8 * _MOST_BYTES:
                    break
        except ClientDisconnect:
            return Response()  # which nobody gets
        if length > _MOST_BYTES:
            return _refused(MaskError(f"this is more than {_MOST_BYTES:,} bytes"), 413)

        def run() -> dict[str, Any]:
            with self._turn if alone else contextlib.nullcontext():
                changed = change(parse_json(body or b"{}", kind))
            return {**self.session.state(), "pen": True, "changed": changed}

        try:
            return JSONResponse(await run_in_threadpool(run))
        except (VostrackError, ValueError) as error:
            return _refused(error, 422)


def _refused(error: Exception, status: int) -> Response:
    return Response(json.dumps({"error": " ".join(str(error).split())}), status, media_type="application/json")
