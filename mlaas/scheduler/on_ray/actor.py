"""The scheduler as a detached Ray actor on the head's node, started anew by Ray whenever it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

import ray
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray.exceptions import RayError

from mlaas.errors import Conflict, MlaasError, PlatformError
from mlaas.observability.exporter import Exporter
from mlaas.scheduler.decision.ordering import policy_named
from mlaas.scheduler.live.service import SchedulerService
from mlaas.scheduler.live.writer import SUPERSEDED
from mlaas.scheduler.on_ray.client import ACTOR_NAME, NAMESPACE, VERBS
from mlaas.scheduler.on_ray.cluster import RayCluster
from mlaas.settings import load_settings
from mlaas.store.engine import open_store
from mlaas.store.workloads import WorkloadRepository

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from mlaas.settings import Settings

    BuildCompanions = Callable[[Settings, SchedulerService], Sequence[Coroutine[Any, Any, None]]]

POLICY = "mlaas"
PAUSE_S = 1.0
"""Between an end of the service and the next attempt."""
MOST_CALLS = 10_000
"""Calls at the same time: each holder of a gang has one waiting."""

logger = logging.getLogger(__name__)


class SchedulerActor:
    """The scheduler in a process of its own. `start_actor` runs it as an actor.

    It takes its settings from the environment of the node where it starts, and nothing from whoever made it: after a
    restart of the head those may have changed. The service has an event loop of its own, so that it begins with the
    process and not with the first call.

    Args:
        build_companions: makes the loops that run beside the service, such as arbitration. None: there are none.
    """

    def __init__(self, build_companions: BuildCompanions | None = None) -> None:
        self._settings = load_settings()
        self._build_companions = build_companions
        self._service: SchedulerService | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_until_complete, args=(self._lead_for_ever(),), daemon=True).start()

    async def call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Call a verb of the service.

        Raises:
            PlatformError: the service is not up.
            MlaasError: of the verb.
        """
        if verb not in VERBS or self._service is None:
            raise PlatformError(
                "scheduler_not_up", "the scheduler is starting; come back in a moment", retry_after_s=1.0
            )
        method: Callable[..., Awaitable[Any]] = getattr(self._service, verb)

        async def run() -> Any:
            try:
                return await method(*args, **kwargs)
            except Conflict as error:
                if error.code != SUPERSEDED:
                    raise
                text = "another scheduler has taken the lead; come back in a moment"
                raise PlatformError("scheduler_not_up", text, retry_after_s=PAUSE_S) from error

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), self._loop))

    async def _lead_for_ever(self) -> None:
        while True:
            try:
                await self._lead()
            except Conflict as error:
                logger.warning("%s: %s", error.code, error)
                if not await asyncio.to_thread(_is_the_named_one):
                    ray.actor.exit_actor()
            except MlaasError as error:
                logger.warning("the scheduler starts again: %s: %s", error.code, error)
            except Exception:
                logger.exception("the scheduler failed, and starts again")
            self._service = None
            await asyncio.sleep(PAUSE_S)

    async def _lead(self) -> None:
        """Run one service to its end."""
        ended = asyncio.Event()
        cluster = RayCluster(self._settings.home, changed=ended.set)
        store = WorkloadRepository(open_store(self._settings.store_url))
        service = SchedulerService(cluster, store, policy=policy_named(POLICY))
        folder = self._settings.home / "scheduler" / "metrics"
        exporter = Exporter(service.loop.meters, folder=folder, replica=ACTOR_NAME, job="mlaas-scheduler")
        beside: list[asyncio.Task[None]] = []
        try:
            await service.start()
            with contextlib.suppress(OSError):  # A folder that cannot be written hides the figures and stops nothing.
                exporter.start()
            self._service = service
            beside.append(asyncio.create_task(_tell_ends(cluster, service, ended)))
            beside += [asyncio.create_task(each) for each in self._companions(service)]
            await service.run()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await asyncio.to_thread(exporter.stop)
            cluster.close()

    def _companions(self, service: SchedulerService) -> Sequence[Coroutine[Any, Any, None]]:
        if self._build_companions is None:
            return []
        try:
            return self._build_companions(self._settings, service)
        except MlaasError as error:  # Such as: no vLLM on this machine. Gangs run all the same.
            logger.warning("the scheduler runs alone: %s: %s", error.code, error)
            return []


def start_actor(build_companions: BuildCompanions | None = None) -> None:
    """Start the cluster's scheduler unless there is one.

    Raises:
        RayError: the cluster cannot be reached.
    """
    ray.remote(SchedulerActor).options(
        name=ACTOR_NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_concurrency=MOST_CALLS,
        num_cpus=0,
        # Ray gives it to the head's node alone, also to the one that follows a head that was lost.
        resources={HEAD_NODE_RESOURCE_NAME: 0.001},
    ).remote(build_companions)


async def _tell_ends(cluster: RayCluster, service: SchedulerService, ended: asyncio.Event) -> None:
    """Tell the service of each command that has ended, without waiting for its next look at the cluster."""
    told: set[str] = set()
    while True:
        await ended.wait()
        ended.clear()
        with contextlib.suppress(PlatformError):  # The service's own look repeats it.
            commands = [command for command in await cluster.commands() if command.exit_code is not None]
            for command in commands:
                if command.lease_id not in told:
                    await service.command_ended(command)
            told = {command.lease_id for command in commands}


def _is_the_named_one() -> bool:
    """Whether callers who look for the scheduler find this process; also while the control store does not say."""
    try:
        named = ray.get_actor(ACTOR_NAME, namespace=NAMESPACE)
    except ValueError:
        return False
    except (RayError, TimeoutError):
        return True
    return bool(named._actor_id == ray.get_runtime_context().worker.actor_id)
