"""Deployments on a real cluster with real vLLM engines, and what happens when their processes die.

The tests share one deployment and run in the order written; each leaves it as the next one needs it.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from mlflow import MlflowClient

from mlaas.errors import DeploymentError
from mlaas.platform.processes import owned
from mlaas.serving.engine import Engine, EngineSpec, free_port, installed_device
from mlaas.serving.types import Endpoint
from mlaas.tracking.registry import Registry
from tests.fakes.tiny_llama import write_tiny_llama
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Instance

pytestmark = pytest.mark.cluster

NAME = "random-llama"
BOOT_S = 240.0
WITHDRAWAL_S = 5.0
WATCH = """
import asyncio, dataclasses, json, sys
import ray
from mlaas.serving.endpoints import watch_endpoints

async def main():
    async for endpoints in watch_endpoints():
        print(json.dumps([dataclasses.asdict(endpoint) for endpoint in endpoints]), flush=True)

ray.init(address=sys.argv[1], log_to_driver=False)
asyncio.run(main())
"""


class Watcher:
    """A consumer of the endpoint registry in a process of its own, as a gateway is."""

    def __init__(self, instance: Instance) -> None:
        address = f"127.0.0.1:{instance.settings.gcs_port}"
        command = [sys.executable, "-c", WATCH, address]
        self._process = subprocess.Popen(command, env=instance.env, stdout=subprocess.PIPE, text=True)
        self._snapshots: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.seen: list[tuple[Endpoint, ...]] = []

    def wait_for(self, condition: Callable[[tuple[Endpoint, ...]], bool], *, timeout_s: float) -> tuple[Endpoint, ...]:
        """Return the first snapshot, the current one included, for which the condition holds."""
        deadline = time.monotonic() + timeout_s
        while not (self.seen and condition(self.seen[-1])):
            line = self._snapshots.get(timeout=max(0.0, deadline - time.monotonic()))
            self.seen.append(tuple(Endpoint(**fields) for fields in json.loads(line)))
        return self.seen[-1]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._snapshots.put(line)


@pytest.fixture(scope="module")
def watcher(instance: Instance) -> Iterator[Watcher]:
    watcher = Watcher(instance)
    yield watcher
    watcher.close()


@pytest.fixture(scope="module")
def deployed(instance: Instance, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The model, registered and deployed with one replica."""
    folder = tmp_path_factory.mktemp(NAME)
    write_tiny_llama(folder)
    uri = instance.settings.tracking_uri
    run = MlflowClient(uri).create_run(MlflowClient(uri).create_experiment(NAME))
    Registry(uri).register(NAME, folder, run_id=run.info.run_id, tags={})
    instance.run("deploy", NAME)


def engine_of(instance: Instance, endpoint: Endpoint) -> tuple[psutil.Process, list[psutil.Process]]:
    """Return the replica's process, and the guard, server and engine below it."""
    port = endpoint.url.rpartition(":")[2]
    for process in owned(instance.settings.home):
        command = process.cmdline()
        if "mlaas.serving.guard" in command and command[command.index("--port") + 1] == port:
            return process.parent(), [process, *process.children(recursive=True)]
    raise AssertionError(f"no engine listens at {endpoint.url}")


def complete(endpoint: Endpoint, *, api_key: str, num_tokens: int = 16) -> httpx.Response:
    body = {"model": NAME, "prompt": "def ", "max_tokens": num_tokens, "ignore_eos": True}
    headers = {"authorization": f"Bearer {api_key}"}
    return httpx.post(f"{endpoint.url}/v1/completions", json=body, headers=headers, timeout=60)


@pytest.mark.usefixtures("deployed")
def test_a_deployed_model_answers_at_its_endpoint(watcher: Watcher) -> None:
    (endpoint,) = watcher.wait_for(lambda endpoints: len(endpoints) == 1, timeout_s=30)
    assert endpoint.model == NAME
    answer = complete(endpoint, api_key=endpoint.api_key)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 16
    assert complete(endpoint, api_key="wrong").status_code == 401


def test_more_replicas_leave_the_first_one_alone(instance: Instance, watcher: Watcher) -> None:
    (first,) = watcher.seen[-1]
    instance.run("deploy", NAME, "--replicas", "2")
    both = watcher.wait_for(lambda endpoints: len(endpoints) == 2, timeout_s=30)
    assert all(first in endpoints for endpoints in watcher.seen[1:])
    assert {complete(endpoint, api_key=endpoint.api_key).status_code for endpoint in both} == {200}


