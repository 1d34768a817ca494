"""The ASGI application: IAM's endpoints, and around them the log of requests and the faults on the wire."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iam_bridge.demo.iam import admin, oauth, scim
from iam_bridge.demo.iam.faults import FaultKind, Strike, Strikes
from iam_bridge.demo.iam.requestlog import SeenRequest
from iam_bridge.demo.iam.state import EmbeddedIam
from iam_bridge.demo.iam.wire import JSON_TYPE, Refusal, answer_json

LOG = logging.getLogger(__name__)
CHUNK = 64 * 1024


async def _refuse(_request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return answer_json(refusal.body, refusal.status, headers=refusal.headers)


def make_endpoints(iam: EmbeddedIam, admin_token: str) -> Starlette:
    """Make the application without log and faults."""
    app = Starlette(routes=[*oauth.ROUTES, *scim.ROUTES, *admin.ROUTES], exception_handlers={Refusal: _refuse})
    app.state.iam = iam
    app.state.admin_token = admin_token
    app.state.token_uses = Counter()
    return app


def _fixed(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status, dict(headers or {}), media_type=JSON_TYPE)


def _deep_json(strike: Strike) -> Response:
    depth = strike.fault.number
    return _fixed(200, b'{"totalResults":1,"Resources":' + b"[" * depth + b"]" * depth + b"}")


REPLACED: dict[FaultKind, Callable[[Strike], Response]] = {
    FaultKind.EMPTY_BODY: lambda _: _fixed(200, b""),
    FaultKind.SERVER_ERROR: lambda strike: _fixed(
        strike.fault.number, b'{"error":"server_error","error_description":"Internal Server Error"}'
    ),
    FaultKind.GARBAGE: lambda _: _fixed(200, b'{"totalResults": 3, "Resources": [{"id": \xff\xfe oops'),
    FaultKind.REDIRECT: lambda strike: _fixed(302, b"", {"Location": str(strike.fault.value)}),
    FaultKind.RATE_LIMIT: lambda strike: _fixed(
        429, b'{"error":"too_many_requests"}', {"Retry-After": str(strike.fault.number)}
    ),
    FaultKind.DEEP_JSON: _deep_json,
    FaultKind.REPLY: lambda strike: _fixed(200, str(strike.fault.value).encode()),
}
"""Faults that answer instead of the IAM."""


class FaultyApp:
    """Log each request, then let the faults that strike at it have their way."""

    def __init__(self, endpoints: ASGIApp, iam: EmbeddedIam) -> None:
        self._endpoints = endpoints
        self._iam = iam
        self.released = asyncio.Event()
        """Set when the server stops: nothing hangs or dawdles any longer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path: str = scope["path"]
        if path.startswith("/-/"):
            await self._endpoints(scope, receive, send)
            return
        query = bytes(scope["query_string"]).decode("ascii", "replace")
        self._iam.log.record(SeenRequest(scope["method"], path, query))
        strikes = scope["strikes"] = self._iam.faults.take(path)
        try:
            if strikes:
                await self._serve_faulty(strikes, scope, receive, send)
            else:
                await self._endpoints(scope, receive, send)
        except Exception:
            # The edge of the process: uvicorn closes the connection, the traceback must not be lost.
            LOG.exception("the embedded IAM failed at %s", path)
            raise

    async def _serve_faulty(self, strikes: Strikes, scope: Scope, receive: Receive, send: Send) -> None:
        if FaultKind.HANG in strikes:
            await self._hang(receive)
            return
        if slow := strikes.get(FaultKind.SLOW):
            await self._dawdle(float(slow.fault.value or 0))
        if huge := strikes.get(FaultKind.HUGE_BODY):
            await self._send_huge(huge.fault.number, receive, send)
            return
        replaced = next((make(strikes[kind]) for kind, make in REPLACED.items() if kind in strikes), None)
        inner: ASGIApp = replaced or self._endpoints
        if wrong := strikes.get(FaultKind.WRONG_TYPE):
            send = _with_type(send, str(wrong.fault.value))
        if FaultKind.CUT_BODY in strikes:
            send = _with_cut(send)
        await inner(scope, receive, send)

    async def _dawdle(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.released.wait(), seconds)
        except TimeoutError:
            return

    async def _hang(self, receive: Receive) -> None:
        async with _disconnect(receive) as gone:
            released = asyncio.ensure_future(self.released.wait())
            either: set[asyncio.Future[Any]] = {gone, released}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            released.cancel()

    async def _send_huge(self, size: int, receive: Receive, send: Send) -> None:
        """Send one JSON object of about `size` bytes without saying its length first."""
        headers = [(b"content-type", JSON_TYPE.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"filler":"', "more_body": True})
        async with _disconnect(receive) as gone:
            for _ in range(size // CHUNK + 1):
                if gone.done() or self.released.is_set():
                    return
                await send({"type": "http.response.body", "body": b"x" * CHUNK, "more_body": True})
                await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b'"}', "more_body": False})


@asynccontextmanager
async def _disconnect(receive: Receive) -> AsyncIterator[asyncio.Future[None]]:
    """Give a future that is done once the client has gone."""

    async def wait() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    gone = asyncio.ensure_future(wait())
    try:
        yield gone
    finally:
        gone.cancel()


def _with_type(send: Send, content_type: str) -> Send:
    async def changed(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message["headers"] if name != b"content-type"]
            message = {**message, "headers": [*kept, (b"content-type", content_type.encode())]}
        await send(message)

    return changed


def _with_cut(send: Send) -> Send:
    """Send half of each body as if more came; the server then finds the answer unfinished and hangs up."""

    async def changed(message: Message) -> None:
        if message["type"] == "http.response.body":
            body: bytes = message.get("body", b"")
            message = {**message, "body": body[: len(body) // 2], "more_body": True}
        await send(message)

    return changed
