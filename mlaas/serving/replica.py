"""One replica of a deployment: an engine, and its line in the endpoint registry.

The two live and die together. When the engine ends, its endpoint is withdrawn at once and `check_health` raises, so
that Ray Serve puts a new replica in its place: one way back from every fault.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from pathlib import Path

from mlaas.errors import DeploymentError, PlatformError
from mlaas.serving.endpoints import HEARTBEAT_S, EndpointClient
from mlaas.serving.engine import Engine, EngineSpec, can_compile, free_port, installed_device
from mlaas.serving.types import DeploymentSpec, Endpoint
from mlaas.tracking.registry import Registry

logger = logging.getLogger(__name__)

WITHDRAWAL_S = 0.5
"""Time between the withdrawal of an endpoint and the stop of its engine: gateways learn of it meanwhile."""


class Replica:
    """An engine that runs, with heartbeats for as long as it does."""

    def __init__(self, engine: Engine, *, replica_id: str, endpoints: EndpointClient) -> None:
        spec = engine.spec
        self._engine = engine
        self._endpoints = endpoints
        self._endpoint = Endpoint(model=spec.served_name, url=spec.url, replica_id=replica_id, api_key=spec.api_key)
        self._heartbeats = asyncio.create_task(self._keep_reported())

    @classmethod
    async def start(
        cls,
        spec: DeploymentSpec,
        *,
        models: Registry,
        models_dir: Path,
        kernels_dir: Path,
        logs_dir: Path,
        host: str,
        replica_id: str,
        endpoints: EndpointClient,
    ) -> Replica:
        """Fetch the registered model and start an engine on it.

        Args:
            spec: which model, and under which name.
            models: where the model is registered.
            models_dir: folder that keeps fetched models.
            kernels_dir: folder that keeps compiled kernels.
            logs_dir: folder of the engine's log.
            host: this node's address in the cluster.
            replica_id: name of the replica.
            endpoints: where to announce the engine.

        Raises:
            NotFound: the model or the version is not registered.
            DeploymentError: the engine does not start; quotes its log.
        """
        model = await asyncio.to_thread(models.resolve, spec.model, version=spec.version)
        engine_spec = EngineSpec(
            model_dir=await asyncio.to_thread(models.download, model, models_dir),
            served_name=spec.name,
            host=host,
            port=free_port(host),
            api_key=secrets.token_urlsafe(32),
            device=installed_device(),
            num_threads=spec.cpus,
            kernels_dir=kernels_dir if can_compile() else None,
        )
        engine = await Engine.start(engine_spec, log=logs_dir / f"engine-{spec.name}-{replica_id}.log")
        return cls(engine, replica_id=replica_id, endpoints=endpoints)

    async def check_health(self) -> None:
        """Return when the engine works.

        Raises:
            DeploymentError: it has ended, or does not answer.
        """
        if not await self._engine.probe():
            name, log = self._endpoint.model, self._engine.log
            raise DeploymentError("engine_dead", f"the engine of {name!r} is dead or hung; log: {log}")

    async def shutdown(self) -> None:
        """Withdraw the endpoint, let running requests finish, and end the engine."""
        self._heartbeats.cancel()
        await asyncio.wait([self._heartbeats])
        await self._withdraw()
        if self._engine.is_alive:
            await asyncio.sleep(WITHDRAWAL_S)
        await self._engine.stop()

    async def _keep_reported(self) -> None:
        while await self._engine.probe():
            try:
                await self._endpoints.report(self._endpoint)
            except PlatformError as error:
                logger.warning("%s: %s", error.code, error)
            await self._engine.wait_exit(timeout_s=HEARTBEAT_S)
        logger.error("engine_dead: the engine of %r ended; log: %s", self._endpoint.model, self._engine.log)
        self._engine.kill()
        await self._withdraw()

    async def _withdraw(self) -> None:
        try:
            await self._endpoints.withdraw(self._endpoint.replica_id)
        except PlatformError as error:
            logger.warning("%s: %s", error.code, error)
