"""Which target of an alias answers: one that can honour the request, one that has a place, one that is not silent."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlaas.auth.keys import create_key
from mlaas.auth.types import KeyLimits
from mlaas.providers.simulated.directive import DEFAULTS
from mlaas.providers.simulated.server import Simulator
from mlaas.router.types import LocalEndpoint
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulating
from tests.fakes.vendors import vendors
from tests.waiting import wait_until

MESSAGES = [{"role": "user", "content": "Write a sum."}]
HTTP = httpx.Client(timeout=30)
CLAUDE, SONAR = "anthropic/claude-sonnet-4-6", "perplexity/perplexity/sonar"


@pytest.fixture(scope="module")
def simulated() -> Iterator[tuple[str, Simulator]]:
    with simulating() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(simulated, tmp_path_factory) -> Iterator[Gateway]:
    config = f"""{vendors(simulated[0])}
models:
  able: {{targets: [{CLAUDE}, openai/gpt-4o]}}
  unable: {{targets: [{CLAUDE}, {SONAR}]}}
  lax: {{targets: [{CLAUDE}, openai/gpt-4o], drop_params: [seed]}}
  kept: {{targets: ["house/m@latency:0.5"], cache: {{ttl_s: 60}}}}
  hedged: {{targets: ["house/slow@latency:1.5", house/m], hedge_after_s: 0.05}}
  race: {{targets: ["house/a@latency:0.2", "openai/b@latency:0.199"], hedge_after_s: 0.001}}
prices:
  house/m: {{input_usd_per_mtok: 1, output_usd_per_mtok: 100}}
  house/a@latency:0.2: {{input_usd_per_mtok: 1, output_usd_per_mtok: 100}}
  openai/b@latency:0.199: {{input_usd_per_mtok: 1, output_usd_per_mtok: 100}}
retries: {{min_per_s: 1000}}
"""
    with running_gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


def ask(gateway: Gateway, model: str, *, key: str = "", **fields: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key or gateway.key}"}
    body = {"model": model, "messages": MESSAGES, **fields}
    return HTTP.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers)


def new_key(gateway: Gateway, *, tenant: str = "tests", limits: KeyLimits | None = None) -> str:
    secret, _ = create_key(gateway.keys, name="more", tenant=tenant, role="user", limits=limits or KeyLimits())
    headers = {"authorization": f"Bearer {secret}"}
    wait_until(lambda: httpx.get(f"{gateway.url}/v1/models", headers=headers).is_success, what="the key", timeout_s=10)
    return secret


def test_a_field_that_the_first_target_cannot_honour_is_the_nexts(gateway: Gateway) -> None:
    answer = ask(gateway, "able", seed=1)
    assert answer.headers["x-mlaas-model"] == "gpt-4o"
    assert answer.headers["x-mlaas-route-reason"] == "anthropic/claude-sonnet-4-6 cannot take 'seed'"
    refused = ask(gateway, "unable", seed=1)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "seed")
    assert ask(gateway, "lax", seed=1).headers["x-mlaas-provider"] == "anthropic"


def test_a_cached_answer_is_its_tenants_alone(gateway: Gateway) -> None:
    other = new_key(gateway, tenant="others")
    states = [
        ask(gateway, "kept", key=key, seed=1).headers["x-mlaas-cache"]
        for key in (gateway.key, other, gateway.key, other)
    ]
    assert states == ["miss", "miss", "hit", "hit"]


def test_who_waits_for_a_cached_answer_gets_one_although_the_first_caller_leaves(
    gateway: Gateway, simulated: tuple[str, Simulator]
) -> None:
    simulator = simulated[1]
    body = json.dumps({"model": "kept", "messages": MESSAGES, "seed": 2})
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"))
    connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {gateway.key}"})
    wait_until(lambda: simulator.num_active == 1, what="the first request", timeout_s=5)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(ask, gateway, "kept", seed=2) for _ in range(3)]
        connection.close()
        answers = [each.result() for each in waiting]
    assert {answer.status_code for answer in answers} == {200}
    assert "miss" in {answer.headers["x-mlaas-cache"] for answer in answers}
    assert ask(gateway, "kept", seed=2).headers["x-mlaas-cache"] == "hit"


def test_a_silent_target_is_hedged_and_let_go(gateway: Gateway, simulated: tuple[str, Simulator]) -> None:
    simulator = simulated[1]
    num_cancelled = simulator.num_cancelled
    for is_stream in (False, True):
        answer = ask(gateway, "hedged", stream=is_stream)
        assert answer.elapsed.total_seconds() < 1.4
        assert (answer.status_code, answer.headers["x-mlaas-model"]) == (200, "m")
    wait_until(lambda: simulator.num_cancelled == num_cancelled + 2, what="the slow ones to be let go", timeout_s=1)
    assert simulator.num_active == 0


def test_hedging_does_not_overspend_a_budget(gateway: Gateway) -> None:
    """Both targets answer at about the same time; whatever is used of the loser's answer has to fit the budget too."""
    key = new_key(gateway, limits=KeyLimits(budget_usd=Decimal("0.01"), budget_per="day"))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(gateway, "race", key=key, max_tokens=8), range(24)))
    assert {answer.status_code for answer in answers} == {200, 429}
    found = next(each for each in gateway.keys.list() if key.startswith(each.prefix))

    def rows() -> list[dict[str, Any]]:
        return [each for each in gateway.records() if each["key_id"] == found.id and each["operation"]]

    wait_until(lambda: len(rows()) == len(answers), what="the journal", timeout_s=5)
    spent = sum(Decimal(str(each["cost_usd"] or 0)) for each in rows())
    assert spent <= Decimal("0.01")
    assert spent == sum(Decimal(answer.headers.get("x-mlaas-cost-usd", 0)) for answer in answers) > 0


