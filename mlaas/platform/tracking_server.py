"""MLflow's server: runs and the model registry, on loopback."""

from __future__ import annotations

import sys

import httpx

from mlaas.platform.parts import Probe
from mlaas.platform.processes import end, owned, require_free_port, spawn
from mlaas.settings import Settings, inherited_environment

STOP_GRACE_S = 5.0


class TrackingServer:
    """MLflow's server with its database and artifacts inside the instance's folder."""

    name = "mlflow"
    start_timeout_s = 120.0

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def probe(self) -> Probe:
        """Check that the server answers."""
        url = self._settings.tracking_uri
        log = self._settings.logs_dir / "mlflow.log"
        try:
            ok = httpx.get(f"{url}/health", timeout=3.0).status_code == 200
        except httpx.HTTPError:
            ok = False
        if ok and owned(self._settings.home, part="mlflow"):
            return Probe(part=self.name, ok=True, detail=url)
        detail = f"another server answers at {url}" if ok else f"{url} does not answer"
        return Probe(part=self.name, ok=False, detail=detail, fix=f"run `mlaas up`; its log is {log}")

    def start(self) -> None:
        """Stop what is left of an earlier server and start one.

        Raises:
            Conflict: its port is taken.
        """
        settings = self._settings
        end(owned(settings.home, part="mlflow"), grace_s=STOP_GRACE_S)
        require_free_port(settings.mlflow_port, variable="MLAAS_MLFLOW_PORT")
        folder = settings.home / "mlflow"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(settings.mlflow_port),
            "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
            "--artifacts-destination", str(folder / "artifacts"), "--workers", "1",
        ]  # fmt: skip
        # MLflow's own job runner is four more processes, and an API that runs code: jobs are Ray's here.
        switches = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        env = {**inherited_environment(), **switches}
        spawn(command, home=settings.home, part="mlflow", env=env, log=settings.logs_dir / "mlflow.log")
