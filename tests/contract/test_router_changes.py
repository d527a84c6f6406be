"""The world changes under a running gateway: its file, its store, the load of a local model."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
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
NEWLINE = "\n"
PRICES = """
prices:
  house/m: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}
"""


@pytest.fixture
def simulated() -> Iterator[tuple[str, Simulator]]:
    with simulating() as running:
        yield running


@dataclass
class Caller:
    """Asks a gateway with one key."""

    gateway: Gateway
    key: str
    statuses: list[int] = field(default_factory=list)

    def ask(self, model: str, **fields: Any) -> httpx.Response:
        body = {"model": model, "messages": MESSAGES, **fields}
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.post(f"{self.gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30)

    @contextmanager
    def asking_all_the_time(self, model: str) -> Iterator[None]:
        """Keep four callers busy meanwhile, and collect the statuses of their answers."""
        is_over = threading.Event()

        def work() -> None:
            while not is_over.is_set():
                self.statuses.append(self.ask(model).status_code)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            is_over.set()
            for thread in threads:
                thread.join()


def config_of(gateway: Gateway) -> dict[str, str]:
    found: dict[str, str] = httpx.get(f"{gateway.url}/healthz").json()["config"]
    return found


def test_a_new_file_takes_effect_while_requests_are_under_way(simulated: tuple[str, Simulator], tmp_path: Path) -> None:
    url = simulated[0]
    before = f"{vendors(url)}models:\n  fast: {{targets: [house/m]}}\n"
    with running_gateway(tmp_path, before) as gateway:
        caller = Caller(gateway, gateway.key)
        with caller.asking_all_the_time("fast"):
            body = {"model": "house/x@tokens:200+rate:100", "messages": MESSAGES, "stream": True}
            headers = {"authorization": f"Bearer {gateway.key}"}
            with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as answer:
                lines = answer.iter_lines()
                next(lines)
                gateway.config_path.write_text(before.replace("targets: [house/m]", "targets: [xai/grok-4.7]"))
                wait_until(
                    lambda: caller.ask("fast").headers["x-mlaas-provider"] == "xai", what="the new target", timeout_s=10
                )
                assert [line for line in lines if line][-1] == "data: [DONE]"
            version = config_of(gateway)["version"]
            gateway.config_path.write_text(before.replace("targets: [house/m]", "targetz: [house/m]"))
            wait_until(lambda: config_of(gateway)["refused"], what="the wrong file to be refused", timeout_s=10)
            told = config_of(gateway)
            assert told["version"] == version
            assert "targetz" in told["refused"]
            assert f"router.yaml:{before[: before.index('targets:')].count(NEWLINE) + 1}:" in told["refused"]
            assert caller.ask("fast").headers["x-mlaas-provider"] == "xai"
        assert len(caller.statuses) > 20
        assert set(caller.statuses) == {200}


def test_a_store_that_is_out_neither_opens_the_gate_nor_shuts_it(
    simulated: tuple[str, Simulator], tmp_path: Path
) -> None:
    with running_gateway(tmp_path, vendors(simulated[0]) + PRICES) as gateway:
        limits = KeyLimits(budget_usd=Decimal(1), budget_per="day")
        secret, _ = create_key(gateway.keys, name="metered", tenant="tests", role="user", limits=limits)
        metered, plain = Caller(gateway, secret), Caller(gateway, gateway.key)
        wait_until(lambda: metered.ask("house/m", max_tokens=50).status_code == 200, what="the key", timeout_s=10)
        with store_out(gateway):
            wait_until(lambda: usage_of(plain) is None, what="the store to be out", timeout_s=10)
            assert {plain.ask("house/m").status_code for _ in range(10)} == {200}
            answers = [metered.ask("house/m", max_tokens=50) for _ in range(5)]
            assert {answer.status_code for answer in answers} <= {200, 503}
            assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)
            assert Caller(gateway, "sk-mlaas-unknown").ask("house/m").status_code == 401
        costs = [Decimal(str(each["cost_usd"])) for each in gateway.records() if each["cost_usd"] is not None]
        assert len(costs) >= 11
        wait_until(lambda: usage_of(plain) == pytest.approx(float(sum(costs))), what="the spend", timeout_s=15)
        wait_until(lambda: metered.ask("house/m", max_tokens=50).status_code == 200, what="the budget", timeout_s=10)


@contextmanager
def store_out(gateway: Gateway) -> Iterator[None]:
    """Have every statement fail meanwhile: the store's tables have other names."""
    with closing(sqlite3.connect(gateway.store_path, isolation_level=None)) as store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        kept = [name for name in tables if not name.startswith("sqlite_")]
        for name in kept:
            store.execute(f'ALTER TABLE "{name}" RENAME TO "away_{name}"')
        try:
            yield
        finally:
            for name in kept:
                store.execute(f'ALTER TABLE "away_{name}" RENAME TO "{name}"')


