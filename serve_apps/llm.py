"""One deployed model as a Ray Serve application: vLLM replicas that announce themselves to the gateway.

Requests do not come through Serve. Each replica's engine answers HTTP by itself, and Serve keeps the replicas alive.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import serve
from ray.serve import Application

from mlaas.serving.applications import SERVE_DEPLOYMENT
from mlaas.serving.endpoints import EndpointClient
from mlaas.serving.engine import PROBE_TIMEOUT_S, SHUTDOWN_S, installed_device
from mlaas.serving.replica import Replica
from mlaas.serving.types import DeploymentSpec
from mlaas.settings import load_settings
from mlaas.tracking.registry import Registry

HEALTH_CHECK_S = 1.0
"""Time between two health checks; Serve replaces a replica after three that fail."""


class LlmReplica:
    """A replica as Serve sees it."""

    async def __init__(self, spec: DeploymentSpec) -> None:  # type: ignore[misc]  # Serve awaits it
        settings = load_settings()
        self._replica = await Replica.start(
            spec,
            models=Registry(settings.tracking_uri),
            models_dir=settings.models_dir,
            kernels_dir=settings.kernels_dir,
            logs_dir=settings.logs_dir,
            host=ray.util.get_node_ip_address(),
            replica_id=serve.get_replica_context().replica_id.unique_id,
            endpoints=EndpointClient(),
        )

    async def check_health(self) -> None:
        """Raise when the engine is dead."""
        await self._replica.check_health()

    async def __del__(self) -> None:
        """Drain and end the engine. Serve awaits it when the replica is told to stop."""
        await self._replica.shutdown()


def build(args: dict[str, Any]) -> Application:
    """Return the application of one deployment. How many replicas it has is said in the declarative config beside it.

    Raises:
        pydantic.ValidationError: an argument is unknown, missing or out of range.
        DeploymentError: vLLM is not installed.
    """
    spec = DeploymentSpec.model_validate(args)
    num_gpus = 1 if installed_device() == "cuda" else 0
    deployment = serve.deployment(
        LlmReplica,
        name=SERVE_DEPLOYMENT,
        health_check_period_s=HEALTH_CHECK_S,
        health_check_timeout_s=2 * PROBE_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=SHUTDOWN_S,
        ray_actor_options={"num_cpus": spec.cpus, "num_gpus": num_gpus},
    )
    return deployment.bind(spec)
