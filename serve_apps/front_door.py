"""Hands a request to the gateway before Ray Serve's own handling of it, which costs more than all of the routing.

Ray calls `middlewares` in each process that serves HTTP (`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`). Ray's own routes
(`/-/`) and every other application go their usual way. What is passed by: Ray's per-request metrics, ids and tasks; the
gateway has its own. Ray counts none of these requests, so the replica's shutdown waits for them in uvicorn, for as long
as `graceful_shutdown_timeout_s` leaves after the draining period.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import cast

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from mlaas.router.record import new_id

_ANTHROPIC = "/v1/messages"
"""Anthropic's SDKs look for the id in `request-id`, OpenAI's in `x-request-id`."""

_app: ASGIApp | None = None


def open_door(app: ASGIApp) -> None:
    """Hand this process's requests to `app` from now on."""
    global _app  # Ray builds the middleware and the application apart, in one process
    _app = app


class FrontDoor:
    """ASGI middleware, outermost in the process."""

    def __init__(self, app: ASGIApp) -> None:
        self._ray = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if _app is None or scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self._ray(scope, receive, send)
            return
        request_id = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        if request_id is None:
            request_id = new_id().encode()
            scope["headers"].append((b"x-request-id", request_id))
        is_anthropic = scope["path"].startswith(_ANTHROPIC)

        def send_with_id(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-request-id", request_id))
                if is_anthropic:
                    message["headers"].append((b"request-id", request_id))
                if scope["method"] != "HEAD":
                    _hold_head(send)
            return send(message)

        await _app(scope, receive, send_with_id)


class _HeldHead:
    """The transport of a response whose head waits for the first of its body, so that both leave in one write.

    ASGI wants it so ("Response Start"), but uvicorn writes each by itself: one more system call here, and the ingress
    and the caller are woken for a head that they can do nothing with. Of a small request that is a tenth of HAProxy's
    time, and four percent of the whole.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """Keep the head; write what comes after it behind it, and all else straight to the connection."""
        if self._head is None:
            self._head = data
        else:
            self._cycle.transport = self._transport
            self._transport.write(self._head + data)

    def is_closing(self) -> bool:
        """Tell whether the connection ends."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Write what is kept, and end the connection."""
        if self._head is not None:
            self.write(b"")
        self._transport.close()


def _hold_head(send: Send) -> None:
    cycle = getattr(send, "__self__", None)
    if isinstance(cycle, RequestResponseCycle):
        cycle.transport = cast("asyncio.Transport", _HeldHead(cycle))


def middlewares() -> list[Middleware]:
    """Return what Ray puts before its own handling."""
    return [Middleware(FrontDoor)]
