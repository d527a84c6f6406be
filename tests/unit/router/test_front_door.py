"""What stands before the gateway in each of Ray Serve's processes."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse

from serve_apps import front_door


@pytest.fixture
async def client(monkeypatch):
    monkeypatch.setattr(front_door, "_app", PlainTextResponse("ok"))
    door = front_door.FrontDoor(PlainTextResponse("Ray's"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://gateway") as http:
        yield http


@pytest.mark.parametrize(
    ("path", "names"), [("/v1/chat/completions", {"x-request-id"}), ("/v1/messages", {"x-request-id", "request-id"})]
)
async def test_an_answer_has_the_requests_id_where_the_sdks_look_for_it(client, path, names):
    answer = await client.post(path, headers={"x-request-id": "mine"})
    assert {name: answer.headers.get(name) for name in names} == dict.fromkeys(names, "mine")
    made = {(await client.post(path)).headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2


async def test_rays_own_routes_are_rays(client):
    assert (await client.get("/-/healthz")).text == "Ray's"
    assert (await client.get("/v1/models")).text == "ok"
