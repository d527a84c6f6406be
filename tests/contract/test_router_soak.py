"""Two thousand requests of every API to every kind of provider, one in twenty failing, from 64 callers at once.

Each ends in an answer or in a clear error, never in both or neither, and leaves one row in the ledger with the cost
that its caller was told; and when all are over, nothing is held or under way.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from mlaas.auth.keys import create_key
from mlaas.auth.types import KeyLimits
from mlaas.providers.simulated.directive import DEFAULTS
from mlaas.providers.simulated.server import Simulator
from mlaas.router.types import LocalEndpoint
from mlaas.store.engine import open_store
from mlaas.store.ledger import BudgetLease, BudgetLeaseRepository
from mlaas.store.usage import UsageEntry, UsageRepository
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulating
from tests.fakes.vendors import vendors
from tests.waiting import wait_until

NUM_REQUESTS = 2000
NUM_CALLERS = 64
NUM_LEAVING = 40
TARGETS = [
    "openai/gpt-4o",
    "anthropic/claude-sonnet-4-6",
    "gemini/gemini-3.8-flash",
    "perplexity/perplexity/sonar",
    "xai/grok-4.7",
    "house/m",
    "local/tiny",
]
SPECIAL = ["all", "hedged", "kept", "careful", "votes", "steps"]
BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "Write a sum."}]},
    "responses": {"input": "Write a sum.", "store": False},
    "messages": {"messages": [{"role": "user", "content": "Write a sum."}], "max_tokens": 100},
    "completions": {"prompt": "Write a sum."},
}
LAST_EVENTS = {"responses": '"response.completed"', "messages": '"message_stop"'}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a caller saw of one request.

    Attributes:
        is_answer: it got a whole answer.
        is_error: it was told of an error.
        cost_usd: what it was told that the answer cost.
    """

    request_id: str
    is_answer: bool
    is_error: bool
    cost_usd: Decimal | None


@pytest.fixture(scope="module")
def simulated() -> Iterator[tuple[str, Simulator]]:
    with simulating(fault_rate=0.05, defaults=replace(DEFAULTS, form="none")) as running:
        yield running


@pytest.fixture
def config(simulated: tuple[str, Simulator]) -> str:
    spread = "".join(f"  pair-{number}: {{targets: [{target}, house/m]}}\n" for number, target in enumerate(TARGETS))
    return f"""{vendors(simulated[0])}
models:
{spread}
  all: {{policy: weighted, targets: [{", ".join(TARGETS)}]}}
  hedged: {{targets: [{", ".join(TARGETS)}], hedge_after_s: 0.002}}
  kept: {{targets: [house/m, openai/gpt-4o], cache: {{ttl_s: 0.2}}}}
  careful: {{cascade: {{steps: [all, pair-1], check: {{min_chars: 80}}}}}}
  votes: {{ensemble: {{models: [pair-0, pair-5, hedged]}}}}
  steps: {{pipeline: {{steps: [{{model: kept}}, {{model: careful}}]}}}}
admission: {{per_replica: 4, max_queue: 1000}}
prices:
  house/m: {{input_usd_per_mtok: 1, output_usd_per_mtok: 2}}
timeouts: {{first_byte_s: 20, between_bytes_s: 20, restart_wait_s: 0.2}}
"""


