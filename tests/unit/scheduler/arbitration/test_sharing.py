"""Serving and training on one live scheduler: who makes room, and who gets the machines back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mlaas.scheduler.arbitration.leases import SchedulerLeases
from mlaas.scheduler.arbitration.service import OBSTACLE_S, ArbitrationService
from mlaas.scheduler.arbitration.types import Load, Share
from mlaas.scheduler.requests.queues_file import parse_queues
from mlaas.scheduler.types import Resources
from tests.fakes.live_scheduler import Bench
from tests.fakes.sharing import MemoryReplicas, MemoryRouter

M = Share(name="m", version=1, worker=Resources(gpus=1), floor=1, ceiling=4, hold_s=60.0)


class World:
    """Two nodes of four GPUs under a live scheduler, and a deployment that shares them."""

    def __init__(self, bench):
        self.bench = bench
        self.replicas, self.router = MemoryReplicas({"m": M}), MemoryRouter()
        self.leases = SchedulerLeases(bench.service)
        self.service = ArbitrationService(self.leases, self.replicas, self.router, clock=lambda: bench.time.monotonic_s)

    def ask(self, num_needed):
        self.router.seen = {"m": Load(num_ready=0, num_needed=num_needed)}

    async def until(self, condition):
        """Turn both loops until a condition holds."""
        for _ in range(100):
            await self.service.tick()
            await self.bench.turn()
            await asyncio.sleep(0.005)
            if await condition():
                return
        raise AssertionError("it did not come about in 100 turns")

    async def until_running(self, number):
        async def condition():
            return len(self.replicas.running) == number

        await self.until(condition)

    async def until_state(self, workload_id, state):
        async def condition():
            return await self.bench.state(workload_id) == state

        await self.until(condition)

    async def live_on(self, seconds):
        """Let time pass while holders go on polling: one that is silent for longer than the limit has died."""
        self.bench.time.advance(seconds)
        now_s, attached = self.bench.time.monotonic_s, self.bench.service.loop.roster.attached

        async def all_were_heard():
            return all(live.seen_s == now_s for live in attached.values())

        await self.until(all_were_heard)


@pytest.fixture
async def world(tmp_path):
    world = World(await Bench(tmp_path).start())
    yield world
    await world.leases.close()


async def test_training_yields_at_once_for_replicas_and_is_back_once_demand_has_gone_for_the_hold(world):
    bench = world.bench
    await world.until_running(1)
    train = await bench.submit(gpus=3, workers=2)
    await world.until_state(train, "running")
    world.ask(4)
    await world.until_state(train, "yielding")
    assert bench.cluster.asked == [f"{train}.1"]
    bench.cluster.end(f"{train}.1", -15)
    await world.until_running(4)
    assert await bench.state(train) == "pending"
    world.ask(1)
    bench.time.advance(30.0)
    await world.service.tick()
    bench.time.advance(30.0)
    await world.service.tick()
    assert len(world.replicas.running) == 4
    # The loop looks each half second; here only when the test says so.
    for _ in range(5):
        bench.time.advance(20.0)
        await world.service.tick()
    await world.until_running(1)
    await world.until_state(train, "running")
    assert f"{train}.2" in bench.cluster.running


async def test_no_deployment_takes_the_fresh_replicas_of_another(world):
    other = replace(M, name="other", ceiling=8)
    world.replicas.wanted["other"] = other
    world.router.seen = {name: Load(num_ready=0, num_needed=8) for name in ("m", "other")}
    await world.until_running(8)
    before = set(world.replicas.running)
    for _ in range(10):
        await world.live_on(5.0)
    assert set(world.replicas.running) == before


async def test_a_lost_node_takes_only_the_replicas_that_were_on_it(world):
    world.ask(4)
    await world.until_running(4)
    before = dict(world.replicas.nodes)
    lost = next(iter(before.values()))
    world.bench.cluster.lose_node(lost)

    async def is_back():
        return len(world.replicas.running) == 4 and lost not in world.replicas.nodes.values()

    await world.until(is_back)
    stayed = {workload for workload, node in before.items() if node != lost}
    assert stayed <= world.replicas.running.keys()


async def test_replicas_are_held_on_by_who_takes_over(world):
    world.ask(2)
    await world.until_running(2)
    before = set(world.replicas.running)
    await world.leases.close()
    world.leases = SchedulerLeases(world.bench.service)
    world.service = ArbitrationService(
        world.leases, world.replicas, world.router, clock=lambda: world.bench.time.monotonic_s
    )
    await world.service.tick()
    assert set(world.replicas.running) == before
    await world.until_running(2)
    assert set(world.replicas.running) == before


async def test_replicas_of_the_floor_never_yield_and_the_others_do(world):
    world.ask(4)
    await world.until_running(4)
    rows = await world.bench.service.list(tenant="serving")
    assert sorted(row.spec.get("preemptible", True) for row in rows) == [False, True, True, True]


async def test_a_replica_that_its_queue_has_no_quota_for_is_told_of_with_what_would_start_it(world):
    bench = world.bench
    queues = parse_queues({"queues": {"default": {}, "q": {"guarantee": {"gpus": 1}, "borrowing_limit": {"gpus": 0}}}})
    await bench.service.apply_queues(queues, is_dry_run=False)
    other = await bench.submit(queue="q", preemptible=False, priority_class="high")
    await bench.settle()
    world.replicas.wanted = {"m": replace(M, queue="q", ceiling=1)}
    await world.service.tick()
    await bench.settle()
    await world.live_on(1.0)
    await world.live_on(OBSTACLE_S)
    obstacle = world.replicas.obstacles["m"]
    assert obstacle.startswith("queue q is at its limit and has nothing left to borrow; what would start it now: ")
    assert f"; or {other} would have to give back 1 GPU" in obstacle
    bench.cluster.end(f"{other}.1")
    await world.until_running(1)
    assert world.replicas.obstacles == {}
