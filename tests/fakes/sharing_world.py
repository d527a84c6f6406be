"""A deployment that shares a real Ray cluster with training: scheduler, arbitration, actors in place of engines."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from mlaas.scheduler.arbitration.leases import SchedulerLeases
from mlaas.scheduler.arbitration.ports import ReplicaLease
from mlaas.scheduler.arbitration.service import ArbitrationService
from mlaas.scheduler.arbitration.types import Load, ReplicaState, Share
from mlaas.scheduler.decision.ordering import policy_named
from mlaas.scheduler.live.service import SchedulerService
from mlaas.scheduler.on_ray.cluster import RayCluster
from mlaas.scheduler.requests.spec import Command
from mlaas.scheduler.types import Resources
from tests.fakes.live_scheduler import new_store
from tests.fakes.sharing import MemoryRouter

TRAINER = """
import os, signal, sys, time
def leave(*_):
    time.sleep(float(sys.argv[1]))  # Its checkpoint.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
signal.signal(signal.SIGTERM, leave)
while True:
    signal.pause()
"""


class _Engine:
    """Holds a replica's machine, as an engine does."""

    def is_up(self) -> bool:
        return True


@dataclass
class ActorReplicas:
    """Replicas as actors, pinned to the node that was booked for them: they are up only if that machine is free."""

    wanted: dict[str, Share]
    freed_s: dict[str, float] = field(default_factory=dict)
    """When the machine of each one was free for it."""
    up_s: dict[str, float] = field(default_factory=dict)
    """When each one answered first."""
    actors: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)

    async def shares(self) -> Mapping[str, Share]:
        """Return the deployments that share, by name."""
        return dict(self.wanted)

    async def put(self, leases: Sequence[ReplicaLease]) -> None:
        """Run exactly these."""
        there = {lease.workload_id: lease for lease in leases}
        for gone in self.actors.keys() - there.keys():
            ray.kill(self.actors.pop(gone))
            self.answers.pop(gone)
            self.up_s.pop(gone, None)
            self.freed_s.pop(gone)
        for workload_id in there.keys() - self.actors.keys():
            lease = there[workload_id]
            self.freed_s[workload_id] = time.monotonic()
            worker = self.wanted[lease.deployment].worker
            engine = ray.remote(_Engine).options(
                num_cpus=worker.cpus, num_gpus=worker.gpus, label_selector={"ray.io/node-id": str(lease.node)}
            )
            actor = engine.remote()
            self.actors[workload_id], self.answers[workload_id] = actor, actor.is_up.remote()

    async def tell(self, obstacles: Mapping[str, str]) -> None:
        """Nobody deploys."""

    async def present(self) -> Mapping[str, ReplicaState]:
        """Return what is there, and whether it answers."""
        for workload_id, answer in self.answers.items():
            if workload_id not in self.up_s and ray.wait([answer], timeout=0)[0]:
                self.up_s[workload_id] = time.monotonic()
        return {
            workload_id: ReplicaState.READY if workload_id in self.up_s else ReplicaState.STARTING
            for workload_id in self.actors
        }


class SharingWorld:
    """Scheduler and arbitration of this process, on the Ray cluster that it is connected to."""

    def __init__(self, folder: Path, share: Share) -> None:
        self.router = MemoryRouter()
        self.replicas = ActorReplicas({share.name: share})
        self.share = share
        cluster = RayCluster(folder, changed=lambda: self.service.loop.wake())
        self.service = SchedulerService(cluster, new_store(folder), policy=policy_named("mlaas"))
        self.leases = SchedulerLeases(self.service)
        self.arbitration = ArbitrationService(self.leases, self.replicas, self.router)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> SharingWorld:
        await self.service.start()
        self._tasks = [asyncio.create_task(self.service.run()), asyncio.create_task(self.arbitration.run())]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._tasks[1].cancel()
        await asyncio.gather(self._tasks[1], return_exceptions=True)
        await self.replicas.put([])
        for record in await self.service.list(limit=1000):
            await self.service.cancel(record.id, tenant=None)
        await self.service.loop.executor.settle()
        await self.service.stop()
        await self._tasks[0]

    def ask(self, num_needed: int, *, waiting: int = 0) -> None:
        """Let the router report a load."""
        self.router.seen = {self.share.name: Load(num_ready=0, num_needed=num_needed, num_waiting=waiting)}

    async def until(self, condition: Any, *, what: str, timeout_s: float = 30.0) -> None:
        """Wait until an async condition holds, looking each 20 ms."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await condition():  # noqa: ASYNC110  # what is waited for happens in other processes
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"waited {timeout_s:g} s for {what}") from None

    async def num_ready(self) -> int:
        """Return how many replicas answer."""
        return list((await self.replicas.present()).values()).count(ReplicaState.READY)

    async def until_ready(self, number: int, *, timeout_s: float = 30.0) -> None:
        """Wait until this many replicas answer."""

        async def ready() -> bool:
            return await self.num_ready() == number

        await self.until(ready, what=f"{number} replicas", timeout_s=timeout_s)

    async def until_state(self, workload_id: str, state: str) -> None:
        """Wait until a workload is in a state."""

        async def there() -> bool:
            return (await self.service.get(workload_id)).state == state

        await self.until(there, what=f"{workload_id} to be {state}")


def trainer(*, checkpoint_s: float) -> Command:
    """Return a command that trains until it is asked to leave, and then checkpoints for so long."""
    return Command(argv=(sys.executable, "-c", TRAINER, str(checkpoint_s)))


def share(*, cpus: float = 1.0, floor: int = 1, ceiling: int = 3, hold_s: float = 3.0) -> Share:
    """Return a deployment whose replicas take CPUs."""
    return Share(name="m", version=1, worker=Resources(cpus=cpus), floor=floor, ceiling=ceiling, hold_s=hold_s)