def test_a_full_local_model_queues_then_refuses_and_its_alias_moves_on(tmp_path: Path) -> None:
    slow = replace(DEFAULTS, latency=0.4)
    with simulating(defaults=slow) as (local_url, local), simulating() as (url, _):
        config = f"""{vendors(url)}
models:
  spread: {{targets: [local/tiny, house/m]}}
admission: {{per_replica: 1, max_queue: 2}}
timeouts: {{restart_wait_s: 0}}
"""
        endpoint = LocalEndpoint(model="tiny", url=f"{local_url}/vllm")
        with running_gateway(tmp_path, config, endpoints=[endpoint], deployed=["tiny"]) as gateway:
            wait_until(lambda: ask(gateway, "tiny").status_code == 200, what="the local model", timeout_s=10)
            most = 0
            is_over = threading.Event()

            def watch() -> None:
                nonlocal most
                while not is_over.wait(0.005):
                    most = max(most, local.num_active)

            watcher = threading.Thread(target=watch)
            watcher.start()
            with ThreadPoolExecutor(6) as pool:
                answers = list(pool.map(lambda _: ask(gateway, "tiny"), range(6)))
            is_over.set()
            watcher.join()
            assert most == 1
            statuses = Counter(answer.status_code for answer in answers)
            assert statuses[200] >= 3
            assert statuses[200] + statuses[429] == 6
            refused = [answer for answer in answers if answer.status_code == 429]
            assert refused
            assert {answer.json()["error"]["code"] for answer in refused} == {"queue_full"}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
            with ThreadPoolExecutor(6) as pool:
                answers = list(pool.map(lambda _: ask(gateway, "spread"), range(6)))
            assert {answer.status_code for answer in answers} == {200}
            assert {answer.headers["x-mlaas-provider"] for answer in answers} == {"local", "house"}
            queued = [each["queue_ms"] for each in gateway.records() if each["queue_ms"]]
            assert queued