def usage_of(caller: Caller) -> float | None:
    """Return what the ledger of usage shows as spent; None when it cannot be read."""
    headers = {"authorization": f"Bearer {caller.key}"}
    told = httpx.get(f"{caller.gateway.url}/api/v1/usage", headers=headers)
    return float(told.json()["total"]["cost_usd"]) if told.is_success else None


def test_a_busy_local_model_overflows_and_takes_its_traffic_back(tmp_path: Path) -> None:
    slow = replace(DEFAULTS, tokens=30, rate=40)
    with simulating(defaults=slow) as (local_url, _), simulating() as (url, paid):
        config = f"""{vendors(url)}
models:
  chat: {{targets: [local/tiny], burst: {{targets: [house/m], max_queue: 2, hold_s: 0.1}}}}
"""
        endpoint = LocalEndpoint(model="tiny", url=f"{local_url}/vllm")
        with running_gateway(tmp_path, config, endpoints=[endpoint], deployed=["tiny"]) as gateway:
            caller = Caller(gateway, gateway.key)
            wait_until(lambda: caller.ask("tiny").status_code == 200, what="the local model", timeout_s=10)
            with ThreadPoolExecutor(12) as pool:
                answers = list(pool.map(lambda _: caller.ask("chat"), range(12)))
            spread = Counter(answer.headers["x-mlaas-provider"] for answer in answers)
            assert set(spread) == {"local", "house"}
            assert spread["local"] >= 3
            overflowed = [answer for answer in answers if answer.headers["x-mlaas-provider"] == "house"]
            assert all("saturated" in answer.headers["x-mlaas-route-reason"] for answer in overflowed)
            num_paid = paid.num_requests
            assert num_paid == len(overflowed)
            wait_until(
                lambda: caller.ask("chat").headers["x-mlaas-provider"] == "local", what="the return", timeout_s=10
            )


def test_a_local_model_that_fails_authorises_no_paid_traffic(tmp_path: Path) -> None:
    with simulating() as (local_url, local), simulating() as (url, paid):
        config = f"""{vendors(url)}
models:
  failing: {{targets: [local/sim-500], burst: {{targets: [house/m], max_queue: 8}}}}
  silent: {{targets: [local/sim-slow], burst: {{targets: [house/m], max_queue: 8}}}}
  gone: {{targets: [local/gone], burst: {{targets: [house/m], max_queue: 8}}}}
timeouts: {{first_byte_s: 0.3, restart_wait_s: 0.1}}
"""
        endpoints = [LocalEndpoint(model=f"sim-{fault}", url=f"{local_url}/vllm") for fault in ("500", "slow")]
        endpoints.append(LocalEndpoint(model="gone", url="http://127.0.0.1:9"))
        with running_gateway(
            tmp_path, config, endpoints=endpoints, deployed=["sim-500", "sim-slow", "gone"]
        ) as gateway:
            caller = Caller(gateway, gateway.key)
            wait_until(lambda: local.num_requests or caller.ask("sim-500").is_success, what="the models", timeout_s=10)
            for model, statuses in {"failing": {500, 503}, "silent": {504, 503}, "gone": {503}}.items():
                assert {caller.ask(model).status_code for _ in range(4)} <= statuses
        assert paid.num_requests == 0
