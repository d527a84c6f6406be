"""Models made of others, beside what their answers say: limits told, tokens counted without asking anybody."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import anthropic
import httpx
import pytest

from mlaas.auth.keys import create_key
from mlaas.auth.types import KeyLimits
from mlaas.providers.simulated.server import Simulator
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulating
from tests.fakes.vendors import vendors
from tests.waiting import wait_until

MESSAGES: list[Any] = [{"role": "user", "content": "Write a sum."}]
MODELS = """
models:
  votes: {ensemble: {models: [house/m, openai/gpt-4o, xai/grok-4.7], combine: majority}}
  silent: {ensemble: {models: [house/m, house/sim-slow, openai/sim-slow]}}
  broken: {ensemble: {models: [house/sim-400, openai/sim-400]}}
prices:
  house/m: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}
"""


@pytest.fixture(scope="module")
def simulated() -> Iterator[tuple[str, Simulator]]:
    with simulating() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(simulated, tmp_path_factory) -> Iterator[Gateway]:
    config = vendors(simulated[0]) + MODELS
    with running_gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture(scope="module")
def limited(gateway: Gateway) -> Iterator[httpx.Client]:
    """A caller whose key may make four requests a minute."""
    limits = KeyLimits(rpm=4, budget_usd=Decimal(1), budget_per="day")
    secret, _ = create_key(gateway.keys, name="limited", tenant="tests", role="user", limits=limits)
    headers = {"authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=f"{gateway.url}/v1", headers=headers, timeout=20) as client:
        wait_until(lambda: client.get("/models").is_success, what="the key", timeout_s=10)
        yield client


def test_tokens_are_counted_without_asking_a_member(gateway: Gateway, simulated: tuple[str, Simulator]) -> None:
    num_requests = simulated[1].num_requests
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as client:
        assert client.messages.count_tokens(model="votes", messages=MESSAGES).input_tokens > 0
    assert simulated[1].num_requests == num_requests


def test_each_member_counts_against_the_limits_and_the_answer_tells_them(limited: httpx.Client) -> None:
    body = {"model": "votes", "messages": MESSAGES}
    answer = limited.post("/chat/completions", json=body)
    assert answer.status_code == 200
    assert answer.headers["x-ratelimit-limit-requests"] == "4"
    assert answer.headers["x-ratelimit-remaining-requests"] == "1"
    streamed = limited.post("/chat/completions", json={**body, "model": "house/m", "stream": True})
    assert streamed.headers["x-ratelimit-remaining-requests"] == "0"
    refused = limited.post("/chat/completions", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) > 0


def test_what_all_members_refuse_is_refused(gateway: Gateway) -> None:
    headers = {"authorization": f"Bearer {gateway.key}"}
    for is_stream in (False, True):
        body = {"model": "broken", "messages": MESSAGES, "stream": is_stream}
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 400
        assert "told to say 400" in answer.json()["error"]["message"]


def test_who_leaves_lets_go_of_all_members_and_pays_for_those_that_answered(
    gateway: Gateway, simulated: tuple[str, Simulator]
) -> None:
    simulator = simulated[1]
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"))
    body = json.dumps({"model": "silent", "messages": MESSAGES})
    headers = {"authorization": f"Bearer {gateway.key}", "x-request-id": "left-early"}
    num_requests = simulator.num_requests
    connection.request("POST", "/v1/chat/completions", body, headers)
    wait_until(
        lambda: simulator.num_requests == num_requests + 3 and simulator.num_active == 2,
        what="all members",
        timeout_s=5,
    )
    connection.close()
    wait_until(lambda: simulator.num_active == 0, what="the members to be let go", timeout_s=2)

    def row() -> dict[str, Any] | None:
        return next((each for each in gateway.records() if each["request_id"] == "left-early"), None)

    wait_until(row, what="the journal", timeout_s=5)
    found = row()
    assert found is not None
    assert (found["error"], found["model"]) == ("client_gone", "silent")
    assert Decimal(found["cost_usd"]) > 0
    assert found["usage"]["output_tokens"] == 16
    assert found["num_attempts"] == 3
