"""What a request leaves behind: one ledger row, its cost in the answer, in `/api/v1/usage` and in the metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlaas.auth.keys import create_key
from mlaas.store.engine import open_store
from mlaas.store.usage import UsageEntry, UsageRepository
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulating
from tests.waiting import wait_until

CANARY = "CANARY-PROMPT"


@pytest.fixture
def gateway(tmp_path) -> Iterator[Gateway]:
    with simulating() as (url, _):
        config = f"""
providers:
  house: {{kind: openai_compatible, base_url: "{url}/v1", api_key: x, models: [m]}}
  xai: {{base_url: "{url}/xai/v1", api_key: x}}
models:
  paid: {{targets: [house/m]}}
  broken: {{targets: [house/sim-500, house/m]}}
prices:
  house/m: {{input_usd_per_mtok: 0.25, output_usd_per_mtok: 2, cache_read_usd_per_mtok: 0.025}}
"""
        with running_gateway(tmp_path, config) as running:
            yield running


@pytest.fixture
def caller(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {gateway.key}"}, timeout=30) as client:
        yield client


@pytest.fixture
def admin(gateway: Gateway) -> Iterator[httpx.Client]:
    secret, _ = create_key(gateway.keys, name="admin", tenant="ops", role="admin")
    with httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {secret}"}, timeout=30) as client:
        wait_until(lambda: client.get("/v1/models").is_success, what="the new key")
        yield client


def chat(model: str, **fields: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": CANARY}], **fields}


def row_of(gateway: Gateway, answer: httpx.Response) -> UsageEntry:
    store = open_store(f"sqlite:///{gateway.store_path}")
    repository, request_id = UsageRepository(store), answer.request.headers["x-request-id"]
    try:
        wait_until(lambda: repository.get(request_id), what="the ledger's row", timeout_s=10)
        [row] = repository.get(request_id)
    finally:
        store.dispose()
    return row


def post(client: httpx.Client, body: dict[str, object], request_id: str) -> httpx.Response:
    return client.post("/v1/chat/completions", json=body, headers={"x-request-id": request_id})


def test_an_answers_cost_is_the_ledgers(gateway: Gateway, caller: httpx.Client) -> None:
    answer = post(caller, chat("paid"), "whole")
    usage = answer.json()["usage"]
    cost = (Decimal(usage["prompt_tokens"]) * 250_000 + Decimal(usage["completion_tokens"]) * 2_000_000).scaleb(-12)
    row = row_of(gateway, answer)
    assert cost > 0
    assert Decimal(answer.headers["x-mlaas-cost-usd"]) == cost
    assert Decimal(row.cost_pico_usd).scaleb(-12) == cost
    assert (row.model, row.target, row.operation, row.status) == ("paid", "house/m", "chat/completions", 200)
    assert (row.tenant, row.num_attempts, row.error) == ("tests", 1, None)
    assert row.input_tokens == usage["prompt_tokens"]


def test_a_streams_cost_is_in_its_last_usage_and_the_ledger(gateway: Gateway, caller: httpx.Client) -> None:
    answer = post(caller, chat("paid", stream=True, stream_options={"include_usage": True}), "stream")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    [usage] = [event["usage"] for event in events if event.get("usage")]
    row = row_of(gateway, answer)
    assert Decimal(str(usage["cost_usd"])) == Decimal(row.cost_pico_usd).scaleb(-12) > 0
    assert row.is_stream
    assert row.ttft_ms is not None


def test_what_the_provider_billed_is_the_cost(gateway: Gateway, caller: httpx.Client) -> None:
    answer = post(caller, chat("xai/grok-4.7"), "billed")
    row = row_of(gateway, answer)
    ticks = answer.json()["usage"]["cost_in_usd_ticks"]
    assert row.cost_pico_usd == ticks * 100 > 0


def test_a_fallback_a_refusal_and_an_unknown_model_leave_one_row_each(gateway: Gateway, caller: httpx.Client) -> None:
    fell_back = post(caller, chat("broken"), "fallback")
    refused = post(caller, chat("house/sim-429"), "refused")
    unknown = post(caller, chat("nobody"), "unknown")
    rows = [row_of(gateway, answer) for answer in (fell_back, refused, unknown)]
    assert [row.status for row in rows] == [200, 429, 404]
    assert rows[0].target == "house/m"
    assert rows[0].num_attempts > 1
    assert rows[1].error
    assert rows[2].error
    assert [row.cost_pico_usd for row in rows[1:]] == [None, None]


def test_usage_and_metrics_show_it_to_whom_they_may(
    gateway: Gateway, caller: httpx.Client, admin: httpx.Client
) -> None:
    answer = post(caller, chat("paid"), "shown")
    row_of(gateway, answer)
    shown = caller.get("/api/v1/usage", params={"by": "tenant"}).json()
    assert [(row["tenant"], row["num_requests"]) for row in shown["data"]] == [("tests", 1)]
    assert Decimal(str(shown["total"]["cost_usd"])) == Decimal(answer.headers["x-mlaas-cost-usd"])
    assert caller.get("/api/v1/usage", params={"tenant": "ops"}).status_code == 403
    assert caller.get("/api/v1/usage", params={"by": "colour"}).status_code == 400
    assert caller.get("/metrics").status_code == 403
    text = admin.get("/metrics").text
    counted = {
        sample.labels["model"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "mlaas_router_requests_total"
    }
    assert counted == {"paid": 1}
    assert CANARY not in text + json.dumps(shown)
