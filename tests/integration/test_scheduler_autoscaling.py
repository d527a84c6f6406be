"""The scheduler with Ray's real autoscaler: a gang that fits nowhere brings exactly its node, which goes when idle."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import pytest
import ray

from mlaas.scheduler.autoscaling.types import Growth, NodeType
from mlaas.scheduler.decision.ordering import policy_named
from mlaas.scheduler.live.service import SchedulerService
from mlaas.scheduler.on_ray.cluster import RayCluster
from mlaas.scheduler.requests.queues import QueuesDocument
from mlaas.scheduler.requests.spec import Command, WorkloadSpec
from mlaas.scheduler.types import Gang, Resources
from tests.fakes.autoscaling_cluster import autoscaling_cluster
from tests.fakes.live_scheduler import new_store
from tests.waiting import wait_until

SMALL, BIG = (("size", "small"),), (("size", "big"),)
TYPES = {
    "small": {"resources": {"CPU": 2}, "labels": dict(SMALL), "max_workers": 2},
    "big": {"resources": {"CPU": 4}, "labels": dict(BIG), "max_workers": 1},
}
QUEUES = QueuesDocument(
    growth=Growth(
        node_types=(
            NodeType(name="small", capacity=Resources(cpus=2), labels=SMALL, max_nodes=2, price_usd_per_hour=1.0),
            NodeType(name="big", capacity=Resources(cpus=4), labels=BIG, max_nodes=1, price_usd_per_hour=3.0),
        ),
        max_usd_per_hour=4.0,
    )
)
UNTIL_TOLD = Command(argv=(sys.executable, "-c", "import signal; signal.pause()"))


@pytest.fixture(scope="module")
def cluster():
    with autoscaling_cluster(TYPES) as running:
        ray.init(running.address, log_to_driver=False)
        yield
        ray.shutdown()


def nodes_by_size() -> dict[str, int]:
    sizes = [row["Labels"].get("size", "head") for row in ray.nodes() if row["Alive"]]
    return {size: sizes.count(size) for size in set(sizes)}


async def test_a_gang_brings_exactly_the_node_it_needs_and_the_node_goes_when_idle(cluster, tmp_path):
    service = SchedulerService(
        RayCluster(tmp_path, changed=lambda: service.loop.wake()), new_store(tmp_path), policy=policy_named("mlaas")
    )
    await service.start()
    running = asyncio.create_task(service.run())
    try:
        await service.apply_queues(QUEUES, is_dry_run=False)
        spec = WorkloadSpec(gang=Gang(Resources(cpus=3)), command=UNTIL_TOLD, yield_grace_s=5.0)
        (gang,) = await service.submit(spec, tenant="ann")
        loop = asyncio.get_running_loop()

        def runs() -> bool:
            return asyncio.run_coroutine_threadsafe(service.get(gang.id), loop).result(5).state == "running"

        await asyncio.to_thread(wait_until, runs, what="the gang to run on the node that it brought", timeout_s=40)
        assert nodes_by_size() == {"head": 1, "big": 1}
        await service.cancel(gang.id, tenant="ann")

        def is_gone() -> bool:
            return nodes_by_size() == {"head": 1}

        await asyncio.to_thread(wait_until, is_gone, what="the idle node to go", timeout_s=40)
    finally:
        await service.stop()
        with suppress(asyncio.CancelledError):
            await running
