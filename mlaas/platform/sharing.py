"""The arbitration of an instance: its deployments, its router and its scheduler, wired into one loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import aiohttp

from mlaas.auth.keys import create_key
from mlaas.platform.serve import put_replicas, replicas_present
from mlaas.scheduler.arbitration.leases import SchedulerLeases
from mlaas.scheduler.arbitration.ports import ReplicaLease
from mlaas.scheduler.arbitration.service import ArbitrationService
from mlaas.scheduler.arbitration.types import Load, ReplicaState, Share
from mlaas.scheduler.requests.queues import SERVING_TENANT
from mlaas.scheduler.types import DEFAULT_QUEUE, Resources
from mlaas.serving.applications import ApplicationState, replica_application
from mlaas.serving.engine import installed_device
from mlaas.serving.types import DeploymentSpec
from mlaas.settings import Settings
from mlaas.store.deployments import Deployment, DeploymentRepository
from mlaas.store.engine import open_store
from mlaas.store.keys import KeyRepository

if TYPE_CHECKING:
    from mlaas.scheduler.live.service import SchedulerService

KEY_NAME = "arbitration"
TIMEOUT = aiohttp.ClientTimeout(total=2.0)

_STATES = {ApplicationState.RUNNING: ReplicaState.READY, ApplicationState.FAILED: ReplicaState.FAILED}

logger = logging.getLogger(__name__)


class ServeReplicas:
    """The deployments of the store, and their replicas on Ray Serve."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._deployments = DeploymentRepository(open_store(settings.store_url))
        self._rows: Sequence[Deployment] = ()

    @cached_property
    def _worker(self) -> Resources:
        return replica_resources()

    async def shares(self) -> Mapping[str, Share]:
        """Return the deployments that share, by name.

        Raises:
            PlatformError: the store does not answer.
        """
        rows = await asyncio.to_thread(self._deployments.list)
        self._rows = [row for row in rows if row.is_shared]
        return {row.name: share_of(row, worker=self._worker) for row in self._rows}

    async def put(self, leases: Sequence[ReplicaLease]) -> None:
        """Make Ray Serve run one replica for each of these leases, on its node, and no other of these deployments.

        Raises:
            PlatformError: Ray Serve does not answer.
        """
        applications = [
            replica_application(
                lease.workload_id,
                name=lease.deployment,
                version=lease.version,
                node=lease.node,
                resources=self._worker.amounts(),
            )
            for lease in leases
            if lease.node is not None
        ]
        await asyncio.to_thread(put_replicas, self._settings, applications)

    async def present(self) -> Mapping[str, ReplicaState]:
        """Return the replicas that Ray Serve has, by workload id.

        Raises:
            PlatformError: Ray Serve does not answer.
        """
        found = await asyncio.to_thread(replicas_present, self._settings)
        return {replica_id: _STATES.get(state, ReplicaState.STARTING) for replica_id, state in found.items()}

    async def tell(self, obstacles: Mapping[str, str]) -> None:
        """Let whoever deploys know why deployments get no machine for their floor; nothing hinders those not named.

        Raises:
            PlatformError: the store does not answer.
        """
        for row in self._rows:
            if row.obstacle != obstacles.get(row.name):
                await asyncio.to_thread(self._deployments.note_obstacle, row, obstacles.get(row.name))


class RouterLoads:
    """What the gateway answers at `GET /api/v1/demand`, for all of its replicas on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._url = f"{settings.gateway_url}/api/v1/demand"
        self._keys = KeyRepository(open_store(settings.store_url))
        self._secret: str | None = None
        self._session: aiohttp.ClientSession | None = None

    async def loads(self) -> Mapping[str, Load]:
        """Return the load of each deployment that the router knows; none while it does not answer."""
        if self._session is None or self._secret is None:
            self._secret = await asyncio.to_thread(self._make_key)
            self._session = aiohttp.ClientSession(trust_env=False, timeout=TIMEOUT)
        try:
            async with self._session.get(self._url, headers={"authorization": f"Bearer {self._secret}"}) as answer:
                if answer.status != 200:
                    return {}
                return {each["model"]: load_of(each) for each in (await answer.json())["demand"]}
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.debug("the router does not answer: %r", error)
            return {}

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _make_key(self) -> str:
        """Return a key of this process's own, in place of those of earlier ones."""
        for key in self._keys.list():
            if key.name == KEY_NAME and key.tenant == SERVING_TENANT and key.revoked_at is None:
                self._keys.revoke(key.id)
        secret, _ = create_key(self._keys, name=KEY_NAME, tenant=SERVING_TENANT, role="admin")
        return secret


def build_companions(settings: Settings, service: SchedulerService) -> Sequence[Coroutine[Any, Any, None]]:
    """Return the loops that run beside the scheduler: `scheduler.on_ray.actor.start_actor` takes this function."""
    arbitration = ArbitrationService(SchedulerLeases(service), ServeReplicas(settings), RouterLoads(settings))
    return [arbitration.run()]


def replica_resources() -> Resources:
    """Return what each replica asks for: a GPU where vLLM needs one.

    Raises:
        DeploymentError: vLLM is not installed.
    """
    cpus = DeploymentSpec.model_fields["cpus"].default
    return Resources(cpus=float(cpus), gpus=1.0 if installed_device() == "cuda" else 0.0)


def share_of(deployment: Deployment, *, worker: Resources) -> Share:
    """Return what a deployment of the store may take of the cluster."""
    return Share(
        name=deployment.name,
        version=deployment.version,
        worker=worker,
        queue=deployment.queue or DEFAULT_QUEUE,
        floor=deployment.replicas,
        ceiling=deployment.max_replicas or deployment.replicas,
        ttft_slo_s=deployment.ttft_slo_s,
    )


def load_of(demand: Mapping[str, Any]) -> Load:
    """Return one entry of the router's answer."""
    return Load(
        num_ready=demand["num_replicas"],
        num_needed=demand["num_needed"],
        num_waiting=demand["num_waiting"],
        num_running=demand["num_running"],
        ttft_p95_s=demand["ttft_p95_s"],
    )
