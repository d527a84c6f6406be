"""What the front door makes of a request and of its answer, by itself and under uvicorn's own protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serve_apps import front_door
from serve_apps.front_door import FrontDoor

ID = b"0198f0000000000000000000000000aa"
DEADLINE_S = 30.0


class KeptTransport(asyncio.Transport):
    """Keeps each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def resume_reading(self) -> None:
        pass


async def nobody(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the request was not for Ray")


@asynccontextmanager
async def asked(monkeypatch: pytest.MonkeyPatch, app: ASGIApp, request: bytes) -> AsyncIterator[KeptTransport]:
    """Give what a request's connection carried once it is answered."""
    monkeypatch.setattr(front_door, "_app", app)
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "level", logging.CRITICAL)
    config = Config(FrontDoor(nobody), lifespan="off", access_log=False, log_config=None)
    config.load()
    state, transport = ServerState(), KeptTransport()
    protocol = HttpToolsProtocol(config=config, server_state=state, app_state={})
    protocol.connection_made(transport)
    protocol.data_received(request)
    await asyncio.wait_for(asyncio.gather(*state.tasks), DEADLINE_S)
    yield transport
    protocol.connection_lost(None)


def answering(*bodies: bytes, length: int | None = None) -> ASGIApp:
    """Return an application that answers in pieces, under a length or without one."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % length)] if length is not None else []
        start: Message = {"type": "http.response.start", "status": 200, "headers": headers}
        await send(start)
        for body in bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


async def test_the_head_of_an_answer_leaves_with_the_first_of_its_body(monkeypatch: pytest.MonkeyPatch) -> None:
    request = b"GET / HTTP/1.1\r\nhost: h\r\nx-request-id: %b\r\n\r\n" % ID
    async with asked(monkeypatch, answering(b"one", b"two", length=6), request) as transport:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nx-request-id: %b\r\n\r\n" % ID
        assert [each for each in transport.writes if each] == [head + b"one", b"two"]


async def test_events_of_a_stream_leave_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(monkeypatch, answering(b"one", b"two"), b"GET / HTTP/1.1\r\nhost: h\r\n\r\n") as transport:
        first, second, last = transport.writes
        assert first.startswith(b"HTTP/1.1 200 OK\r\n")
        assert first.endswith(b"\r\n\r\n3\r\none\r\n")
        assert (second, last) == (b"3\r\ntwo\r\n", b"0\r\n\r\n")


async def test_an_answer_without_a_body_is_sent_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(monkeypatch, answering(length=0), b"HEAD / HTTP/1.1\r\nhost: h\r\n\r\n") as transport:
        assert b"".join(transport.writes).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_an_answer_that_breaks_off_behind_its_head_still_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError

    async with asked(monkeypatch, app, b"GET / HTTP/1.1\r\nhost: h\r\n\r\n") as transport:
        assert b"".join(transport.writes).startswith(b"HTTP/1.1 200 OK\r\n")
        assert transport.is_closed


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr(front_door, "_app", PlainTextResponse("ok"))
    transport = httpx.ASGITransport(FrontDoor(PlainTextResponse("Ray's")))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        yield http


@pytest.mark.parametrize(
    ("path", "names"), [("/v1/chat/completions", {"x-request-id"}), ("/v1/messages", {"x-request-id", "request-id"})]
)
async def test_an_answer_has_the_requests_id_where_the_sdks_look_for_it(
    client: httpx.AsyncClient, path: str, names: set[str]
) -> None:
    answer = await client.post(path, headers={"x-request-id": "mine"})
    assert {name: answer.headers.get(name) for name in names} == dict.fromkeys(names, "mine")
    made = {(await client.post(path)).headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2


async def test_rays_own_routes_are_rays(client: httpx.AsyncClient) -> None:
    assert (await client.get("/-/healthz")).text == "Ray's"
    assert (await client.get("/v1/models")).text == "ok"
