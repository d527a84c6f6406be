"""The scheduler as other processes of its cluster call it: `SchedulerService`'s verbs by name, async or blocking."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import ray
from ray._private.state import state as ray_state
from ray._raylet import PlacementGroupID
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import PlacementGroup

from mlaas.errors import MlaasError, PlatformError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mlaas.scheduler.leases.verbs import HolderVerbs
    from mlaas.scheduler.live.service import SchedulerService

ACTOR_NAME = "scheduler"
NAMESPACE = "mlaas"
VERBS = frozenset({
    "apply_queues", "attach", "cancel", "events", "explain", "get", "give_back", "hand_over", "heartbeat", "list",
    "plan", "report", "submit", "top", "watch",
})  # fmt: skip
CALL_S = 30.0
"""How long a caller waits: the longest verbs answer after 10 s by themselves."""
RETRY_AFTER_S = 2.0


class SchedulerClient:
    """Every verb of the service as a coroutine function of the same name; finds the actor again after a failed call.

    Each raises what the service raises, and `PlatformError` with `retry_after_s` when the scheduler does not answer:
    `no_scheduler` where there is none, `scheduler_unreachable` while it starts anew.
    """

    def __init__(self) -> None:
        self._actor: Any = None

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        if verb not in VERBS:
            raise AttributeError(verb)

        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                async with asyncio.timeout(CALL_S):
                    if self._actor is None:
                        self._actor = await asyncio.to_thread(_find)
                    return await self._actor.call.remote(verb, *args, **kwargs)
            except (RayError, ValueError, TimeoutError) as error:
                self._actor = None
                raise _translated(error) from error

        return call


class BlockingClient:
    """The same verbs as functions that block, for drivers."""

    def __init__(self) -> None:
        self._actor: Any = None

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if verb not in VERBS:
            raise AttributeError(verb)
        return partial(self._call, verb)

    def hand_over(self, lease_id: str) -> None:
        """Leave the placement groups of a lease to this process's Ray job.

        Raises:
            Conflict: `lease_over`.
            PlatformError: the scheduler does not answer.
        """
        self._call("hand_over", lease_id, job=ray.get_runtime_context().get_job_id())

    def _call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._actor is None:
                self._actor = _find()
            return ray.get(self._actor.call.remote(verb, *args, **kwargs), timeout=CALL_S)
        except (RayError, ValueError) as error:
            self._actor = None
            raise _translated(error) from error

    def placement_group(self, name: str) -> Any:
        """Return Ray's handle of a placement group of the scheduler.

        Raises:
            PlatformError: it is not there.
        """
        # Not by Ray's `get_placement_group`: it looks in the driver's namespace, and the group is in the scheduler's.
        row = ray_state.get_placement_group_by_name(name, NAMESPACE)
        if row is None:
            raise PlatformError("no_group", f"the placement group {name} is gone", retry_after_s=RETRY_AFTER_S)
        return PlacementGroup(PlacementGroupID(bytes.fromhex(row["placement_group_id"])))


def connect() -> HolderVerbs:
    """Return the scheduler of the cluster that this process is connected to, for a holder of gangs."""
    return cast("HolderVerbs", BlockingClient())


def connect_async() -> SchedulerService:
    """Return the scheduler of the cluster that this process is connected to, as its service looks from outside."""
    return cast("SchedulerService", SchedulerClient())


def _find() -> Any:
    try:
        return ray.get_actor(ACTOR_NAME, namespace=NAMESPACE)
    except ValueError as error:
        text = "this cluster has no scheduler; `mlaas up` on its head starts it"
        raise PlatformError("no_scheduler", text, retry_after_s=RETRY_AFTER_S) from error


def _translated(error: Exception) -> MlaasError:
    """Return the service's own error, or that it does not answer."""
    if isinstance(cause := getattr(error, "cause", None), MlaasError):
        return cause
    kind = "in time" if isinstance(error, (TimeoutError, GetTimeoutError)) else f"now ({type(error).__name__})"
    text = f"the scheduler does not answer {kind}; what runs goes on"
    return PlatformError("scheduler_unreachable", text, retry_after_s=RETRY_AFTER_S)
