"""The Ray head: control store, raylet, dashboard and job API of a cluster that this instance starts."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from mlaas.errors import PlatformError
from mlaas.platform.ingress import ingress_environment
from mlaas.platform.parts import Probe
from mlaas.platform.processes import end, free_port, owned, owned_names, require_free_port, runtime_dir, spawn
from mlaas.settings import Settings, inherited_environment, ray_token_path

MIN_LOGICAL_CPUS = 8
"""Ray's CPUs are claims, not cores: a small machine must admit a training gang beside its idle serving replicas."""
STOP_GRACE_S = 8.0
BOOTSTRAP_CONFIG = Path.home() / "ray_bootstrap_config.yaml"
"""Where `ray up` leaves the cluster's configuration on its head; with it the head runs the autoscaler."""
RECONNECT_S = 300
"""How long machines and what runs on them wait for a head that was lost, before they give up and end."""
KEPT_SESSIONS = 2
"""Ray sessions, logs included, that stay on disk: the one that starts and the one before."""


class Head:
    """A Ray head node on this machine, with token authentication and HAProxy as Serve's ingress.

    Args:
        settings: the instance.
        is_durable: whether its control store is kept on disk, so that the head which follows a lost one knows the
            machines that go on, and what runs there. `forget` makes the next one empty.
    """

    name = "ray head"
    start_timeout_s = 60.0

    def __init__(self, settings: Settings, *, is_durable: bool = True) -> None:
        self._settings = settings
        self._is_durable = is_durable

    def probe(self) -> Probe:
        """Check that the head's processes live and its API answers to our token."""
        fix = "run `mlaas up`"
        alive = owned_names(self._settings.home, part="ray")
        if missing := {"gcs_server", "raylet"} - alive:
            return Probe(part=self.name, ok=False, detail=f"not running: {', '.join(sorted(missing))}", fix=fix)
        url = self._settings.dashboard_url
        try:
            answer = httpx.get(f"{url}/api/version", headers=token_header(), timeout=3.0)
        except httpx.HTTPError as error:
            return Probe(part=self.name, ok=False, detail=f"{url} does not answer ({type(error).__name__})", fix=fix)
        if answer.status_code != 200:
            fix = f"the token in {ray_token_path()} is not this cluster's: restore it, or `mlaas down` and `mlaas up`"
            return Probe(part=self.name, ok=False, detail=f"{url} answers {answer.status_code}", fix=fix)
        return Probe(part=self.name, ok=True, detail=url)

    def start(self) -> None:
        """Stop what is left of an earlier head and start the one that follows it.

        Raises:
            Conflict: one of its ports is taken.
            PlatformError: `ray start` fails; the message ends with what it printed last.
        """
        settings = self._settings
        end(owned(settings.home, part="ray"), grace_s=STOP_GRACE_S)
        for variable, port in (
            ("MLAAS_GATEWAY_PORT", settings.gateway_port),
            ("MLAAS_DASHBOARD_PORT", settings.dashboard_port),
            ("MLAAS_GCS_PORT", settings.gcs_port),
        ):
            require_free_port(port, variable=variable)
        ensure_token()
        temp_dir = ray_temp_dir(settings)
        _prune_sessions(temp_dir)
        autoscaling = [f"--autoscaling-config={BOOTSTRAP_CONFIG}"] if BOOTSTRAP_CONFIG.exists() else []
        follows = self._is_durable and _control_store(settings).exists()
        try:
            start_ray(
                settings,
                f"127.0.0.1:{settings.gcs_port}",
                "--head",
                f"--port={settings.gcs_port}",
                "--dashboard-host=127.0.0.1",
                f"--dashboard-port={settings.dashboard_port}",
                f"--ray-client-server-port={free_port()}",
                f"--num-cpus={max(MIN_LOGICAL_CPUS, os.cpu_count() or 1)}",
                f"--temp-dir={temp_dir}",
                *autoscaling,
                environment=_durable_environment(settings) if self._is_durable else {},
            )
        except PlatformError as error:
            if not follows:
                raise
            way_out = f"if it is what the head before left in {_control_store(settings)}: `mlaas down`, then `mlaas up`"
            raise PlatformError(error.code, f"{error.message}\n{way_out}") from error


def forget(settings: Settings) -> None:
    """Let the next head know nothing of the one before."""
    shutil.rmtree(_control_store(settings), ignore_errors=True)


