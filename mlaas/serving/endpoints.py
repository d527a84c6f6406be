"""The registry of live endpoints: replicas report to it, gateways watch it.

One detached Ray actor holds soft state. Nothing is stored: a registry that was killed comes back empty, holds its
answers for as long as a lease lasts, and then knows every endpoint again, so no watcher sees a gap.
While it is away watchers keep their last snapshot.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import ray
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray.exceptions import RayError

from mlaas.errors import PlatformError
from mlaas.serving.leases import LEASE_S, Leases, expire, renew, withdraw
from mlaas.serving.types import Endpoint, EndpointSnapshot

ACTOR_NAME = "mlaas-endpoints"
NAMESPACE = "mlaas"

HEARTBEAT_S = 1.0
"""Time between two reports of a replica."""
SETTLE_S = LEASE_S
"""How long a fresh registry listens before it answers: who has not reported by then has lost its lease anyway."""
POLL_S = 10.0
"""Longest time that a watch call waits for a change."""
CALL_TIMEOUT_S = 5.0
"""How long a caller waits for the registry beyond the time that the call itself takes."""
RETRY_S = 0.5
"""Pause after a failed call, before the actor is looked up again."""


class EndpointRegistry:
    """The live endpoints, with a version to wait on. `connect` runs it as an actor."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._settled_s = clock() + SETTLE_S
        self._leases = Leases()
        self._incarnation = uuid.uuid4().hex
        self._num_changes = 0
        self._changed = asyncio.Event()

    async def report(self, endpoint: Endpoint) -> None:
        """Renew the endpoint's lease; the first report lists it."""
        self._apply(renew(self._leases, endpoint, now_s=self._clock()))

    async def withdraw(self, replica_id: str) -> None:
        """Take the replica's endpoint off the list at once."""
        self._apply(withdraw(self._leases, replica_id))

    async def watch(self, version: str, wait_s: float) -> EndpointSnapshot:
        """Return the endpoints as soon as their version is not the one given, or after `wait_s` seconds."""
        deadline_s = self._clock() + wait_s
        await asyncio.sleep(max(0.0, self._settled_s - self._clock()))
        while True:
            now_s = self._clock()
            self._apply(expire(self._leases, now_s=now_s))
            snapshot = EndpointSnapshot(
                version=f"{self._incarnation}:{self._num_changes}", endpoints=self._leases.endpoints
            )
            if snapshot.version != version or now_s >= deadline_s:
                return snapshot
            wake_s = min(deadline_s, self._leases.next_expiry_s or deadline_s)
            await self._wait_for_change(wake_s - now_s)

    def _apply(self, leases: Leases) -> None:
        changed = leases.endpoints != self._leases.endpoints
        self._leases = leases
        if changed:
            self._num_changes += 1
            self._changed.set()
            self._changed = asyncio.Event()

    async def _wait_for_change(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return


class EndpointClient:
    """The registry as another process calls it; finds the actor again after a failed call."""

    def __init__(self) -> None:
        self._registry: Any = None

    async def report(self, endpoint: Endpoint) -> None:
        """Send one heartbeat.

        Raises:
            PlatformError: the registry does not answer now; the next heartbeat may reach it.
        """
        await self._call("report", endpoint)

    async def withdraw(self, replica_id: str) -> None:
        """Take the replica's endpoint off the list.

        Raises:
            PlatformError: the registry does not answer now; the lease runs out by itself.
        """
        await self._call("withdraw", replica_id)

    async def watch(self, version: str, *, wait_s: float = POLL_S) -> EndpointSnapshot:
        """Return the endpoints as soon as their version is not the one given, or after `wait_s` seconds.

        Raises:
            PlatformError: the registry does not answer now.
        """
        return await self._call("watch", version, wait_s, timeout_s=SETTLE_S + wait_s + CALL_TIMEOUT_S)

    async def _call(self, method: str, *args: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                if self._registry is None:
                    self._registry = await asyncio.to_thread(connect)
                return await getattr(self._registry, method).remote(*args)
        # Ray says ValueError when the named actor goes away between being found and being asked for.
        except (RayError, ValueError, TimeoutError) as error:
            self._registry = None
            raise PlatformError("endpoints_unreachable", f"the endpoint registry does not answer: {error!r}") from error


async def watch_endpoints() -> AsyncIterator[tuple[Endpoint, ...]]:
    """Yield every live endpoint: once at the start, then whenever one comes, goes or moves.

    Ends only when it is closed. While the registry, its node or Ray's control store is away, nothing is yielded: the
    last snapshot stands.
    """
    client, version = EndpointClient(), ""
    while True:
        try:
            snapshot = await client.watch(version)
        except PlatformError:
            await asyncio.sleep(RETRY_S)
            continue
        if snapshot.version != version:
            version = snapshot.version
            yield snapshot.endpoints


def connect() -> Any:
    """Return a handle of the cluster's registry, started by whoever comes first.

    Raises:
        RayError: the cluster cannot be reached.
    """
    actor = ray.remote(EndpointRegistry).options(
        name=ACTOR_NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        num_cpus=0,
        # An actor on a node that the autoscaler brought would keep it there for good.
        resources={HEAD_NODE_RESOURCE_NAME: 0.001},
    )
    return actor.remote()
