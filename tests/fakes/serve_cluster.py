"""A Ray cluster of its own, with Serve behind HAProxy, on free ports; ends every process that it started."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from mlaas.platform.ingress import ingress_environment
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


def free_ports(num: int) -> list[int]:
    """Return ports that were free a moment ago, between those of Ray's workers and those of Serve's replicas."""
    ports: list[int] = []
    while len(ports) < num:
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as probe:
            if port not in ports and probe.connect_ex(("127.0.0.1", port)):
                ports.append(port)
    return ports


@dataclass(frozen=True, kw_only=True)
class ServeCluster:
    """A running cluster."""

    url: str
    dashboard_url: str
    token: str
    environment: Mapping[str, str]
    home: Path
    pid: int

    def deploy(self, applications: list[dict[str, Any]], *, timeout_s: float = 120) -> None:
        """Put the whole list of applications and wait until each one runs."""
        headers = {"authorization": f"Bearer {self.token}"}
        api = f"{self.dashboard_url}/api/serve/applications/"
        port = int(self.url.rpartition(":")[2])
        config = {"proxy_location": "EveryNode", "http_options": {"port": port}, "applications": applications}
        httpx.put(api, json=config, headers=headers, timeout=60).raise_for_status()

        def is_running() -> bool:
            states = httpx.get(api, headers=headers, timeout=30).json()["applications"]
            failed = [f"{name}: {state['message']}" for name, state in states.items() if "FAILED" in state["status"]]
            if failed:
                raise RuntimeError("; ".join(failed))
            return len(states) == len(applications) and all(each["status"] == "RUNNING" for each in states.values())

        wait_until(is_running, what="the applications to run", timeout_s=timeout_s)

    def processes(self) -> list[psutil.Process]:
        """Return every process below the head."""
        return psutil.Process(self.pid).children(recursive=True)


@contextlib.contextmanager
def serve_cluster(environment: Mapping[str, str], *, num_cpus: int = 4) -> Iterator[ServeCluster]:
    """Start a head with Serve's HAProxy ingress, and end all of it."""
    temp = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))
    gcs, dashboard, http, agent, agent_grpc, runtime_env, export = free_ports(7)
    env = {
        **os.environ,
        **environment,
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        **ingress_environment(temp / "h"),
        # As the platform's head sets it; otherwise Ray gives its workers, and them alone, a nice value of 15.
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    env.setdefault("MLAAS_HOME", str(temp / "home"))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={gcs}"]
    command += [f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", f"--temp-dir={temp / 'ray'}"]
    command += [f"--num-cpus={num_cpus}", "--object-store-memory=200000000", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--dashboard-agent-grpc-port={agent_grpc}", f"--runtime-env-agent-port={runtime_env}"]
    command += [f"--metrics-export-port={export}", "--disable-usage-stats", "--include-log-monitor=false"]
    log = (temp / "head.log").open("wb")
    head = subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        headers = {"authorization": f"Bearer {env['RAY_AUTH_TOKEN']}"}

        def is_up() -> bool:
            if head.poll() is not None:
                raise RuntimeError(f"ray start ended: {(temp / 'head.log').read_text()[-2000:]}")
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"http://127.0.0.1:{dashboard}/api/version", headers=headers, timeout=5).is_success
            return False

        wait_until(is_up, what="the Ray head", timeout_s=60)
        yield ServeCluster(
            url=f"http://127.0.0.1:{http}",
            dashboard_url=f"http://127.0.0.1:{dashboard}",
            token=env["RAY_AUTH_TOKEN"],
            environment=env,
            home=Path(env["MLAAS_HOME"]),
            pid=head.pid,
        )
    finally:
        end_tree(head.pid)
        head.wait()
        log.close()
        shutil.rmtree(temp, ignore_errors=True)


def end_tree(pid: int) -> None:
    """Kill a process and all below it, parents first so that nothing is started anew."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        processes = [parent, *parent.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)
