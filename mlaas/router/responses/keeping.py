"""A reply that keeps what it passes on: the response is in the store before its caller has seen its end."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from mlaas.providers.splice import set_member
from mlaas.providers.sse import split_events
from mlaas.router.asgi import Headers
from mlaas.router.reply import Reply

Keep = Callable[[dict[str, Any], str], Awaitable[None]]
"""Takes a whole response and the name of the provider that answered."""

_PREVIOUS = re.compile(rb'"previous_response_id"\s*:\s*null')
_PROVIDER = b"x-mlaas-provider"
_ENDS = ("response.completed", "response.incomplete")


class KeepingReply:
    """Hands an answer on to another reply, and a response that has ended to `keep`.

    Args:
        reply: the caller's.
        keep: awaited before the caller gets the end; None keeps nothing.
        previous_id: what the caller continues. The upstream got the whole conversation instead and does not know it, so
            it is written into the answer here.
    """

    def __init__(self, reply: Reply, *, keep: Keep | None, previous_id: str | None) -> None:
        self._reply = reply
        self._keep = keep
        self._previous = None if previous_id is None else orjson.dumps(previous_id)
        self._provider = ""

    async def whole(self, status: int, body: bytes, headers: Headers) -> None:
        """Take a whole answer."""
        if status == 200:
            if self._previous is not None:
                body = set_member(body, "previous_response_id", self._previous)
            if self._keep is not None:
                await self._keep(orjson.loads(body), _provider_of(headers))
        await self._reply.whole(status, body, headers)

    async def start_stream(self, headers: Headers) -> None:
        """Take the head of a stream."""
        self._provider = _provider_of(headers)
        await self._reply.start_stream(headers)

    async def send(self, events: bytes) -> None:
        """Take events."""
        await self._reply.send(self._settle(events))

    async def end_stream(self, events: bytes) -> None:
        """Take the last events."""
        events = self._settle(events)
        if self._keep is not None:
            for payload in split_events(events)[-1:]:
                event = orjson.loads(payload)
                if event.get("type") in _ENDS:
                    await self._keep(event["response"], self._provider)
        await self._reply.end_stream(events)

    def _settle(self, events: bytes) -> bytes:
        if self._previous is None or b'"previous_response_id"' not in events:
            return events
        written = b'"previous_response_id":' + self._previous
        return _PREVIOUS.sub(lambda _: written, events)


def _provider_of(headers: Headers) -> str:
    return next((str(value, "latin-1") for name, value in headers if name == _PROVIDER), "")
