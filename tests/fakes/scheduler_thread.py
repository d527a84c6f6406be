"""A live scheduler in a thread of its own, on a cluster in memory: what the gateway talks to in place of the actor."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from mlaas.scheduler.decision.ordering import policy_named
from mlaas.scheduler.live.service import SchedulerService
from mlaas.scheduler.live.types import POLL_S
from mlaas.scheduler.types import Node
from tests.fakes.live_scheduler import new_store
from tests.fakes.memory_cluster import MemoryCluster


class SchedulerThread:
    """Offers the verbs of `SchedulerService` to callers on other event loops.

    Attributes:
        store: where the scheduler keeps its record; a test may take it away.
        cluster: what it places gangs on.
    """

    def __init__(self, folder: Path, nodes: list[Node], *, poll_s: float = POLL_S) -> None:
        self.store = new_store(folder)
        self.cluster = MemoryCluster(nodes)
        self.service = SchedulerService(self.cluster, self.store, policy=policy_named("mlaas"), poll_s=poll_s)
        self.loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._serving: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run)

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.service, verb)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(method(*args, **kwargs), self.loop))

        return call

    def start(self) -> None:
        """Return once it leads."""
        self._thread.start()
        assert self._is_up.wait(20)

    def stop(self) -> None:
        """End it; from now on its verbs answer that it is not up."""
        asyncio.run_coroutine_threadsafe(self._stop(), self.loop).result(10)

    def close(self) -> None:
        """End its thread."""
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self._serving = self.loop.create_task(self._serve())
        self.loop.run_forever()

    async def _stop(self) -> None:
        await self.service.stop()
        assert self._serving is not None
        await self._serving

    async def _serve(self) -> None:
        await self.service.start()
        self._is_up.set()
        await self.service.run()


@contextlib.contextmanager
def running_scheduler(folder: Path, nodes: list[Node], *, poll_s: float = POLL_S) -> Iterator[SchedulerThread]:
    """Run a scheduler over a store in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    scheduler = SchedulerThread(folder, nodes, poll_s=poll_s)
    scheduler.start()
    try:
        yield scheduler
    finally:
        scheduler.close()
