"""What Ray Serve runs: the gateway and one application for each deployment of the store, put as one config.

The store is the record and Serve is made to match it, so putting the config again is how a cluster that lost its
applications gets them back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
from ray.exceptions import AuthenticationError

from mlaas.errors import DeploymentError, MlaasError, PlatformError
from mlaas.platform.head import token_header
from mlaas.platform.parts import Probe
from mlaas.serving.applications import ApplicationStatus, application, application_name, explain, read_status
from mlaas.settings import Settings
from mlaas.store.deployments import Deployment, DeploymentRepository
from mlaas.store.engine import open_store
from mlaas.tracking.registry import Registry

GATEWAY = "gateway"
"""Name of the gateway's Serve application."""
POLL_S = 0.5
DEPLOY_TIMEOUT_S = 600.0
"""How long a model may take to come up: its download, the engine's start and, on a first run, its compilation."""


class Gateway:
    """The HAProxy ingress and the gateway behind it.

    Args:
        settings: the instance.
        replicas: gateway processes.
        is_alone: whether the instance's deployed models stay down.
    """

    name = "gateway"
    start_timeout_s = 120.0

    def __init__(self, settings: Settings, *, replicas: int = 1, is_alone: bool = False) -> None:
        self._settings = settings
        self._replicas = replicas
        self._is_alone = is_alone

    def probe(self) -> Probe:
        """Check that the gateway answers through the ingress; when it does not, ask Serve why."""
        url = self._settings.gateway_url
        try:
            answer = httpx.get(f"{url}/healthz", timeout=3.0)
            if answer.status_code == 200:
                return Probe(part=self.name, ok=True, detail=f"{url}/v1")
            detail = f"{url}/healthz answers {answer.status_code}"
        except httpx.HTTPError as error:
            detail = f"{url} does not answer ({type(error).__name__})"
        try:
            reported = _details(self._settings)["applications"].get(GATEWAY, {})
        except MlaasError:
            reported = {}
        has_failed = reported.get("status") == "DEPLOY_FAILED"
        said = "\n".join(
            [reported.get("message", ""), *(d["message"] for d in reported.get("deployments", {}).values())]
        )
        reason = f"{detail}: {explain(said)}" if explain(said) else detail
        return Probe(part=self.name, ok=False, detail=reason, fix="run `mlaas doctor`", has_failed=has_failed)

    def start(self) -> None:
        """Put the store's applications to Serve; alone, nothing but the gateway."""
        deployments = [] if self._is_alone else _deployments(self._settings).list()
        put_applications(self._settings, deployments, gateway_replicas=self._replicas)


class Models:
    """The deployed models."""

    name = "models"
    start_timeout_s = DEPLOY_TIMEOUT_S

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def probe(self) -> Probe:
        """Check that every deployment of the store runs."""
        try:
            statuses = deployment_statuses(self._settings)
        except MlaasError as error:
            return Probe(part=self.name, ok=False, detail=error.message, fix="run `mlaas up`")
        waiting = [f"{deployment.name}: {status.reason}" for deployment, status in statuses if not status.is_running]
        if waiting:
            return Probe(part=self.name, ok=False, detail="; ".join(waiting), fix="run `mlaas up` or `mlaas undeploy`")
        served = ", ".join(f"{d.name} v{d.version} x{d.replicas}" for d, _ in statuses)
        return Probe(part=self.name, ok=True, detail=served or "none deployed")

    def start(self) -> None:
        """Put the store's applications to Serve."""
        put_applications(self._settings, _deployments(self._settings).list())


def deploy(
    settings: Settings, name: str, *, version: int | None, replicas: int, progress: Callable[[str], None]
) -> Deployment:
    """Serve a registered model, and return once it answers.

    A new version comes up beside the one that serves, which stays until the new one runs. A version that does not come
    up is taken away again and leaves everything as it was.

    Args:
        settings: the instance.
        name: registered model, and the name that clients send.
        version: None takes the version with the alias `champion`, or the newest.
        replicas: engines that serve it at the same time, from 1.
        progress: called with each new state, as text.

    Raises:
        NotFound: the model or version is not registered.
        ConfigError: name or replicas cannot be.
        DeploymentError: it does not come up, with Serve's or the engine's reason.
        PlatformError: the cluster or the store does not answer.
    """
    repository = _deployments(settings)
    model = Registry(settings.tracking_uri).resolve(name, version=version)
    new = Deployment(
        name=name, model=model.name, version=model.version, replicas=replicas, created_at=datetime.now(UTC)
    )
    others = [deployment for deployment in repository.list() if deployment.name != name]
    serving = [deployment for deployment in repository.list() if deployment.name == name]
    during = [new] if serving and serving[0].version == new.version else [*serving, new]
    put_applications(settings, [*others, *during])
    try:
        _wait_until_running(settings, new, progress=progress)
    except MlaasError:
        put_applications(settings, [*others, *serving])
        raise
    repository.put(new)
    put_applications(settings, [*others, new])
    return new


