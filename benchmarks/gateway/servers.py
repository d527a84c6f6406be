"""The upstream, our gateway and its peers, each started as its users start it, each in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import httpx
import psutil

from mlaas.auth.keys import create_key
from mlaas.auth.types import KeyLimits
from mlaas.store.engine import migrate, open_store
from mlaas.store.keys import KeyRepository
from tests.fakes.serve_cluster import free_ports, serve_cluster
from tests.waiting import wait_until

LITELLM = "litellm[proxy]==1.105.0"
PORTKEY = "@portkey-ai/gateway@1.15.2"
SMG = "smg==1.13.0"

# Limits that count every request and are never reached.
LIMITS = KeyLimits(
    rpm=10**9, tpm=10**12, concurrency=10**6, budget_usd=Decimal(10**6), budget_per="month", models=("fast", "broken")
)


@dataclass(frozen=True, kw_only=True)
class Server:
    """Something that answers chats of the model `fast`.

    Attributes:
        url: of the chats.
        headers: that a caller sends.
        processes: the ones whose memory counts.
    """

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    processes: tuple[psutil.Process, ...] = ()


def find_tool(name: str, package: str) -> str:
    """Return a program's path, or end with what to install."""
    path = shutil.which(name)
    if path is None:
        sys.exit(f"{name} is not installed; on Debian: apt install {package}")
    return path