def test_every_request_ends_once_and_is_accounted_for_once(
    config: str, simulated: tuple[str, Simulator], tmp_path: Path
) -> None:
    url, simulator = simulated
    endpoint = LocalEndpoint(model="tiny", url=f"{url}/vllm")
    with running_gateway(tmp_path, config, endpoints=[endpoint], deployed=["tiny"]) as gateway:
        key_id, secret = make_key(gateway)
        outcomes = asyncio.run(soak(gateway, secret))
        assert [each for each in outcomes if each.is_answer == each.is_error] == []
        counts = Counter(each.is_answer for each in outcomes)
        assert counts[False] > NUM_REQUESTS / 200
        assert counts[True] > NUM_REQUESTS * 0.9
        wait_until(lambda: simulator.num_active == 0, what="nothing to be under way upstream", timeout_s=5)
        asyncio.run(fill_all_places(gateway, secret, simulator))
        assert in_flight(gateway) == 1, "only the question itself"
        rows = wait_for_rows(gateway, NUM_REQUESTS + NUM_LEAVING + NUM_CALLERS)
    by_id = {row.request_id: row for row in rows}
    assert len(by_id) == len(rows) == NUM_REQUESTS + NUM_LEAVING + NUM_CALLERS
    for each in outcomes:
        row = by_id[each.request_id]
        assert (row.error is None, row.status < 400) == (
            each.is_answer,
            each.is_answer or (row.is_stream and row.status == 200),
        ), row
        if each.is_answer:
            assert (each.cost_usd or 0) == cost_of(row), row
    assert any(row.queue_ms for row in rows), "some waited for a place at the local model"
    check_leases(gateway, key_id, spent_usd=sum(map(cost_of, rows), Decimal(0)))


def make_key(gateway: Gateway) -> tuple[str, str]:
    """Return id and secret of a key with every kind of limit, none of which the soak reaches."""
    limits = KeyLimits(
        rpm=1_000_000, tpm=1_000_000_000, concurrency=NUM_CALLERS, budget_usd=Decimal(10_000), budget_per="month"
    )
    secret, key = create_key(gateway.keys, name="soak", tenant="soak", role="admin", limits=limits)
    headers = {"authorization": f"Bearer {secret}"}
    wait_until(lambda: httpx.get(f"{gateway.url}/v1/models", headers=headers).is_success, what="the key")
    return key.id, secret


async def soak(gateway: Gateway, secret: str) -> list[Outcome]:
    """Return what became of all requests but those whose caller left."""
    dice = random.Random(7)
    models = [*TARGETS, *(f"pair-{number}" for number in range(len(TARGETS))), *SPECIAL]
    cases = [(dice.choice(list(BODIES)), dice.choice(models), dice.random() < 0.5) for _ in range(NUM_REQUESTS)]
    todo = iter([*enumerate(cases), *((-number, None) for number in range(1, NUM_LEAVING + 1))])
    found: list[Outcome] = []
    headers = {"authorization": f"Bearer {secret}"}
    connector = aiohttp.TCPConnector(limit=NUM_CALLERS)
    async with aiohttp.ClientSession(f"{gateway.url}/v1/", headers=headers, connector=connector) as session:

        async def work() -> None:
            for number, case in todo:
                if case is None:
                    await leave_early(session, f"left{number}")
                else:
                    found.append(await ask(session, f"soak-{number}", *case))

        await asyncio.gather(*(work() for _ in range(NUM_CALLERS)))
    return found


async def ask(session: aiohttp.ClientSession, request_id: str, operation: str, model: str, is_stream: bool) -> Outcome:
    body = {**BODIES[operation], "model": model, "stream": is_stream}
    if is_stream and operation.endswith("completions"):
        body["stream_options"] = {"include_usage": True}
    async with session.post(operation, json=body, headers={"x-request-id": request_id}) as answer:
        text = await answer.text()
        told = answer.headers.get("x-mlaas-cost-usd")
    if not (is_stream and answer.status == 200):
        is_error = answer.status >= 400 and bool(json.loads(text)["error"]["message"])
        cost = Decimal(told) if told else None
        return Outcome(request_id=request_id, is_answer=answer.status == 200, is_error=is_error, cost_usd=cost)
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    is_answer = LAST_EVENTS.get(operation, "[DONE]") in events[-1]
    values = [json.loads(event) for event in events if event != "[DONE]"]
    return Outcome(
        request_id=request_id,
        is_answer=is_answer,
        is_error=any(value.get("error") or value.get("type") in ("error", "response.failed") for value in values),
        cost_usd=next(
            (Decimal(repr(usage["cost_usd"])) for usage in map(usage_of, values) if "cost_usd" in usage), None
        ),
    )


