"""One HTTP/1.1 connection of the router to an upstream: POST after POST, each answer read as it comes.

No answer is followed elsewhere or decompressed. One whose length is told in two ways, or whose head has no end, is
refused, and bytes that nobody asked for end the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

import httptools

HIGH_WATER_BYTES = 256 * 1024
"""Bytes of an answer that may wait to be read before the server is made to wait."""
MAX_HEAD_BYTES = 64 * 1024
"""Longest head of an answer, trailers included."""


class Closed(Exception):
    """The connection ended before the answer did."""


class BadAnswer(Exception):
    """What the server sent is not an HTTP answer that can be trusted."""


class Connection(asyncio.Protocol):
    """One connection to a server, and the one answer that is under way on it.

    Attributes:
        status: of the answer; 0 until its head has come.
        headers: of the answer, names in lower case; of headers of one name the last.
        is_complete: whether the whole answer has come.
        has_received: whether any byte has come since the request was sent.
        idle_since_s: loop's clock when the connection was put into the pool.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.is_complete = False
        self.has_received = False
        self.idle_since_s = 0.0
        self._loop = loop
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._is_busy = False
        self._is_reusable = False
        # No exception is kept: its traceback would hold the connection, and the connection it.
        self._why_failed: tuple[type[Exception], str] | None = None
        self._pieces: list[bytes] = []
        self._num_waiting_bytes = 0
        self._num_head_bytes = 0
        self._num_shapeless_bytes = 0
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._deadline_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the connection could carry another request, as far as can be seen from here."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_reusable(self) -> bool:
        """Whether the answer has ended cleanly and the server keeps the connection open."""
        return self.is_complete and self._is_reusable and self._why_failed is None and self.is_open

    async def ask(self, request: bytes, *, timeout_s: float) -> None:
        """Send a request and wait for the head of its answer.

        Raises:
            TimeoutError: it has not come in `timeout_s`.
            Closed: the server has closed the connection.
            BadAnswer: what came is no answer.
        """
        self.status, self.headers, self.is_complete, self.has_received = 0, {}, False, False
        self._is_busy, self._is_reusable = True, False
        self._num_head_bytes = self._num_shapeless_bytes = 0
        if self._transport is None or self._transport.is_closing():
            raise Closed
        self._transport.write(request)
        deadline_s = self._loop.time() + timeout_s
        while not self.status:
            await self._wait(deadline_s)

    async def read(self, *, timeout_s: float) -> bytes:
        """Return the bytes of the body that have come, once there are some; nothing at its end.

        Raises:
            TimeoutError: none came in `timeout_s`.
            Closed: the server closed the connection before the body's end.
            BadAnswer: what came is no answer.
        """
        if not self._pieces and not self.is_complete:
            deadline_s = self._loop.time() + timeout_s
            while not self._pieces and not self.is_complete:
                await self._wait(deadline_s)
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._num_waiting_bytes = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    def rest(self) -> None:
        """Go into the pool: bytes that come from now on were not asked for and end the connection."""
        self._is_busy = False
        self.idle_since_s = self._loop.time()

    def abort(self) -> None:
        """Close the connection at once; what is under way is lost."""
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self, deadline_s: float) -> None:
        if self._why_failed is not None:
            kind, text = self._why_failed
            raise kind(text)
        self._deadline_s = deadline_s
        # A timer once armed stays for later waits: it looks at the deadline anew when it fires, so that no timer is
        # made and cancelled for each wait.
        if self._timer is None or self._timer_at_s > deadline_s:
            self._arm_timer()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = self._deadline_s
        self._timer = self._loop.call_at(self._timer_at_s, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() < self._deadline_s:
            self._arm_timer()
        else:
            self._waiter.set_exception(TimeoutError())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, why: str) -> None:
        """End the connection; an answer that is whole by now stays good."""
        self._is_reusable = False
        self._why_failed = self._why_failed or (BadAnswer, why)
        self._wake()
        self.abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the transport; uvloop's is none of asyncio's classes."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the server."""
        if not self._is_busy or self._parser is None:
            self.abort()
            return
        self.has_received = True
        self._num_shapeless_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(str(error))
            return
        if self._num_shapeless_bytes > MAX_HEAD_BYTES or self._num_head_bytes > MAX_HEAD_BYTES:
            self._fail("the head has no end")
        elif self._num_waiting_bytes > HIGH_WATER_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Take note of the connection's end, which ends an answer without a length."""
        is_delimited = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        if self.status and not is_delimited and error is None and self._why_failed is None:
            self.is_complete = True
        self._why_failed = self._why_failed or (Closed, "the connection ended")
        # The parser and the connection hold each other; nothing of them should wait for the garbage collector.
        self._parser = self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    # Called by the parser, inside `data_received`.

    def on_message_begin(self) -> None:
        """Stop the parser at bytes after the answer's end: they belong to no request of ours.

        Raises:
            BadAnswer: there are such; the parser hands it on to `data_received`.
        """
        if self.is_complete:
            raise BadAnswer("bytes after the end of an answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the head; trailers are only counted."""
        self._num_shapeless_bytes = 0
        self._num_head_bytes += len(name) + len(value)
        if not self.status:
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Let go on who waits for the head, unless it is an interim one (1xx).

        Raises:
            BadAnswer: the body's end could not be told; the parser hands it on to `data_received`.
        """
        self._num_shapeless_bytes = 0
        status = self._parser.get_status_code() if self._parser is not None else 0
        if status == 101 or self.headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise BadAnswer("a protocol or transfer coding that was not asked for")
        if status < 200:
            self.headers = {}
        else:
            self.status = status
            self._wake()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body for the reader."""
        self._num_shapeless_bytes = 0
        self._num_waiting_bytes += len(body)
        self._pieces.append(body)
        self._wake()

    def on_message_complete(self) -> None:
        """End the answer; the connection may be used again if the server says so."""
        self._num_shapeless_bytes = 0
        if self.status and self._parser is not None:
            self.is_complete = True
            self._is_reusable = self._parser.should_keep_alive()
            self._wake()


def encode_post(authority: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of a request.

    Raises:
        ValueError: the path holds a space, or it or a header a line break, which would end it early.
    """
    head = "".join(
        (
            f"POST {path} HTTP/1.1\r\nhost: {authority}\r\n",
            *[f"{name}: {value}\r\n" for name, value in headers.items()],
            f"content-length: {len(body)}\r\n\r\n",
        )
    )
    num_lines = len(headers) + 4
    if head.count("\n") != num_lines or head.count("\r") != num_lines or " " in path:
        raise ValueError("the path or a header of the request would end it early")
    return head.encode("latin-1") + body
