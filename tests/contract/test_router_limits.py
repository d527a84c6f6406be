"""What keys may use, through the running gateway: models, requests, tokens, places and money, exactly."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest

from mlaas.auth.keys import create_key
from mlaas.auth.types import KeyLimits
from mlaas.providers.simulated.directive import DEFAULTS
from mlaas.providers.simulated.server import Simulator
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulating
from tests.fakes.vendors import vendors
from tests.waiting import wait_until

NUM_CALLERS = 64
BUDGET_USD = Decimal("0.01")
MESSAGES: list[Any] = [{"role": "user", "content": "Write a sum."}]
NewKey = Callable[[KeyLimits], str]


@pytest.fixture(scope="module")
def simulated() -> Iterator[tuple[str, Simulator]]:
    with simulating(defaults=replace(DEFAULTS, tokens=200, latency=0.02)) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(simulated, tmp_path_factory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), vendors(simulated[0])) as running:
        yield running


@pytest.fixture
def new_key(gateway: Gateway) -> NewKey:
    def create(limits: KeyLimits) -> str:
        secret, _ = create_key(gateway.keys, name="limited", tenant="tests", role="user", limits=limits)
        headers = {"authorization": f"Bearer {secret}"}
        wait_until(lambda: httpx.get(f"{gateway.url}/v1/models", headers=headers).is_success, what="the new key")
        return secret

    return create


def ask(gateway: Gateway, key: str, model: str = "house/m", **fields: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    body = {"model": model, "messages": MESSAGES, **fields}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30)


def test_a_key_asks_for_its_models_only(gateway: Gateway, new_key: NewKey) -> None:
    key = new_key(KeyLimits(models=("house/m",)))
    assert ask(gateway, key).status_code == 200
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError, match="house/m") as refused:
            client.chat.completions.create(model="openai/gpt-4o", messages=MESSAGES)
        assert refused.value.code == "model_not_allowed"


async def test_a_rate_is_exact_however_many_ask_at_once(gateway: Gateway, new_key: NewKey) -> None:
    answers = await ask_together(gateway, new_key(KeyLimits(rpm=20)), num_calls=NUM_CALLERS)
    assert Counter(answer.status_code for answer in answers) == {200: 20, 429: NUM_CALLERS - 20}
    refused = [answer for answer in answers if answer.status_code == 429]
    for answer in refused:
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert "rpm=20" in answer.json()["error"]["message"]
        assert 1 <= int(answer.headers["retry-after"]) <= 62
        assert answer.headers["x-ratelimit-limit-requests"] == "20"
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"20"}


def test_tokens_are_counted_as_they_were_used(gateway: Gateway, new_key: NewKey) -> None:
    key = new_key(KeyLimits(tpm=1000))
    first = ask(gateway, key, max_tokens=300)
    used = first.json()["usage"]["total_tokens"]
    second = ask(gateway, key, max_tokens=300)
    assert int(second.headers["x-ratelimit-remaining-tokens"]) <= 1000 - used
    assert ask(gateway, key, max_tokens=300).status_code == 200
    refused = ask(gateway, key, max_tokens=600)
    assert refused.status_code == 429
    assert "tpm=1000" in refused.json()["error"]["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 62
    too_long = ask(gateway, key, max_tokens=1001)
    assert too_long.status_code == 429
    assert "make it smaller" in too_long.json()["error"]["message"]
    assert "retry-after" not in too_long.headers


async def test_places_are_exact_and_free_when_their_callers_leave(
    gateway: Gateway, new_key: NewKey, simulated: tuple[str, Simulator]
) -> None:
    key, simulator = new_key(KeyLimits(concurrency=3)), simulated[1]
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=30) as client:
        url, body = f"{gateway.url}/v1/chat/completions", {"model": "house/sim-endless", "messages": MESSAGES}
        tasks = [asyncio.create_task(client.post(url, json={**body, "stream": True})) for _ in range(6)]
        try:
            done, running = await asyncio.wait(tasks, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            while len(running) > 3:
                more, running = await asyncio.wait(running, timeout=10, return_when=asyncio.FIRST_COMPLETED)
                done |= more
            await asyncio.to_thread(wait_until, lambda: simulator.num_active == 3, what="three upstream", timeout_s=5)
            for task in done:
                answer = task.result()
                assert (answer.status_code, answer.json()["error"]["code"]) == (429, "concurrency_limit_exceeded")
                assert "concurrency=3" in answer.json()["error"]["message"]
                assert int(answer.headers["retry-after"]) >= 1
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        answers = await asyncio.gather(*(client.post(url, json={**body, "model": "house/m"}) for _ in range(3)))
        assert [answer.status_code for answer in answers] == [200, 200, 200]


async def test_a_budget_is_never_overspent_and_nearly_all_of_it_can_be_used(gateway: Gateway, new_key: NewKey) -> None:
    """64 callers, who set no bound on their answers, ask for $0.0004 each until the cent is spent."""
    key = new_key(KeyLimits(budget_usd=BUDGET_USD, budget_per="day"))
    spent: list[Decimal] = []
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=30) as client:

        async def call_until_refused() -> httpx.Response:
            while True:
                body = {"model": "openai/gpt-5-mini", "messages": MESSAGES}
                answer = await client.post(f"{gateway.url}/v1/chat/completions", json=body)
                if answer.status_code != 200:
                    return answer
                spent.append(Decimal(answer.headers["x-mlaas-cost-usd"]))

        refused = await asyncio.gather(*(call_until_refused() for _ in range(NUM_CALLERS)))
    assert BUDGET_USD * Decimal("0.8") <= sum(spent) <= BUDGET_USD
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "budget_exceeded")
        assert "budget_usd=0.01" in answer.json()["error"]["message"]
        assert int(answer.headers["retry-after"]) >= 1
    used = await asyncio.to_thread(spent_in_ledger, gateway, key, num_calls=len(spent) + NUM_CALLERS)
    assert used == sum(spent)


def spent_in_ledger(gateway: Gateway, key: str, *, num_calls: int) -> Decimal:
    """Return what the journal says that a key spent, once it has all of its calls."""
    found = next(each for each in gateway.keys.list() if key.startswith(each.prefix))

    def rows() -> list[dict[str, Any]]:
        return [each for each in gateway.records() if each["key_id"] == found.id and each["operation"]]

    wait_until(lambda: len(rows()) >= num_calls, what="the journal", timeout_s=10)
    assert len(rows()) == num_calls
    return sum((Decimal(str(each["cost_usd"])) for each in rows() if each["cost_usd"] is not None), Decimal(0))


async def ask_together(gateway: Gateway, key: str, *, num_calls: int) -> list[httpx.Response]:
    """Return the answers to calls that are made at the same time."""
    limits = httpx.Limits(max_connections=num_calls)
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=30, limits=limits) as client:
        url, body = f"{gateway.url}/v1/chat/completions", {"model": "house/m", "messages": MESSAGES}
        return await asyncio.gather(*(client.post(url, json=body) for _ in range(num_calls)))
