"""Deployments as Ray Serve applications: the store's rows in Serve's declarative form, and Serve's report read back.

Each version of a deployment is an application of its own, so that a new one can come up beside the one that serves.
Pure. Source: Ray Serve's REST API, `ServeDeploySchema` and `ServeInstanceDetails`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mlaas.serving.types import DeploymentSpec
from mlaas.store.deployments import Deployment

SERVE_DEPLOYMENT = "llm"
"""Name of the one Serve deployment in each application."""

REPLICA_PREFIX = "replica-"
"""Applications of this name are single replicas of deployments that share the cluster."""

# Serve keeps what may stand behind HAProxy open for 30 s after its end; no request comes to replicas that way.
_RUNTIME_ENV = {"env_vars": {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0"}}
_OUR_ERROR = re.compile(r"mlaas\.errors\.\w+: (.+)")
_SLOW_START = re.compile(r"to initialize\.|caused by a slow __init__")
"""What Serve says of each replica that takes more than 30 s to start, as an engine does."""


class ApplicationState(StrEnum):
    """How far an application is."""

    ABSENT = "absent"
    """Serve does not run it."""
    STARTING = "starting"
    """Fewer replicas are up than wanted, and Serve starts the others."""
    RUNNING = "running"
    """Every replica that is wanted is up."""
    UNHEALTHY = "unhealthy"
    """It ran, and replicas have died since; Serve replaces them."""
    FAILED = "failed"
    """Its replicas do not come up, and Serve has stopped trying."""
    STOPPING = "stopping"
    """It is being removed."""


_STATES = {
    "RUNNING": ApplicationState.RUNNING,
    "UNHEALTHY": ApplicationState.UNHEALTHY,
    "DEPLOY_FAILED": ApplicationState.FAILED,
    "DELETING": ApplicationState.STOPPING,
}


@dataclass(frozen=True, kw_only=True)
class ApplicationStatus:
    """A deployment as the cluster sees it."""

    state: ApplicationState
    num_running: int
    """Replicas that are up."""
    num_wanted: int
    reason: str
    """Why it is not running; empty when it is."""

    @property
    def is_running(self) -> bool:
        """Whether every replica that is wanted is up."""
        return self.state is ApplicationState.RUNNING

    @property
    def has_failed(self) -> bool:
        """Whether waiting is of no use."""
        return self.state is ApplicationState.FAILED


def application_name(deployment: Deployment) -> str:
    """Return the name of the Serve application that runs this version of the deployment."""
    return f"model-{deployment.name}-v{deployment.version}"


def application(deployment: Deployment) -> dict[str, Any]:
    """Return the deployment's entry of `applications` in Serve's declarative config."""
    spec = DeploymentSpec(name=deployment.name, model=deployment.model, version=deployment.version)
    return {
        "name": application_name(deployment),
        "import_path": "serve_apps.llm:build",
        "route_prefix": None,
        "args": spec.model_dump(),
        # Not an argument: Serve restarts every replica when arguments change, and none when only their number does.
        "deployments": [{"name": SERVE_DEPLOYMENT, "num_replicas": deployment.replicas}],
        "runtime_env": _RUNTIME_ENV,
    }


def replica_application(
    replica_id: str, *, name: str, version: int, node: str, resources: Mapping[str, float]
) -> dict[str, Any]:
    """Return the application of one replica of a deployment that shares the cluster, pinned to the node booked for it.

    Each such replica is an application, since Serve has one label selector for all replicas of a deployment, and
    restarts all of them when it changes. Requests do not come through Serve, so nothing is lost by it.

    Args:
        replica_id: Of the booking.
        name: Of the deployment, and of the registered model.
        version: Of the model.
        node: Ray's id of the node.
        resources: What is booked there, by Ray's names.
    """
    spec = DeploymentSpec(name=name, model=name, version=version)
    options = {
        "num_cpus": resources.get("CPU", 0),
        "num_gpus": resources.get("GPU", 0),
        "label_selector": {"ray.io/node-id": node},
    }
    return {
        "name": f"{REPLICA_PREFIX}{replica_id}",
        "import_path": "serve_apps.llm:build",
        "route_prefix": None,
        "args": spec.model_dump(),
        "deployments": [{"name": SERVE_DEPLOYMENT, "num_replicas": 1, "ray_actor_options": options}],
        "runtime_env": _RUNTIME_ENV,
    }


def read_replicas(details: Mapping[str, Any]) -> dict[str, ApplicationState]:
    """Return the replicas that are applications of their own, by id."""
    return {
        name.removeprefix(REPLICA_PREFIX): _STATES.get(reported["status"], ApplicationState.STARTING)
        for name, reported in details.get("applications", {}).items()
        if name.startswith(REPLICA_PREFIX)
    }


def read_status(details: Mapping[str, Any], deployment: Deployment) -> ApplicationStatus:
    """Find a deployment in Serve's report.

    Args:
        details: what `ServeSubmissionClient.get_serve_details` returns.
        deployment: the deployment; tells how many replicas are wanted.
    """
    if deployment.is_shared:
        return _shared_status(details, deployment)
    reported = details.get("applications", {}).get(application_name(deployment))
    if reported is None:
        return _status(deployment, ApplicationState.ABSENT, reason="Ray Serve does not run it")
    parts = list(reported["deployments"].values())
    states = [replica["state"] for part in parts for replica in part["replicas"]]
    num_running = states.count("RUNNING")
    state = _STATES.get(reported["status"], ApplicationState.STARTING)
    if state is ApplicationState.RUNNING and num_running < deployment.replicas:
        state = ApplicationState.STARTING
    if state is ApplicationState.RUNNING:
        return _status(deployment, state, num_running=num_running)
    said = "\n".join(str(part["message"]) for part in (reported, *parts))
    return _status(deployment, state, num_running=num_running, reason=explain(said) or _count(states))


def _shared_status(details: Mapping[str, Any], deployment: Deployment) -> ApplicationStatus:
    """Return the state of a deployment whose replicas are applications of their own: it runs once its fewest do."""
    own = [
        reported
        for name, reported in details.get("applications", {}).items()
        if name.startswith(REPLICA_PREFIX) and _is_of(reported, deployment)
    ]
    states = [_STATES.get(reported["status"], ApplicationState.STARTING) for reported in own]
    num_running = states.count(ApplicationState.RUNNING)
    if num_running >= deployment.replicas:
        return _status(deployment, ApplicationState.RUNNING, num_running=num_running)
    if deployment.obstacle:
        reason = f"no machine for a replica: {deployment.obstacle}"
        return _status(deployment, ApplicationState.FAILED, num_running=num_running, reason=reason)
    if not own:
        return _status(deployment, ApplicationState.ABSENT, reason="waits for machines; `mlaas queue` shows why")
    has_failed = ApplicationState.FAILED in states
    state = ApplicationState.FAILED if has_failed else ApplicationState.STARTING
    said = "\n".join(str(part["message"]) for each in own for part in (each, *each["deployments"].values()))
    return _status(deployment, state, num_running=num_running, reason=explain(said) or _count(states))


def _is_of(reported: Mapping[str, Any], deployment: Deployment) -> bool:
    args = (reported.get("deployed_app_config") or {}).get("args", {})
    return (args.get("name"), args.get("version")) == (deployment.name, deployment.version)


def explain(message: str) -> str:
    """Return the cause in a message of Serve: our own error when one is quoted, else the last line that says one."""
    if ours := _OUR_ERROR.findall(message):
        return str(ours[-1]).strip()
    lines = [line.strip() for line in message.splitlines() if line.strip() and not _SLOW_START.search(line)]
    return lines[-1] if lines else ""


def _count(states: Sequence[str]) -> str:
    counts = (f"{states.count(state)} {state.lower()}" for state in sorted(set(states)))
    return f"replicas: {', '.join(counts) or 'none yet'}"


def _status(
    deployment: Deployment, state: ApplicationState, *, num_running: int = 0, reason: str = ""
) -> ApplicationStatus:
    return ApplicationStatus(state=state, num_running=num_running, num_wanted=deployment.replicas, reason=reason)
