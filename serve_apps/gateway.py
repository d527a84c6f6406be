"""The gateway as a Ray Serve application."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray.serve import Application

from mlaas.api.mount import control_routes
from mlaas.auth.keyring import KeyRing
from mlaas.observability.tracing import build_tracing
from mlaas.router.config_file import load_config
from mlaas.router.gate import Gate
from mlaas.router.limits.actor import LedgerClient
from mlaas.router.service import GatewayService
from mlaas.router.types import LocalEndpoint
from mlaas.scheduler.on_ray.client import connect_async
from mlaas.serving.endpoints import watch_endpoints
from mlaas.settings import collects_traces, load_settings, router_config_path
from mlaas.store.deployments import DeploymentRepository
from mlaas.store.engine import open_store
from mlaas.store.keys import KeyRepository
from mlaas.store.workloads import WorkloadRepository
from serve_apps.front_door import open_door

DRAIN_S = 120.0
"""How long a replica that is taken away has for the requests under way."""


class GatewayArgs(BaseModel):
    """Arguments of the application, as the declarative Serve config gives them."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    replicas: int = Field(default=1, ge=1)
    """Number of gateway processes behind the ingress."""


class ClusterEndpoints:
    """The endpoints that the cluster's vLLM replicas announce."""

    async def watch(self) -> AsyncIterator[Sequence[LocalEndpoint]]:
        """Yield the whole list of live endpoints now and after each change."""
        async for endpoints in watch_endpoints():
            yield tuple(LocalEndpoint(model=each.model, url=each.url, api_key=each.api_key) for each in endpoints)


class GatewayReplica:
    """One gateway process. Ray Serve hands each HTTP request to the ASGI application that it builds."""

    def __serve_build_asgi_app__(self) -> GatewayService:
        """Wire one service from the instance's settings."""
        settings = load_settings()
        store = open_store(settings.store_url)
        deployments = DeploymentRepository(store)
        service = GatewayService(
            config_path=router_config_path(settings),
            gate=Gate(KeyRing(KeyRepository(store))),
            store=store,
            folder=settings.home / "gateway",
            ledger=LedgerClient(settings.store_url),
            list_deployed=lambda: [deployment.name for deployment in deployments.list()],
            endpoints=ClusterEndpoints(),
            tracing=build_tracing() if collects_traces() else None,
            replica=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
            has_shipping_process=True,
            further_routes=control_routes(connect_async(), queues=WorkloadRepository(store), home=settings.home),
        )
        open_door(service)
        return service


def build(args: dict[str, Any]) -> Application:
    """Return the application: HTTP ingress of the platform.

    A replica asks for no logical CPU, so that the gateway starts on a cluster that is full of training, and for the
    head's node: there are the store, the instance's folder and HAProxy.

    Raises:
        pydantic.ValidationError: an argument is unknown or out of range.
        ConfigError: the router's file is wrong.
    """
    parsed = GatewayArgs.model_validate(args)
    load_config(router_config_path(load_settings()))
    deployment = serve.deployment(
        serve.ingress()(GatewayReplica),
        name="gateway",
        num_replicas=parsed.replicas,
        max_ongoing_requests=10_000,
        graceful_shutdown_timeout_s=DRAIN_S,
        ray_actor_options={"num_cpus": 0, "resources": {HEAD_NODE_RESOURCE_NAME: 0.001}},
        logging_config={"enable_access_log": False},
    )
    return deployment.bind()
