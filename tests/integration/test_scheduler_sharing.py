"""Serving takes machines from training when its SLO breaks, on real Ray, and gives them back after the hold."""

from __future__ import annotations

import time

import pytest
import ray
from ray.cluster_utils import Cluster

from mlaas.scheduler.requests.spec import WorkloadSpec
from mlaas.scheduler.types import Gang, Resources
from tests.fakes.sharing_world import SharingWorld, share, trainer

HOLD_S = 3.0


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of two CPUs."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    cluster.wait_for_nodes()
    yield
    ray.shutdown()
    cluster.shutdown()


async def test_training_makes_room_within_seconds_and_is_back_after_the_hold(cluster, tmp_path):
    async with SharingWorld(tmp_path, share(hold_s=HOLD_S)) as world:
        await world.until_ready(1)
        spec = WorkloadSpec(
            gang=Gang(Resources(cpus=1.0), min_workers=3, max_workers=3), command=trainer(checkpoint_s=0.5)
        )  # fmt: skip
        (train,) = await world.service.submit(spec, tenant="ann")
        await world.until_state(train.id, "running")
        # A wave that comes and goes within the hold: whoever yields to it is asked once.
        broken_s = time.monotonic()
        world.ask(3, waiting=50)
        await world.until_ready(3)
        assert time.monotonic() - broken_s < 10.0
        assert (await world.service.get(train.id)).state == "pending"
        for num_needed in (1, 3, 1, 2, 1):
            world.ask(num_needed)
            await world.arbitration.tick()
        assert await world.num_ready() == 3
        calm_s = time.monotonic()
        await world.until_state(train.id, "running")
        assert time.monotonic() - calm_s >= HOLD_S
        record = await world.service.get(train.id)
        assert (record.attempt, record.num_preemptions, record.num_failures) == (2, 1, 0)
        assert await world.num_ready() == 1
