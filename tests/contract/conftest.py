"""A real vLLM server, one for each session of tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.fakes.serve_cluster import free_ports
from tests.fakes.tiny_llama import write_tiny_llama
from tests.waiting import wait_until


@pytest.fixture(scope="session")
def vllm_url(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("vllm")
    write_tiny_llama(folder / "tiny")
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "tiny")]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16"]
    command += ["--max-model-len", "4096", "--enforce-eager", "--max-num-seqs", "8"]
    # Its worker in the engine process, on one thread, as replicas have it: apart, the two keep all of a small machine
    # busy, and what the engine has done comes out when all of it is over.
    command += ["--distributed-executor-backend", "uni"]
    one_thread = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    local = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    environment = {**os.environ, **local, **one_thread}
    url = f"http://127.0.0.1:{port}"
    with (folder / "vllm.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:

            def is_up() -> bool:
                if server.poll() is not None:
                    raise RuntimeError((folder / "vllm.log").read_text()[-3000:])
                with contextlib.suppress(httpx.HTTPError):
                    return httpx.get(f"{url}/health", timeout=2).is_success
                return False

            wait_until(is_up, what="vLLM", timeout_s=240)
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
