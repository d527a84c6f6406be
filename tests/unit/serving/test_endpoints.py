import asyncio

import pytest

from mlaas.serving.endpoints import SETTLE_S, EndpointRegistry
from mlaas.serving.leases import LEASE_S
from mlaas.serving.types import Endpoint

ENDPOINT = Endpoint(model="tiny", url="http://10.0.0.5:1", replica_id="a", api_key="key")


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def registry(clock):
    registry = EndpointRegistry(clock=clock)
    clock.now_s += SETTLE_S
    return registry


async def test_a_watcher_without_a_version_is_answered_at_once(registry):
    assert (await registry.watch("", 60.0)).endpoints == ()


async def test_a_report_wakes_the_watcher(registry):
    seen = await registry.watch("", 60.0)
    watching = asyncio.create_task(registry.watch(seen.version, 60.0))
    await asyncio.sleep(0)
    await registry.report(ENDPOINT)
    assert (await watching).endpoints == (ENDPOINT,)


async def test_a_withdrawal_wakes_the_watcher(registry):
    await registry.report(ENDPOINT)
    seen = await registry.watch("", 60.0)
    watching = asyncio.create_task(registry.watch(seen.version, 60.0))
    await asyncio.sleep(0)
    await registry.withdraw("a")
    assert (await watching).endpoints == ()


async def test_a_heartbeat_that_changes_nothing_keeps_the_version(registry):
    await registry.report(ENDPOINT)
    seen = await registry.watch("", 0.0)
    await registry.report(ENDPOINT)
    assert await registry.watch(seen.version, 0.0) == seen


async def test_a_silent_replica_is_no_longer_listed(registry, clock):
    await registry.report(ENDPOINT)
    seen = await registry.watch("", 0.0)
    clock.now_s += LEASE_S
    after = await registry.watch(seen.version, 60.0)
    assert after.endpoints == ()
    assert after.version != seen.version


async def test_two_registries_never_share_a_version(registry, clock):
    other = EndpointRegistry(clock=clock)
    clock.now_s += SETTLE_S
    assert (await registry.watch("", 0.0)).version != (await other.watch("", 0.0)).version


async def test_a_fresh_registry_listens_before_it_answers(clock):
    registry = EndpointRegistry(clock=clock)
    watching = asyncio.create_task(registry.watch("", 0.0))
    await asyncio.sleep(0)
    assert not watching.done()
    watching.cancel()
