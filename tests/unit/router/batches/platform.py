"""A small gateway of files and batches alone, as OpenAI's SDK sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import openai
import orjson

from mlaas.auth.types import Principal
from mlaas.errors import MlaasError
from mlaas.providers.base import Operation
from mlaas.router.asgi import describe
from mlaas.router.batches.executor import BatchExecutor, Performed
from mlaas.router.batches.routes import batch_routes
from mlaas.router.files.folder import FileFolder
from mlaas.router.files.routes import file_routes
from mlaas.router.routes import Request
from mlaas.store.batches import BatchRepository, FileRepository
from mlaas.store.engine import migrate, open_store

ENDPOINT = "/v1/chat/completions"


def requests(*custom_ids: str, **body: Any) -> bytes:
    """Return the input of a batch."""
    fields = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
    lines = [
        {"custom_id": each, "method": "POST", "url": ENDPOINT, "body": {**fields, "user": each}} for each in custom_ids
    ]
    return b"\n".join(map(orjson.dumps, lines))


class Models:
    """Answers by the request's `user`; may hold requests back.

    `down` is a 500, `odd` a bug, `busy-N` a 429 N times, `broke` one that asks to wait for an hour.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.keys: set[tuple[str, str]] = set()
        self.free = asyncio.Event()
        self.free.set()
        self.num_at_once = self.most_at_once = 0

    async def __call__(self, operation: Operation, body: bytes, *, key_id: str, tenant: str) -> Performed:
        user = orjson.loads(body)["user"]
        self.asked.append(user)
        self.keys.add((key_id, tenant))
        self.num_at_once += 1
        self.most_at_once = max(self.most_at_once, self.num_at_once)
        try:
            await asyncio.sleep(0)
            await self.free.wait()
        finally:
            self.num_at_once -= 1
        if user == "odd":
            raise KeyError(user)
        if user.startswith("busy-") and self.asked.count(user) <= int(user[5:]):
            return Performed(status=429, body=b'{"error": {}}', request_id="r", retry_after_s=3)
        if user == "broke":
            return Performed(status=429, body=b"{}", request_id="r", retry_after_s=3600)
        status = 500 if user == "down" else 200
        return Performed(status=status, body=orjson.dumps({"echo": user}, option=orjson.OPT_INDENT_2), request_id="r")


class Platform:
    """The store, the folder and an executor over `Models`, with a clock of its own."""

    def __init__(self, home: Path) -> None:
        url = f"sqlite:///{home}/mlaas.db"
        migrate(url)
        self.engine = open_store(url)
        self.batches, self.files = BatchRepository(self.engine), FileRepository(self.engine)
        self.folder = FileFolder(home / "files")
        self.models = Models()
        self.waits_s: list[float] = []
        self.offset = timedelta()
        self.executor = self.new_executor()

    def new_executor(self, perform: Any = None) -> BatchExecutor:
        async def sleep(delay_s: float) -> None:
            self.waits_s.append(delay_s)

        return BatchExecutor(
            batches=self.batches,
            files=self.files,
            folder=self.folder,
            perform=perform or self.models,
            owner="test",
            concurrency=4,
            clock=lambda: datetime.now(UTC) + self.offset,
            sleep=sleep,
        )

    @asynccontextmanager
    async def client(self, tenant: str = "t") -> AsyncIterator[openai.AsyncOpenAI]:
        """Yield OpenAI's own client of one tenant."""
        transport = _Transport(self, Principal(key_id=f"key-{tenant}", tenant=tenant, role="user"))
        async with openai.AsyncOpenAI(
            api_key="x", base_url="http://gateway/v1", http_client=httpx.AsyncClient(transport=transport), max_retries=0
        ) as client:
            yield client


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, platform: Platform, principal: Principal) -> None:
        wake = platform.executor.wake
        self._routes = [
            *file_routes(platform.files, platform.folder),
            *batch_routes(platform.batches, platform.files, wake=wake),
        ]
        self._principal = principal

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        body = await request.aread()
        for route in self._routes:
            match = route.pattern.fullmatch(path)
            if match is None or route.method != request.method:
                continue
            query = dict(parse_qsl(request.url.query.decode()))
            headers = {name.lower(): value for name, value in request.headers.items()}
            seen = Request(principal=self._principal, path=match.groups(), query=query, headers=headers, body=body)
            try:
                result = await route.handler(seen)
            except MlaasError as error:
                failure = describe(error)
                content = {"error": {"message": failure.message, "code": failure.code, "param": failure.param}}
                return httpx.Response(failure.status, json=content)
            kind = result.content_type.decode()
            return httpx.Response(result.status, content=result.body, headers={"content-type": kind})
        return httpx.Response(404, json={"error": {"message": path, "code": "unknown_route"}})
