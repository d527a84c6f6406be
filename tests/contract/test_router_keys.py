"""Several keys of one provider: shares by weight, and a key that is refused rests while the others serve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from aiohttp import web

from mlaas.providers.simulated.refusals import Refusal, encode_refusal
from mlaas.providers.simulated.server import Simulator
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import serving

CONFIG = """
providers:
  openai:
    base_url: "{url}/openai/v1"
    keys: [{{api_key: heavy, weight: 3}}, {{api_key: light}}, {{api_key: revoked, weight: 2}}]
  lost: {{kind: openai, base_url: "{url}/openai/v1", keys: [{{api_key: revoked}}, {{api_key: revoked}}]}}
models:
  either: {{targets: [lost/gpt-4o, openai/gpt-4o]}}
"""
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@web.middleware
async def refuse_revoked(request: web.Request, handler):
    if request.headers.get("authorization") == "Bearer revoked":
        return web.json_response(encode_refusal("openai", Refusal(status=401, message="no such key")), status=401)
    return await handler(request)


@pytest.fixture
def simulator() -> Simulator:
    return Simulator()


@pytest.fixture
def gateway(simulator: Simulator, tmp_path) -> Iterator[Gateway]:
    app = simulator.app()
    app.middlewares.append(refuse_revoked)
    with serving(app) as url, running_gateway(tmp_path, CONFIG.format(url=url)) as running:
        yield running


@pytest.fixture
def raw(gateway: Gateway) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {gateway.key}"}
    with httpx.Client(base_url=f"{gateway.url}/v1", headers=headers, timeout=30) as client:
        yield client


def test_keys_share_by_weight_and_one_that_is_refused_rests(raw: httpx.Client, simulator: Simulator) -> None:
    answers = [raw.post("/chat/completions", json={"model": "openai/gpt-4o", **CHAT}) for _ in range(41)]
    assert {answer.status_code for answer in answers} == {200}
    used = Counter(seen.headers["authorization"] for seen in simulator.seen)
    assert set(used) == {"Bearer heavy", "Bearer light"}
    assert used["Bearer heavy"] == pytest.approx(3 * used["Bearer light"], abs=4)


def test_a_provider_whose_keys_are_all_refused_is_passed_over(raw: httpx.Client, gateway: Gateway) -> None:
    for _ in range(2):
        answer = raw.post("/chat/completions", json={"model": "either", **CHAT})
        assert (answer.status_code, answer.headers["x-mlaas-provider"]) == (200, "openai")
    alone = raw.post("/chat/completions", json={"model": "lost/gpt-4o", **CHAT})
    assert alone.status_code >= 500
    assert "revoked" not in alone.text
