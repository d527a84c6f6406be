"""Where an answer goes: to a caller over HTTP, or into memory for whoever asks from inside the gateway."""

from __future__ import annotations

from typing import Protocol

from mlaas.router.asgi import Headers, Send, send_json, start_stream


class Reply(Protocol):
    """Takes one answer, whole or as a stream."""

    async def whole(self, status: int, body: bytes, headers: Headers) -> None:
        """Take a whole JSON answer."""

    async def start_stream(self, headers: Headers) -> None:
        """Take the head of a stream; from here on no other answer can be given."""

    async def send(self, events: bytes) -> None:
        """Take whole events of the stream."""

    async def end_stream(self, events: bytes) -> None:
        """Take the last events."""


class HttpReply:
    """Answers a caller over ASGI."""

    __slots__ = ("_send",)

    def __init__(self, send: Send) -> None:
        self._send = send

    async def whole(self, status: int, body: bytes, headers: Headers) -> None:
        """Send a whole answer."""
        await send_json(self._send, status, body, headers)

    async def start_stream(self, headers: Headers) -> None:
        """Send the head of a stream."""
        await start_stream(self._send, headers)

    async def send(self, events: bytes) -> None:
        """Send events."""
        await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def end_stream(self, events: bytes) -> None:
        """Send the last events."""
        await self._send({"type": "http.response.body", "body": events})


class MemoryReply:
    """Keeps a whole answer.

    Attributes:
        status: HTTP status; 0 until there is an answer.
        body: the answer.
    """

    def __init__(self) -> None:
        self.status = 0
        self.body = b""

    async def whole(self, status: int, body: bytes, headers: Headers) -> None:
        """Keep the answer."""
        self.status, self.body = status, body

    async def start_stream(self, headers: Headers) -> None:
        """Begin to keep a stream's events as the body."""
        self.status = 200

    async def send(self, events: bytes) -> None:
        """Keep events."""
        self.body += events

    async def end_stream(self, events: bytes) -> None:
        """Keep the last events."""
        self.body += events