def usage_of(event: dict[str, Any]) -> dict[str, Any]:
    return event.get("usage") or (event.get("response") or {}).get("usage") or {}


async def leave_early(session: aiohttp.ClientSession, request_id: str) -> None:
    """Ask for a stream without an end, and leave after its first bytes."""
    body = {**BODIES["chat/completions"], "model": "house/sim-endless", "stream": True}
    answer = await session.post("chat/completions", json=body, headers={"x-request-id": request_id})
    await answer.content.readany()
    answer.close()


async def fill_all_places(gateway: Gateway, secret: str, simulator: Simulator) -> None:
    """Have as many requests under way as the key may, which is possible only when no place was lost; then leave."""
    connector = aiohttp.TCPConnector(limit=NUM_CALLERS)
    headers = {"authorization": f"Bearer {secret}"}
    async with aiohttp.ClientSession(f"{gateway.url}/v1/", headers=headers, connector=connector) as session:
        body = {**BODIES["chat/completions"], "model": "house/sim-endless", "stream": True}
        calls = (
            session.post("chat/completions", json=body, headers={"x-request-id": f"place-{number}"})
            for number in range(NUM_CALLERS)
        )
        answers = await asyncio.gather(*calls)
        assert {answer.status for answer in answers} == {200}
        assert simulator.num_active == NUM_CALLERS
        for answer in answers:
            answer.close()
    await asyncio.to_thread(wait_until, lambda: simulator.num_active == 0, what="the callers' leaving", timeout_s=5)


def in_flight(gateway: Gateway) -> float:
    secret, _ = create_key(gateway.keys, name="admin", tenant="ops", role="admin")
    headers = {"authorization": f"Bearer {secret}"}
    wait_until(lambda: httpx.get(f"{gateway.url}/v1/models", headers=headers).is_success, what="the key")
    text = httpx.get(f"{gateway.url}/metrics", headers=headers).text
    [value] = [
        line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith("mlaas_router_requests_in_flight")
    ]
    return float(value)


def wait_for_rows(gateway: Gateway, num_rows: int) -> list[UsageEntry]:
    """Return the ledger's rows, once that many have been carried there."""
    store = open_store(f"sqlite:///{gateway.store_path}")
    repository, since = UsageRepository(store), datetime(2020, 1, 1, tzinfo=UTC)

    def total() -> int:
        totals = repository.summarize("tenant", since=since, until=datetime.now(UTC), tenant="soak")
        return sum(each.num_requests for each in totals)

    try:
        wait_until(lambda: total() >= num_rows, what=f"{num_rows} rows", timeout_s=15)
        ids = [
            *(f"soak-{number}" for number in range(NUM_REQUESTS)),
            *(f"left-{number}" for number in range(1, NUM_LEAVING + 1)),
            *(f"place-{number}" for number in range(NUM_CALLERS)),
        ]
        assert total() == num_rows
        return list(itertools.chain.from_iterable(map(repository.get, ids)))
    finally:
        store.dispose()


def cost_of(row: UsageEntry) -> Decimal:
    return Decimal(row.cost_pico_usd or 0).scaleb(-12)


def check_leases(gateway: Gateway, key_id: str, *, spent_usd: Decimal) -> None:
    """The budget's ledger has what the rows add up to, and nothing is reserved any more."""
    store = open_store(f"sqlite:///{gateway.store_path}")
    [lease] = leases_of(BudgetLeaseRepository(store), key_id)
    store.dispose()
    assert lease.granted_nanos - lease.returned_nanos == lease.spent_nanos
    assert Decimal(lease.spent_nanos).scaleb(-9) == pytest.approx(spent_usd, rel=Decimal("1e-4"))
    assert Decimal(lease.spent_nanos).scaleb(-9) >= spent_usd


def leases_of(repository: BudgetLeaseRepository, key_id: str) -> list[BudgetLease]:
    return list(repository.list(key_id=key_id, period=f"{datetime.now(UTC):%Y-%m}"))
