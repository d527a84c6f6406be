"""The wire: answers in every cut and every state of damage, and what a connection does with them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.router.egress.http1 import HIGH_WATER_BYTES, MAX_HEAD_BYTES, BadAnswer, Closed, Connection, encode_post

BODY = b'{"a":"' + bytes(range(97, 123)) * 3 + b'"}'
ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY,
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"".join(b"%x;x=1\r\n%b\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:]))
    + b"0\r\ntrailer: t\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    + b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    + BODY,
}


class FakeTransport(asyncio.Transport):
    """Keeps what a connection does to its transport."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_aborted = False
        self.is_reading_paused = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_aborted

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False


@contextlib.asynccontextmanager
async def asking(timeout_s: float = 5.0) -> AsyncIterator[tuple[Connection, FakeTransport, asyncio.Task[None]]]:
    """Give a connection that waits for the head of its answer."""
    connection, transport = Connection(asyncio.get_running_loop()), FakeTransport()
    connection.connection_made(transport)
    task = asyncio.create_task(connection.ask(b"request", timeout_s=timeout_s))
    await asyncio.sleep(0)
    yield connection, transport, task
    connection.connection_lost(None)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Closed, BadAnswer, TimeoutError):
        await task


async def read_all(connection: Connection) -> bytes:
    body = b""
    while piece := await connection.read(timeout_s=5):
        body += piece
    return body


async def finish(connection: Connection, task: asyncio.Task[None]) -> bytes:
    await task
    return await read_all(connection)


def ended(feed: Callable[[Connection], None]) -> bytes:
    """Return the body of an answer that `feed` gives to a connection."""

    async def run() -> bytes:
        async with asking() as (connection, _, task):
            feed(connection)
            return await finish(connection, task)

    return asyncio.run(run())


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_whole_wherever_it_is_cut(name: str) -> None:
    answer = ANSWERS[name]

    async def run() -> None:
        for cut in range(1, len(answer)):
            async with asking() as (connection, _, task):
                connection.data_received(answer[:cut])
                connection.data_received(answer[cut:])
                await task
                assert connection.status == 200
                assert await read_all(connection) == BODY
                assert connection.is_reusable

    asyncio.run(run())


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_breaks_off_is_never_taken_for_whole(name: str) -> None:
    answer = ANSWERS[name]

    async def run() -> None:
        for cut in range(len(answer)):
            async with asking() as (connection, _, task):
                if cut:
                    connection.data_received(answer[:cut])
                connection.connection_lost(None)
                with pytest.raises(Closed):
                    await finish(connection, task)
                assert connection.has_received == (cut > 0)
                assert not connection.is_reusable

    asyncio.run(run())


def test_an_answer_without_a_length_ends_with_the_connection_but_not_with_an_error() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"

    def end(connection: Connection, error: Exception | None) -> None:
        connection.data_received(head + BODY)
        connection.connection_lost(error)

    assert ended(lambda connection: end(connection, None)) == BODY
    with pytest.raises(Closed):
        ended(lambda connection: end(connection, ConnectionResetError()))


@given(st.binary(max_size=300), st.integers(1, 40))
def test_garbage_fails_in_one_of_the_known_ways(garbage: bytes, step: int) -> None:
    def feed(connection: Connection) -> None:
        for start in range(0, len(garbage), step):
            connection.data_received(garbage[start : start + step])
        connection.connection_lost(None)

    with contextlib.suppress(Closed, BadAnswer):
        ended(feed)


@given(
    st.sampled_from(sorted(ANSWERS)),
    st.integers(0, 200),
    st.binary(min_size=1, max_size=3),
)
def test_a_damaged_answer_gives_a_body_or_a_known_failure(name: str, place: int, damage: bytes) -> None:
    answer = ANSWERS[name]
    place %= len(answer)

    def feed(connection: Connection) -> None:
        connection.data_received(answer[:place] + damage + answer[place:])
        connection.connection_lost(None)

    with contextlib.suppress(Closed, BadAnswer):
        ended(feed)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nname: " + b"x" * (MAX_HEAD_BYTES + 1),
        b"HTTP/1.1 200 OK\r\n" + b"name: value\r\n" * (MAX_HEAD_BYTES // 8),
    ],
)
async def test_an_answer_whose_end_is_in_doubt_is_refused(head: bytes) -> None:
    async with asking() as (connection, transport, task):
        connection.data_received(head)
        connection.data_received(b"2\r\nok\r\n0\r\n\r\n")
        with pytest.raises(BadAnswer):
            await finish(connection, task)
        assert transport.is_aborted


