"""What Ray Serve runs: the gateway and one application for each deployment of the store, put as one config.

The store is the record and Serve is made to match it, so putting the config again is how a cluster that lost its
applications gets them back.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
from ray.exceptions import AuthenticationError

from mlaas.errors import DeploymentError, MlaasError, PlatformError
from mlaas.platform.head import token_header
from mlaas.platform.parts import Probe
from mlaas.serving.applications import (
    REPLICA_PREFIX,
    ApplicationState,
    ApplicationStatus,
    application,
    explain,
    read_replicas,
    read_status,
)
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
        served = ", ".join(f"{d.name} v{d.version} x{status.num_running}" for d, status in statuses)
        return Probe(part=self.name, ok=True, detail=served or "none deployed")

    def start(self) -> None:
        """Put the store's applications to Serve."""
        put_applications(self._settings, _deployments(self._settings).list())


def deploy(
    settings: Settings,
    name: str,
    *,
    version: int | None,
    replicas: int,
    max_replicas: int | None = None,
    ttft_slo_s: float | None = None,
    queue: str | None = None,
    progress: Callable[[str], None],
) -> Deployment:
    """Serve a registered model, and return once it answers.

    A new version comes up beside the one that serves, which stays until the new one runs. A version that does not come
    up is taken away again and leaves everything as it was.

    Args:
        settings: the instance.
        name: registered model, and the name that clients send.
        version: None takes the version with the alias `champion`, or the newest.
        replicas: engines that serve it at the same time, from 1; the fewest of one that shares the cluster.
        max_replicas: the most engines that its load may ask for; None: always `replicas`.
        ttft_slo_s: time to the first token, at the 95th percentile, beyond which more engines start.
        queue: whose quota its engines use; None: the default one.
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
        name=name, model=model.name, version=model.version, replicas=replicas, created_at=datetime.now(UTC),
        max_replicas=max_replicas, ttft_slo_s=ttft_slo_s, queue=queue,
    )  # fmt: skip
    others = [deployment for deployment in repository.list() if deployment.name != name]
    serving = [deployment for deployment in repository.list() if deployment.name == name]
    if new.is_shared:
        return _deploy_shared(settings, new, before=serving[0] if serving else None, progress=progress)
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


def _deploy_shared(
    settings: Settings, new: Deployment, *, before: Deployment | None, progress: Callable[[str], None]
) -> Deployment:
    """Put the deployment into the store, from where the arbitration takes it, and wait for its fewest replicas."""
    repository = _deployments(settings)
    repository.put(new)
    try:
        _wait_until_running(settings, new, progress=progress)
    except (MlaasError, KeyboardInterrupt):
        if before is None:
            repository.delete(new.name)
        else:
            repository.put(before)
        raise
    put_applications(settings, repository.list())
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
    while read_status(_details(settings), deployment).state is not ApplicationState.ABSENT:
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

    Of those that share the cluster nothing is put here: their replicas come and go by `put_replicas`, and stay as they
    are.

    Raises:
        PlatformError: the cluster does not answer, or refuses the config.
    """
    with _one_writer(settings):
        replicas = [each for each in _deployed(settings) if each["name"].startswith(REPLICA_PREFIX)]
        _put(settings, serve_config(settings, deployments, replicas=replicas, gateway_replicas=gateway_replicas))


def put_replicas(settings: Settings, replicas: Sequence[dict[str, Any]]) -> None:
    """Make Serve run exactly these replicas of the deployments that share the cluster; all else stays as it is.

    Raises:
        PlatformError: the cluster does not answer, or refuses the config.
    """
    with _one_writer(settings):
        others = [each for each in _deployed(settings) if not each["name"].startswith(REPLICA_PREFIX)]
        _put(settings, _config(settings, [*others, *replicas]))


def replicas_present(settings: Settings) -> dict[str, ApplicationState]:
    """Return the replicas of the deployments that share the cluster, by id.

    Raises:
        PlatformError: the cluster does not answer.
    """
    return read_replicas(_details(settings))


def serve_config(
    settings: Settings,
    deployments: Sequence[Deployment],
    *,
    replicas: Sequence[dict[str, Any]] = (),
    gateway_replicas: int = 1,
) -> dict[str, Any]:
    """Return the declarative Serve config: the gateway at `/`, and every deployment without a route of its own.

    Source: https://docs.ray.io/en/latest/serve/production-guide/config.html
    """
    gateway = {
        "name": GATEWAY,
        "import_path": "serve_apps.gateway:build",
        "route_prefix": "/",
        "args": {"replicas": gateway_replicas},
    }
    fixed = [application(deployment) for deployment in deployments if not deployment.is_shared]
    return _config(settings, [gateway, *fixed, *replicas])


def _config(settings: Settings, applications: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "0.0.0.0", "port": settings.gateway_port},
        "applications": list(applications),
    }


def _put(settings: Settings, config: dict[str, Any]) -> None:
    try:
        _client(settings).deploy_applications(config)
    except RuntimeError as error:
        raise PlatformError("serve_refused", f"Ray Serve refused the config: {error}") from error


def _deployed(settings: Settings) -> list[dict[str, Any]]:
    """Return the applications as they were put last."""
    reported = _details(settings)["applications"].values()
    return [config for each in reported if (config := each.get("deployed_app_config")) and each["status"] != "DELETING"]


@contextmanager
def _one_writer(settings: Settings) -> Iterator[None]:
    """Let nobody else on this machine put a config between reading the present one and writing the next."""
    with (settings.home / "serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _wait_until_running(settings: Settings, deployment: Deployment, *, progress: Callable[[str], None]) -> None:
    deadline = time.monotonic() + DEPLOY_TIMEOUT_S
    seen = ""
    while not (status := read_status(_details(settings), _as_stored(settings, deployment))).is_running:
        if status.has_failed:
            raise DeploymentError("deploy_failed", f"{deployment.name} v{deployment.version}: {status.reason}")
        if time.monotonic() > deadline:
            text = f"{deployment.name} is not up after {DEPLOY_TIMEOUT_S:.0f} s: {status.reason}"
            raise DeploymentError("deploy_timeout", text)
        if status.reason != seen:
            seen = status.reason
            progress(seen)
        time.sleep(POLL_S)


def _as_stored(settings: Settings, deployment: Deployment) -> Deployment:
    """Return a deployment that shares with what is said of it in the store; others are stored once they run."""
    return _deployments(settings).get(deployment.name) if deployment.is_shared else deployment


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