def test_a_killed_registry_comes_back_without_a_gap(instance: Instance, watcher: Watcher) -> None:
    before = watcher.seen[-1]
    (registry,) = (process for process in owned(instance.settings.home) if "ray::EndpointRegistry" in process.cmdline())
    registry.kill()
    late = Watcher(instance)
    try:
        assert late.wait_for(lambda endpoints: len(endpoints) == 2, timeout_s=60) == before
        assert late.seen == [before]
    finally:
        late.close()
    assert complete(before[0], api_key=before[0].api_key).status_code == 200


class GatewayLoad:
    """Callers that ask the gateway one after the other, and keep the status of each answer."""

    def __init__(self, instance: Instance, *, num_callers: int) -> None:
        created = json.loads(instance.run("keys", "create", "--json").stdout)
        self.statuses: list[int] = []
        self._is_over = threading.Event()
        self._gateway = Endpoint(model=NAME, url=instance.settings.gateway_url, replica_id="", api_key=created["key"])
        wait_until(lambda: self._ask() == 200, what="the gateway to know key and model", timeout_s=30)
        self._threads = [threading.Thread(target=self._call) for _ in range(num_callers)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_answers(self, number: int) -> None:
        seen = len(self.statuses)
        wait_until(lambda: len(self.statuses) >= seen + number, what=f"{number} answers more", timeout_s=60)

    def _ask(self) -> int:
        return complete(self._gateway, api_key=self._gateway.api_key).status_code

    def _call(self) -> None:
        while not self._is_over.is_set():
            self.statuses.append(self._ask())


def test_an_engine_killed_under_load_is_replaced_and_no_caller_notices(instance: Instance, watcher: Watcher) -> None:
    doomed, other = watcher.wait_for(lambda endpoints: len(endpoints) == 2, timeout_s=30)
    _, engine = engine_of(instance, doomed)
    load = GatewayLoad(instance, num_callers=8)
    try:
        load.wait_for_answers(50)
        engine[-1].kill()
        load.wait_for_answers(200)
    finally:
        load.stop()
    assert set(load.statuses) == {200}
    assert watcher.wait_for(lambda endpoints: len(endpoints) == 1, timeout_s=WITHDRAWAL_S) == (other,)
    gone, _ = psutil.wait_procs(engine, timeout=30)
    assert len(gone) == len(engine)
    both = watcher.wait_for(lambda endpoints: len(endpoints) == 2, timeout_s=BOOT_S)
    assert doomed not in both
    assert {complete(endpoint, api_key=endpoint.api_key).status_code for endpoint in both} == {200}


def test_a_killed_replica_leaves_no_process_behind(instance: Instance, watcher: Watcher) -> None:
    doomed, other = watcher.seen[-1]
    replica, engine = engine_of(instance, doomed)
    replica.kill()
    gone, _ = psutil.wait_procs(engine, timeout=10)
    assert len(gone) == len(engine)
    assert watcher.wait_for(lambda endpoints: doomed not in endpoints, timeout_s=30) == (other,)


def test_undeploy_lets_a_running_request_finish_and_leaves_nothing(instance: Instance, watcher: Watcher) -> None:
    (endpoint,) = watcher.seen[-1]
    with ThreadPoolExecutor() as pool:
        running = pool.submit(complete, endpoint, api_key=endpoint.api_key, num_tokens=900)
        instance.run("undeploy", NAME)
        answer = running.result()
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 900
    watcher.wait_for(lambda endpoints: endpoints == (), timeout_s=30)
    commands = [" ".join(process.cmdline()) for process in owned(instance.settings.home)]
    assert not [command for command in commands if "mlaas.serving.guard" in command or "VLLM" in command]


def test_a_model_that_is_not_registered_is_refused_with_those_that_are(instance: Instance) -> None:
    failed = instance.run("deploy", "no-such-model", check=False)
    assert failed.returncode != 0
    assert NAME in failed.stdout + failed.stderr


async def test_an_engine_that_does_not_start_says_why(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"num_attention_heads": 2', '"num_attention_heads": 3'))
    spec = EngineSpec(
        model_dir=tmp_path,
        served_name="broken",
        host="127.0.0.1",
        port=free_port("127.0.0.1"),
        api_key="key",
        device=installed_device(),
        num_threads=1,
        kernels_dir=None,
    )
    with pytest.raises(DeploymentError, match=r"the engine of 'broken' failed: .*(attention|heads|hidden)"):
        await Engine.start(spec, log=tmp_path / "engine.log")