class WorkerNode:
    """This machine as one more node of a Ray cluster that runs elsewhere."""

    name = "ray node"
    start_timeout_s = 60.0

    def __init__(self, settings: Settings, *, address: str) -> None:
        self._settings = settings
        self._address = address

    def probe(self) -> Probe:
        """Check that the node's raylet lives; it ends by itself when its cluster is gone."""
        alive = owned_names(self._settings.home, part="ray")
        if "raylet" in alive:
            return Probe(part=self.name, ok=True, detail=f"joined {self._address}")
        fix = f"run `mlaas up --address {self._address}`"
        return Probe(part=self.name, ok=False, detail=f"not joined to {self._address}", fix=fix)

    def start(self) -> None:
        """Join the cluster.

        Raises:
            PlatformError: the cluster does not answer, or refuses our token.
        """
        end(owned(self._settings.home, part="ray"), grace_s=STOP_GRACE_S)
        if not ray_token_path().exists():
            message = f"no token in {ray_token_path()}: copy that file from the cluster's head to this machine"
            raise PlatformError("no_ray_token", message)
        start_ray(self._settings, self._address, f"--address={self._address}", environment=_patient_environment())


def start_ray(settings: Settings, address: str, *arguments: str, environment: Mapping[str, str]) -> None:
    """Run `ray start` for this instance, of the cluster at `address`, and wait for it to return.

    Raises:
        PlatformError: it fails; the message ends with what it printed last.
    """
    log = settings.logs_dir / "ray-start.log"
    log.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats", "--log-color=false",
        "--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0", *arguments,
    ]  # fmt: skip
    env = {**_environment(settings, address=address), **environment}
    process = spawn(command, home=settings.home, part="ray", env=env, log=log)
    try:
        status = process.wait(timeout=90)
    except subprocess.TimeoutExpired:
        process.kill()
        status = None
    if status != 0:
        outcome = "did not return within 90 s" if status is None else f"failed with exit status {status}"
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise PlatformError("ray_start_failed", f"`ray start` {outcome} ({log}):\n" + "\n".join(lines[-5:]))


def ray_temp_dir(settings: Settings) -> Path:
    """Return the folder of Ray's sessions: sockets, logs, spilled objects."""
    return runtime_dir(settings.home) / "ray"


def ensure_token() -> None:
    """Make the token that every client and node of the cluster must show, unless there is one."""
    path = ray_token_path()
    if path.exists() and path.read_text().strip():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))


def token_header() -> dict[str, str]:
    """Return the HTTP header that Ray's dashboard asks for; empty when there is no token."""
    path = ray_token_path()
    return {"authorization": f"Bearer {path.read_text().strip()}"} if path.exists() else {}


def driver_environment(settings: Settings, *, address: str) -> dict[str, str]:
    """Return the environment of a process that joins the cluster."""
    return {
        **inherited_environment(),
        **settings.environment(),
        # Ray's own helpers look for a cluster on the machine, and give up where there are two.
        "RAY_ADDRESS": address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(ray_token_path()),
    }


def _environment(settings: Settings, *, address: str) -> dict[str, str]:
    inherited = inherited_environment()
    return {
        **driver_environment(settings, address=address),
        # A job's `python` is the interpreter of this environment, whether or not the caller's shell has activated it.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Ray starts its workers at nice 15, where ingress, gateway and engines wait for whatever else the machine does.
        "RAY_worker_niceness": "0",
        # Tells workers of a node's drain, which our loop does not ask about, and logs an error in each run.
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        **ingress_environment(runtime_dir(settings.home) / "haproxy"),
    }


def _durable_environment(settings: Settings) -> dict[str, str]:
    """Return the variables that keep the control store on disk.

    Source: "GCS Fault Tolerance" in Ray's documentation.
    """
    return {
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": str(_control_store(settings)),
        **_patient_environment(),
    }


def _patient_environment() -> dict[str, str]:
    return {"RAY_gcs_rpc_server_reconnect_timeout_s": str(RECONNECT_S)}


def _control_store(settings: Settings) -> Path:
    return settings.home / "gcs"


def _prune_sessions(temp_dir: Path) -> None:
    sessions = sorted(path for path in temp_dir.glob("session_*") if re.match(r"session_\d", path.name))
    for session in sessions[: -(KEPT_SESSIONS - 1)]:
        shutil.rmtree(session, ignore_errors=True)
