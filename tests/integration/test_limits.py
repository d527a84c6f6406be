"""Limits across two gateway processes and a real ledger actor, which are killed on the way."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from mlaas.router.limits.actor import NUM_SHARDS
from mlaas.router.limits.budgets import to_nanos, to_usd
from mlaas.router.limits.ledger import shard_of
from mlaas.store.engine import migrate, open_store
from mlaas.store.ledger import BudgetLeaseRepository
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
CLUSTER = """
import os, sys
import ray
from mlaas.router.limits.actor import ACTOR_NAME, NAMESPACE
context = ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, namespace=NAMESPACE)
print(context.address_info["gcs_address"], flush=True)
for line in sys.stdin:
    ledger = ray.get_actor(f"{ACTOR_NAME}-{line.strip()}")
    print(ray.get(ledger.__ray_call__.remote(lambda _: os.getpid())), flush=True)
"""
REPLICA = """
import asyncio, json, sys
from decimal import Decimal
import ray
from mlaas.auth.types import KeyLimits, Principal
from mlaas.errors import MlaasError
from mlaas.router.limits.actor import LedgerClient
from mlaas.router.limits.meter import Meter

address, store_url, key_id, limits, num_callers, run_s = json.loads(sys.argv[1])
ray.init(address=address, log_to_driver=False)
budget = limits.pop("budget_usd", None)
principal = Principal(
    key_id=key_id,
    tenant="t",
    role="user",
    limits=KeyLimits(**limits, budget_usd=budget and Decimal(budget), budget_per=budget and "month"),
)
PRICE, FIXED, BOUND, TYPICAL = Decimal("2e-6"), Decimal("1e-5"), 1000, 30

async def call(meter, deadline_s):
    loop = asyncio.get_running_loop()
    while loop.time() < deadline_s:
        try:
            reservation = await meter.reserve(
                principal,
                input_tokens=5,
                output_tokens=5,
                cost_usd=FIXED + BOUND * PRICE,
                fixed_usd=FIXED,
                usd_per_output_token=PRICE,
            )
        except MlaasError as error:
            print(json.dumps({"refused": error.code}), flush=True)
            await asyncio.sleep(0.05)
            continue
        output = TYPICAL if reservation.max_output_tokens is None else min(TYPICAL, reservation.max_output_tokens)
        cost = FIXED + output * PRICE
        print(json.dumps({"cost": str(cost)}), flush=True)
        await asyncio.sleep(0.01)
        meter.settle(reservation, tokens=5 + output, cost_usd=cost)

async def main():
    meter = Meter(LedgerClient(store_url))
    running = asyncio.create_task(meter.run())
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(call(meter, loop.time() + run_s) for _ in range(num_callers)))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await meter.close()
    print(json.dumps({"closed": True}), flush=True)

asyncio.run(main())
"""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray cluster of its own, and a store."""

    address: str
    driver: subprocess.Popen[str]
    environment: dict[str, str]
    store_url: str

    def kill_ledger(self, key_id: str) -> None:
        """Kill the process of the ledger's shard that serves the key."""
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        self.driver.stdin.write(f"{shard_of(key_id, num_shards=NUM_SHARDS)}\n")
        self.driver.stdin.flush()
        os.kill(int(self.driver.stdout.readline()), signal.SIGKILL)


class Replica:
    """A gateway process with 32 callers that ask as fast as they are answered."""

    def __init__(self, cluster: Cluster, folder: Path, key_id: str, limits: dict[str, object], *, run_s: float) -> None:
        self._log = folder / f"replica-{time.monotonic_ns()}.jsonl"
        self._errors = self._log.with_suffix(".err")
        arguments = json.dumps([cluster.address, cluster.store_url, key_id, limits, 32, run_s])
        with self._log.open("wb") as out, self._errors.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", REPLICA, arguments], stdout=out, stderr=err, cwd=ROOT, env=cluster.environment
            )

    def costs(self) -> list[Decimal]:
        """Return what each request cost that was let in so far."""
        lines = self._log.read_text().splitlines(keepends=True)
        # Ray prints there as well.
        events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
        return [Decimal(event["cost"]) for event in events if "cost" in event]

    def wait(self) -> None:
        """Return when the process has ended well."""
        assert self.process.wait(90) == 0, self._errors.read_text()[-3000:]

    def kill(self) -> None:
        """End the process without a chance to say anything."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    store_url = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlaas.db"
    migrate(store_url)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert driver.stdout is not None
        address = driver.stdout.readline().strip()
        assert address, "the cluster did not start"
        yield Cluster(address=address, driver=driver, environment=environment, store_url=store_url)
    finally:
        driver.communicate(timeout=60)


def test_a_budget_is_not_overspent_when_the_ledger_and_a_replica_are_killed(cluster: Cluster, tmp_path: Path) -> None:
    budget = Decimal("0.5")
    replicas = [Replica(cluster, tmp_path, "key-money", {"budget_usd": str(budget)}, run_s=run_s) for run_s in (60, 30)]
    killed, survivor = replicas
    try:
        wait_until(lambda: all(len(each.costs()) > 100 for each in replicas), what="both replicas to spend")
        cluster.kill_ledger("key-money")
        so_far = len(survivor.costs())
        wait_until(lambda: len(survivor.costs()) > so_far + 500, what="the next ledger to grant", timeout_s=30)
        killed.kill()
        survivor.wait()
    finally:
        for replica in replicas:
            replica.kill()
    engine = open_store(cluster.store_url)
    leases = BudgetLeaseRepository(engine).list(key_id="key-money", period=f"{datetime.now(UTC):%Y-%m}")
    engine.dispose()
    spent = sum(killed.costs()) + sum(survivor.costs())
    assert spent <= budget
    assert sum(lease.granted_nanos - lease.returned_nanos for lease in leases) <= to_nanos(budget)
    [closed] = [lease for lease in leases if lease.granted_nanos == lease.returned_nanos + lease.spent_nanos]
    assert to_usd(closed.spent_nanos) == sum(survivor.costs())
    [lost] = [lease for lease in leases if lease != closed]
    assert sum(killed.costs()) <= to_usd(lost.granted_nanos - lost.returned_nanos)
    # All that nobody can have spent was there for the survivor: less than one more request is left.
    left = to_nanos(budget) - sum(lease.granted_nanos - lease.returned_nanos for lease in leases)
    assert to_usd(left) < Decimal("1.2e-5")


def test_a_window_holds_exactly_its_requests_over_replicas_and_ledgers(cluster: Cluster, tmp_path: Path) -> None:
    limits: dict[str, object] = {"rpm": 300, "tpm": 10**6, "concurrency": 100}
    replicas = [Replica(cluster, tmp_path, "key-rate", limits, run_s=25) for _ in range(2)]
    try:
        wait_until(lambda: sum(len(each.costs()) for each in replicas) >= 300, what="the window to be full")
        cluster.kill_ledger("key-rate")
        replicas.append(Replica(cluster, tmp_path, "key-rate", limits, run_s=15))
        for replica in replicas:
            replica.wait()
    finally:
        for replica in replicas:
            replica.kill()
    assert sum(len(each.costs()) for each in replicas) == 300