@contextlib.contextmanager
def running(command: list[str], url: str, log: Path, **environment: str) -> Iterator[psutil.Process]:
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
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[Server]:
    """Run the upstream that all of them ask."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "benchmarks.gateway.upstream", "--port", str(port)]
    url = f"http://127.0.0.1:{port}/v1"
    with running(command, f"{url}/models", folder / "upstream.log") as process:
        yield Server(name="direct", url=f"{url}/chat/completions", processes=(process,))


@contextlib.contextmanager
def gateway(folder: Path, cache: Path, upstream_url: str, *, num_replicas: int) -> Iterator[Server]:
    """Run ours as `mlaas up` does: Ray Serve behind HAProxy; the key has every limit, the model has a price."""
    provider = {"kind": "openai_compatible", "base_url": upstream_url, "api_key": "x"}
    price = {"input_usd_per_mtok": "0.1", "output_usd_per_mtok": "0.4"}
    config = {
        "providers": {"house": provider},
        "models": {"fast": {"targets": ["house/m"]}, "broken": {"targets": ["house/broken"]}},
        "prices": {"house/m": price, "house/broken": price},
    }
    (folder / "router.yaml").write_text(json.dumps(config))
    store_url = f"sqlite:///{folder / 'mlaas.db'}"
    migrate(store_url)
    secret, _ = create_key(
        KeyRepository(open_store(store_url)), name="bench", tenant="bench", role="user", limits=LIMITS
    )
    application = {
        "name": "gateway",
        "import_path": "serve_apps.gateway:build",
        "route_prefix": "/",
        "args": {"replicas": num_replicas},
    }
    environment = {
        "MLAAS_HOME": str(folder),
        "MLAAS_ROUTER_CONFIG": str(folder / "router.yaml"),
    }
    with serve_cluster(environment) as cluster:
        cluster.deploy([application])
        wait_until(lambda: httpx.get(f"{cluster.url}/healthz").is_success, what="the ingress", timeout_s=60)
        replicas = [each for each in cluster.processes() if "ServeReplica:gateway" in " ".join(each.cmdline())]
        headers = {"authorization": f"Bearer {secret}"}
        url = f"{cluster.url}/v1/chat/completions"
        # A key with limits is answered once the ledger is up, which no health check tells.
        wait_until(lambda: _answers(url, headers), what="an answer through the gateway", timeout_s=60)
        yield Server(name="mlaas", url=url, headers=headers, processes=tuple(replicas))


@contextlib.contextmanager
def litellm(folder: Path, cache: Path, upstream_url: str, *, num_replicas: int) -> Iterator[Server]:
    """Run LiteLLM's proxy: master key, no database."""
    program = _python_program(cache / "litellm", LITELLM, "litellm")
    (port,) = free_ports(1)
    params = {"model": "openai/m", "api_base": upstream_url, "api_key": "x"}
    config = {
        "model_list": [{"model_name": "fast", "litellm_params": params}],
        "general_settings": {"master_key": "sk-bench"},
    }
    (folder / "litellm.json").write_text(json.dumps(config))
    url = f"http://127.0.0.1:{port}"
    command = [str(program), "--config", str(folder / "litellm.json"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--num_workers", str(num_replicas)]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PATH": f"{program.parent}:{os.environ['PATH']}"}
    with running(command, f"{url}/health/liveliness", folder / "litellm.log", **environment) as process:
        headers = {"authorization": "Bearer sk-bench"}
        yield Server(name="litellm", url=f"{url}/v1/chat/completions", headers=headers, processes=(process,))


@contextlib.contextmanager
def portkey(folder: Path, cache: Path, upstream_url: str, *, num_replicas: int) -> Iterator[Server]:
    """Run Portkey's gateway, which is one process whatever `num_replicas` says; it keeps neither keys nor limits."""
    home = cache / "portkey"
    program = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not program.exists():
        print(f"building {home} with {PORTKEY}")
        home.mkdir(parents=True, exist_ok=True)
        npm = find_tool("npm", "npm")
        subprocess.run([npm, "install", "--no-audit", "--no-fund", "--silent", PORTKEY], cwd=home, check=True)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    headers = {
        "authorization": "Bearer x",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": upstream_url,
    }
    command = [find_tool("node", "nodejs"), str(program), f"--port={port}", "--headless"]
    with running(command, url, folder / "portkey.log", NODE_ENV="production") as process:
        yield Server(name="portkey", url=f"{url}/v1/chat/completions", headers=headers, processes=(process,))


@contextlib.contextmanager
def smg(folder: Path, cache: Path, upstream_url: str, *, num_replicas: int) -> Iterator[Server]:
    """Run the Shepherd Model Gateway: one process of many threads, without keys, limits or prices."""
    program = _python_program(cache / "smg", SMG, "smg")
    port, metrics = free_ports(2)
    origin = upstream_url.removesuffix("/v1")
    command = [str(program), "launch", "--host", "127.0.0.1", "--port", str(port), "--worker-urls", origin]
    command += ["--prometheus-port", str(metrics), "--policy", "round_robin", "--backend", "vllm"]
    command += ["--disable-tokenizer-autoload", "--log-level", "error"]
    url = f"http://127.0.0.1:{port}"
    with running(command, f"{url}/v1/models", folder / "smg.log") as process:
        chats = f"{url}/v1/chat/completions"
        wait_until(lambda: _answers(chats, {}), what="smg's worker", timeout_s=60)
        yield Server(name="smg", url=chats, processes=(process,))


START: Mapping[str, Callable[..., contextlib.AbstractContextManager[Server]]] = {
    "mlaas": gateway,
    "litellm": litellm,
    "portkey": portkey,
    "smg": smg,
}


def _answers(url: str, headers: Mapping[str, str]) -> bool:
    chat = {"model": "fast", "messages": [{"role": "user", "content": "Say hello."}]}
    answer = httpx.post(url, json=chat, headers=dict(headers), timeout=30)
    if not answer.is_success:
        print(f"not yet: {answer.status_code} {answer.text[:200]}")
    return answer.is_success


def _python_program(environment: Path, requirement: str, name: str) -> Path:
    """Return a program of an environment of its own, which is built when it is not there."""
    program = environment / "bin" / name
    if not program.exists():
        print(f"building {environment} with {requirement}")
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([environment / "bin" / "pip", "install", "--quiet", requirement], check=True)
    return program
