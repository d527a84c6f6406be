"""The way out against a server on a socket: reuse, stale connections, errors, private addresses, leaks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from mlaas.providers.base import FailureKind, ProviderFailed, WireRequest
from mlaas.providers.openai_compatible import OpenAICompatible
from mlaas.router.config import TimeoutConfig
from mlaas.router.egress.client import Answer, Egress
from mlaas.router.egress.pool import is_forbidden, parse_origin

HOUSE = OpenAICompatible(name="house", base_url="http://unused")
REQUEST = WireRequest(path="/chat/completions", headers={"content-type": "application/json"}, body=b"{}")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass
class Server:
    """A server that plays a script on each connection."""

    origin: str
    num_connections: int = 0
    num_requests: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def take_request(self, reader: asyncio.StreamReader) -> bool:
        """Read one request; whether there was one."""
        try:
            await reader.readuntil(b"\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return False
        self.num_requests += 1
        return True


Script = Callable[[Server, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(
    script: Callable[[Server, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Server]:
    server: Server

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.num_connections += 1
        try:
            # Ended with the listener, when a test leaves a connection open.
            with contextlib.suppress(asyncio.CancelledError):
                await script(server, reader, writer)
        finally:
            writer.close()
            server.closed.set()

    listener = await asyncio.start_server(play, "127.0.0.1", 0)
    server = Server(origin=f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1")
    async with listener:
        yield server


@contextlib.asynccontextmanager
async def going_out(**bounds: float) -> AsyncIterator[Egress]:
    egress = Egress(TimeoutConfig(**bounds))
    try:
        yield egress
    finally:
        await egress.close()


async def answer_all(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await server.take_request(reader):
        writer.write(OK)


async def fetch(egress: Egress, server: Server) -> bytes:
    answer = await egress.open(HOUSE, server.origin, REQUEST)
    try:
        return await answer.read()
    finally:
        answer.close()


async def failure_of(work: Awaitable[object]) -> FailureKind:
    with pytest.raises(ProviderFailed) as caught:
        await work
    return caught.value.failure.kind


async def test_requests_in_turn_share_a_connection_and_requests_at_once_do_not() -> None:
    async with serving(answer_all) as server, going_out() as egress:
        assert [await fetch(egress, server) for _ in range(5)] == [b"ok"] * 5
        assert server.num_connections == 1
        await asyncio.gather(*[fetch(egress, server) for _ in range(3)])
        assert server.num_connections == 3


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced_unseen() -> None:
    async def answer_once(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await server.take_request(reader):
            writer.write(OK)
            # The next request on this connection meets its end and no byte of an answer.
            await server.take_request(reader)

    async with serving(answer_once) as server, going_out() as egress:
        assert [await fetch(egress, server) for _ in range(3)] == [b"ok"] * 3
        assert server.num_connections == 3


async def test_a_fresh_connection_that_closes_is_a_failure() -> None:
    async def close(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.take_request(reader)

    async with serving(close) as server, going_out() as egress:
        assert await failure_of(fetch(egress, server)) is FailureKind.CLOSED
        assert server.num_requests == 1


async def test_an_answer_that_has_begun_is_never_asked_for_again() -> None:
    async def break_second(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.take_request(reader)
        writer.write(OK)
        await server.take_request(reader)
        writer.write(OK[:1])

    async with serving(break_second) as server, going_out() as egress:
        await fetch(egress, server)
        assert await failure_of(fetch(egress, server)) is FailureKind.CLOSED
        assert server.num_requests == 2


async def test_a_stream_comes_piece_by_piece_and_leaving_it_closes_the_connection() -> None:
    is_read = asyncio.Event()

    async def stream(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.take_request(reader)
        writer.write(EVENTS)
        for piece in (b"one", b"two"):
            writer.write(b"3\r\n" + piece + b"\r\n")
            await is_read.wait()
            is_read.clear()
        await reader.read()

    async with serving(stream) as server, going_out() as egress:
        answer = await egress.open(HOUSE, server.origin, REQUEST)
        assert answer.is_stream
        pieces = []
        async for piece in answer.chunks():
            pieces.append(piece)
            is_read.set()
            if len(pieces) == 2:
                break
        assert pieces == [b"one", b"two"]
        answer.close()
        await asyncio.wait_for(server.closed.wait(), 5)


async def test_cancelling_a_wait_for_an_answer_closes_the_connection() -> None:
    async def stay_silent(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.take_request(reader)
        started.set()
        await reader.read()

    started = asyncio.Event()
    async with serving(stay_silent) as server, going_out() as egress:
        task = asyncio.create_task(fetch(egress, server))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.closed.wait(), 5)


@pytest.mark.parametrize("start", [b"", EVENTS, OK[:-1]])
async def test_silence_is_a_timeout(start: bytes) -> None:
    async def stall(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.take_request(reader)
        writer.write(start)
        await reader.read()

    async with serving(stall) as server, going_out(first_byte_s=0.02, between_bytes_s=0.02) as egress:
        assert await failure_of(fetch(egress, server)) is FailureKind.TIMEOUT
        await asyncio.wait_for(server.closed.wait(), 5)


async def test_an_error_answer_is_decoded_and_a_redirect_is_not_followed() -> None:
    async def refuse(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.take_request(reader)
        body = b'{"error": {"message": "slow down"}}'
        writer.write(b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await server.take_request(reader)
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")
        await server.take_request(reader)

    async with serving(refuse) as server, going_out() as egress:
        with pytest.raises(ProviderFailed) as caught:
            await egress.open(HOUSE, server.origin, REQUEST)
        assert caught.value.failure.kind is FailureKind.OVERLOADED
        assert caught.value.failure.retry_after_s == 7
        assert "slow down" in caught.value.failure.message
        assert await failure_of(fetch(egress, server)) is FailureKind.FAILED
        assert server.num_connections == 1


async def test_an_answer_over_the_bound_is_refused() -> None:
    async def flood(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.take_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x" * 10_000)
                await writer.drain()

    async with serving(flood) as server, going_out() as egress:
        answer: Answer = await egress.open(HOUSE, server.origin, REQUEST)
        assert await failure_of(answer.read(max_bytes=100_000)) is FailureKind.FAILED
        answer.close()


async def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        async with going_out() as egress:
            assert await failure_of(egress.open(HOUSE, f"http://127.0.0.1:{port}/v1", REQUEST)) is FailureKind.REFUSED


@pytest.mark.parametrize("url", ["ftp://host/v1", "host", "http://", "http://user:secret@host/", "http://host:x/"])
async def test_a_base_url_that_is_none_is_a_failure(url: str) -> None:
    async with going_out() as egress:
        assert await failure_of(egress.open(HOUSE, url, REQUEST)) is FailureKind.FAILED


async def test_a_name_for_a_private_address_needs_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answer_all) as server, going_out() as egress:
        port = parse_origin(server.origin).port

        async def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        named = f"http://models.example:{port}/v1"
        with pytest.raises(ProviderFailed) as caught:
            await egress.open(HOUSE, named, REQUEST)
        assert caught.value.failure.kind is FailureKind.DENIED
        assert "allow_private" in caught.value.failure.message
        assert server.num_connections == 0
        egress.configure(TimeoutConfig(), allow_private=["house"])
        assert (await egress.open(HOUSE, named, REQUEST)).status == 200


@pytest.mark.parametrize(
    ("address", "as_name", "as_literal"),
    [
        ("8.8.8.8", False, False),
        ("2001:4860:4860::8888", False, False),
        ("10.1.2.3", True, False),
        ("192.168.0.1", True, False),
        ("127.0.0.1", True, False),
        ("::1", True, False),
        ("fd00::1", True, False),
        ("100.64.0.1", True, False),
        ("0.0.0.0", True, False),
        ("169.254.169.254", True, True),
        ("::ffff:169.254.169.254", True, True),
        ("::ffff:10.0.0.1", True, False),
        ("fe80::1%eth0", True, True),
        ("224.0.0.1", True, True),
        ("not an address", True, True),
    ],
)
def test_which_addresses_are_forbidden(address: str, as_name: bool, as_literal: bool) -> None:
    assert is_forbidden(address, is_literal=False) is as_name
    assert is_forbidden(address, is_literal=True) is as_literal


def test_the_parts_of_a_base_url() -> None:
    origin = parse_origin("https://api.example.com/v1/")
    assert (origin.scheme, origin.host, origin.port, origin.path) == ("https", "api.example.com", 443, "/v1")
    assert (origin.authority, origin.is_literal) == ("api.example.com", False)
    assert parse_origin("http://[::1]:80/v1").is_literal
    assert parse_origin("http://localhost:80").is_literal


async def test_neither_connections_nor_memory_grow_with_requests() -> None:
    async def answer_or_break(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await server.take_request(reader):
            writer.write(OK)
            if server.num_requests % 10 == 0:
                return

    async with serving(answer_or_break) as server, going_out() as egress:

        async def ask(num: int) -> None:
            for _ in range(num):
                await fetch(egress, server)

        await asyncio.gather(*[ask(50) for _ in range(4)])
        num_files = len(os.listdir("/proc/self/fd"))
        tracemalloc.start()
        try:
            await asyncio.gather(*[ask(50) for _ in range(4)])
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            await asyncio.gather(*[ask(250) for _ in range(4)])
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 200_000  # A fifth of what a kilobyte for each request would be.
        assert len(os.listdir("/proc/self/fd")) <= num_files + 8