async def test_a_trailer_without_an_end_is_refused() -> None:
    async with asking() as (connection, transport, task):
        connection.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\ntrailer: ")
        await task
        for _ in range(MAX_HEAD_BYTES // 1024 + 1):
            connection.data_received(b"x" * 1024)
        assert transport.is_aborted
        with pytest.raises(BadAnswer):
            await read_all(connection)


async def test_bytes_after_the_end_keep_the_answer_and_end_the_connection() -> None:
    async with asking() as (connection, transport, task):
        connection.data_received(ANSWERS["length"] + ANSWERS["length"])
        await task
        assert await read_all(connection) == BODY
        assert not connection.is_reusable
        assert transport.is_aborted


async def test_bytes_for_a_resting_connection_end_it() -> None:
    async with asking() as (connection, transport, task):
        connection.data_received(ANSWERS["length"])
        await task
        connection.rest()
        assert connection.is_open
        connection.data_received(ANSWERS["length"])
        assert transport.is_aborted
        assert not connection.is_open


async def test_one_connection_carries_one_answer_after_the_other() -> None:
    async with asking() as (connection, transport, task):
        connection.data_received(ANSWERS["chunks"])
        await task
        assert await read_all(connection) == BODY
        for answer in ANSWERS.values():
            task = asyncio.create_task(connection.ask(b"next", timeout_s=5))
            await asyncio.sleep(0)
            connection.data_received(answer)
            await task
            assert await read_all(connection) == BODY
            assert connection.is_reusable
        assert transport.written == b"request" + b"next" * len(ANSWERS)


@pytest.mark.parametrize("ending", [b"connection: close\r\n", b""])
async def test_a_server_that_closes_is_not_asked_again(ending: bytes) -> None:
    version = b"HTTP/1.1" if ending else b"HTTP/1.0"
    async with asking() as (connection, _, task):
        connection.data_received(version + b" 200 OK\r\n" + ending + b"content-length: 2\r\n\r\nok")
        await task
        assert await read_all(connection) == b"ok"
        assert not connection.is_reusable


async def test_a_reader_that_is_slow_makes_the_server_wait() -> None:
    async with asking() as (connection, transport, task):
        connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
        await task
        connection.data_received(b"x" * HIGH_WATER_BYTES)
        assert not transport.is_reading_paused
        connection.data_received(b"x")
        assert transport.is_reading_paused
        assert len(await connection.read(timeout_s=5)) == HIGH_WATER_BYTES + 1
        assert not transport.is_reading_paused


async def test_silence_ends_the_wait_for_a_head_and_for_a_body() -> None:
    async with asking(timeout_s=0.01) as (connection, _, task):
        with pytest.raises(TimeoutError):
            await task
    async with asking() as (connection, _, task):
        connection.data_received(ANSWERS["length"][:-1])
        await task
        assert await connection.read(timeout_s=5) == BODY[:-1]
        with pytest.raises(TimeoutError):
            await connection.read(timeout_s=0.01)


async def test_a_long_wait_before_does_not_lengthen_a_short_one_nor_the_other_way_round() -> None:
    loop = asyncio.get_running_loop()
    async with asking(timeout_s=600) as (connection, _, task):
        connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
        await task
        began_s = loop.time()
        with pytest.raises(TimeoutError):
            await connection.read(timeout_s=0.01)
        with pytest.raises(TimeoutError):
            await connection.read(timeout_s=0.03)
        assert 0.039 <= loop.time() - began_s < 5


def test_a_request_names_its_host_and_length() -> None:
    request = encode_post("host:81", "/v1/x", {"a": "b"}, b"body")
    assert request == b"POST /v1/x HTTP/1.1\r\nhost: host:81\r\na: b\r\ncontent-length: 4\r\n\r\nbody"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/x HTTP/1.1", {}),
        ("/v1/x\r\n", {}),
        ("/v1/x", {"a": "b\r\nc: d"}),
        ("/v1/x", {"a": "b\nc: d"}),
        ("/v1/x", {"a\r\nc": "d"}),
        ("/v1/x", {"a": "\u20ac"}),
    ],
)
def test_a_request_cannot_be_ended_early(path: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"early|latin-1"):
        encode_post("host", path, headers, b"")
