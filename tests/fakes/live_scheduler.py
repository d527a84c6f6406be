"""A live scheduler under a test's hands: real store in a file, cluster in memory, a clock that the test moves."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import event

from mlaas.errors import PlatformError
from mlaas.scheduler.decision.ordering import policy_named
from mlaas.scheduler.live.clock import Clock
from mlaas.scheduler.live.service import SchedulerService
from mlaas.scheduler.requests.spec import Command, WorkloadSpec
from mlaas.scheduler.types import Gang, Node, Resources
from mlaas.store.engine import migrate, open_store
from mlaas.store.workloads import WorkloadRecord, WorkloadRepository
from tests.fakes.memory_cluster import MemoryCluster

RUN = Command(argv=("true",))
START_S = 1_800_000_000.0


class TestClock:
    """Time that stands still until it is moved."""

    __test__ = False

    def __init__(self) -> None:
        self.wall_s = START_S
        self.monotonic_s = 1_000.0
        self.clock = Clock(lambda: self.wall_s, lambda: self.monotonic_s)

    def advance(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds


class Crash(BaseException):
    """The scheduler's process is no more."""


class FaultyStore(WorkloadRepository):
    """The real repository, which a test may take away: before a write, or after it, so that only the answer is lost."""

    is_down = False
    loses_answers = False
    on_call: Callable[[str], None] = staticmethod(lambda _verb: None)
    """Called before each write and after it."""

    def insert(self, *args: Any, **kwargs: Any) -> tuple[WorkloadRecord, ...]:
        return self._write(super().insert, *args, **kwargs)

    def update(self, *args: Any, **kwargs: Any) -> tuple[WorkloadRecord, ...]:
        return self._write(super().update, *args, **kwargs)

    def put_queues(self, *args: Any, **kwargs: Any) -> Any:
        return self._write(super().put_queues, *args, **kwargs)

    def _read(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_down:
            raise PlatformError("store_unavailable", "the database is down")
        return super()._read(*args, **kwargs)

    def _write(self, write: Any, *args: Any, **kwargs: Any) -> Any:
        if self.is_down:
            raise PlatformError("store_unavailable", "the database is down")
        self.on_call("write")
        written = write(*args, **kwargs)
        self.on_call("written")
        if self.loses_answers:
            raise PlatformError("store_unavailable", "the connection broke before the answer came")
        return written


@lru_cache(maxsize=1)
def _migrated() -> Path:
    path = Path(tempfile.mkdtemp(prefix="mlaas-store-")) / "template.db"
    migrate(f"sqlite:///{path}")
    return path


def new_store(folder: Path) -> FaultyStore:
    """Return an empty store in a folder; migrated once for all tests of a process. It need not survive the machine."""
    path = folder / "mlaas.db"
    shutil.copyfile(_migrated(), path)
    engine = open_store(f"sqlite:///{path}")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    return FaultyStore(engine)


class Bench:
    """A scheduler with all that it stands on."""

    def __init__(
        self, folder: Path, *, nodes: int = 2, gpus: int = 4, policy: str = "mlaas", poll_s: float = 0.02
    ) -> None:
        self.poll_s = poll_s
        self.time = TestClock()
        self.store = new_store(folder)
        self.cluster = MemoryCluster([node(f"n{number}", gpus=gpus) for number in range(nodes)])
        self.policy = policy_named(policy)
        self.is_dead = False
        self.service = self.new_service()

    def new_service(self) -> SchedulerService:
        return SchedulerService(self.cluster, self.store, policy=self.policy, clock=self.time.clock, poll_s=self.poll_s)

    async def start(self) -> Bench:
        await self.service.start()
        return self

    async def restart(self) -> None:
        """Another scheduler takes over: the first one is told nothing."""
        self.service = self.new_service()
        await self.service.start()
        await self.settle()

    def crash_at(self, verb: str, *, skip: int = 0) -> None:
        """Let the scheduler die at a call of the store or the cluster: that call, or any one with an empty verb."""
        left = [skip]

        def die(called: str) -> None:
            if not self.is_dead and called.startswith(verb):
                self.is_dead = left[0] == 0
                left[0] -= 1
            if self.is_dead:
                raise Crash

        self.cluster.on_call = self.store.on_call = die

    async def bury(self) -> None:
        """Drop what a dead scheduler has left on this event loop; store and cluster stay as they are."""
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self.cluster.on_call = self.store.on_call = lambda _verb: None
        self.is_dead = False

    async def settle(self) -> None:
        """Turn until nothing happens any more, or the scheduler dies."""
        for _ in range(6):
            await self.turn()

    async def turn(self) -> None:
        loop = self.service.loop
        try:
            await loop.look()
            await loop.turn()
            await loop.executor.settle()
            loop.executor.repeat()
            await loop.executor.settle()
        except Crash:
            assert self.is_dead

    async def after(self, seconds: float) -> None:
        self.time.advance(seconds)
        await self.settle()

    async def submit(self, spec: WorkloadSpec | None = None, *, tenant: str = "ann", **fields: Any) -> str:
        """Submit and return the id."""
        submission_id = fields.pop("submission_id", None)
        spec = spec or job(**fields)
        records = await self.service.submit(spec, tenant=tenant, submission_id=submission_id)
        return records[0].id

    async def state(self, workload_id: str) -> str:
        return (await self.service.get(workload_id)).state

    async def reason(self, workload_id: str) -> str:
        await self.after(1.5)
        return (await self.service.get(workload_id)).reason

    async def kinds(self, workload_id: str) -> list[str]:
        return [event.kind for event in await self.service.events(workload_id)]


def node(name: str, *, gpus: int = 4, cpus: float = 16.0) -> Node:
    return Node(name, Resources(gpus=gpus, cpus=cpus))


def job(*, gpus: float = 1.0, workers: int = 1, most: int | None = None, **fields: Any) -> WorkloadSpec:
    """A workload with a command, unless told otherwise."""
    gang = Gang(Resources(gpus=gpus), min_workers=workers, max_workers=most or workers)
    return WorkloadSpec(gang=gang, **{"command": RUN, **fields})