def undeploy(settings: Settings, name: str) -> None:
    """Stop serving a model, and return once Serve has let go of it.

    Raises:
        NotFound: nothing is deployed under this name.
        PlatformError: the cluster or the store does not answer.
    """
    repository = _deployments(settings)
    deployment = repository.get(name)
    repository.delete(name)
    put_applications(settings, repository.list())
    deadline = time.monotonic() + DEPLOY_TIMEOUT_S
    while application_name(deployment) in _details(settings)["applications"]:
        if time.monotonic() > deadline:
            raise PlatformError("undeploy_timeout", f"{name} is still stopping; `mlaas status` shows when it has")
        time.sleep(POLL_S)


def deployment_statuses(settings: Settings) -> list[tuple[Deployment, ApplicationStatus]]:
    """Return each deployment of the store with what Serve says of it.

    Raises:
        PlatformError: the cluster or the store does not answer.
    """
    deployments = _deployments(settings).list()
    details = _details(settings)
    return [(deployment, read_status(details, deployment)) for deployment in deployments]


def put_applications(settings: Settings, deployments: Sequence[Deployment], *, gateway_replicas: int = 1) -> None:
    """Make Serve run the gateway and exactly these deployments.

    Raises:
        PlatformError: the cluster does not answer, or refuses the config.
    """
    try:
        config = serve_config(settings, deployments, gateway_replicas=gateway_replicas)
        _client(settings).deploy_applications(config)
    except RuntimeError as error:
        raise PlatformError("serve_refused", f"Ray Serve refused the config: {error}") from error


def serve_config(settings: Settings, deployments: Sequence[Deployment], *, gateway_replicas: int = 1) -> dict[str, Any]:
    """Return the declarative Serve config: the gateway at `/`, and every deployment without a route of its own.

    Source: https://docs.ray.io/en/latest/serve/production-guide/config.html
    """
    gateway = {
        "name": GATEWAY,
        "import_path": "serve_apps.gateway:build",
        "route_prefix": "/",
        "args": {"replicas": gateway_replicas},
    }
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "0.0.0.0", "port": settings.gateway_port},
        "applications": [gateway, *(application(deployment) for deployment in deployments)],
    }


def _wait_until_running(settings: Settings, deployment: Deployment, *, progress: Callable[[str], None]) -> None:
    deadline = time.monotonic() + DEPLOY_TIMEOUT_S
    seen = ""
    while not (status := read_status(_details(settings), deployment)).is_running:
        if status.has_failed:
            raise DeploymentError("deploy_failed", f"{deployment.name} v{deployment.version}: {status.reason}")
        if time.monotonic() > deadline:
            text = f"{deployment.name} is not up after {DEPLOY_TIMEOUT_S:.0f} s: {status.reason}"
            raise DeploymentError("deploy_timeout", text)
        if status.reason != seen:
            seen = status.reason
            progress(seen)
        time.sleep(POLL_S)


def _details(settings: Settings) -> dict[str, Any]:
    try:
        return dict(_client(settings).get_serve_details())
    except RuntimeError as error:
        raise PlatformError("serve_unavailable", f"Ray Serve does not answer: {error}; run `mlaas up`") from error


def _client(settings: Settings) -> ServeSubmissionClient:
    try:
        return ServeSubmissionClient(settings.dashboard_url, headers=token_header())
    except (ConnectionError, RuntimeError, AuthenticationError) as error:
        text = f"the cluster at {settings.dashboard_url} does not answer; run `mlaas doctor`"
        raise PlatformError("cluster_unavailable", text) from error


def _deployments(settings: Settings) -> DeploymentRepository:
    return DeploymentRepository(open_store(settings.store_url))
