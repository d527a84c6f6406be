"""A gateway with a live scheduler on a cluster in memory, and a key for each kind of caller."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from mlaas.api.client import ControlPlane
from mlaas.api.mount import control_routes
from mlaas.auth.keys import create_key
from mlaas.store.engine import open_store
from mlaas.store.keys import KeyRepository
from tests.fakes.live_scheduler import new_store, node
from tests.fakes.scheduler_thread import SchedulerThread, running_scheduler
from tests.fakes.servers import Gateway, running_gateway
from tests.waiting import wait_until

CONFIG = "providers: {house: {kind: openai_compatible, base_url: 'http://127.0.0.1:9/v1', api_key: x, models: [m]}}"


@dataclass(frozen=True)
class Platform:
    """A gateway with a scheduler, and a key for each kind of caller."""

    gateway: Gateway
    scheduler: SchedulerThread
    home: Path
    admin_key: str
    other_key: str

    def call(self, method: str, path: str, *, key: str | None = None, **kwargs: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key or self.gateway.key}", **kwargs.pop("headers", {})}
        return httpx.request(method, f"{self.gateway.url}/api/v1{path}", headers=headers, timeout=20, **kwargs)

    def submit(self, spec: Any, **kwargs: Any) -> list[dict[str, Any]]:
        answer = self.call("POST", "/workloads", json=spec, **kwargs)
        assert answer.status_code == 201, answer.text
        return answer.json()["workloads"]

    def client(self, key: str | None = None) -> ControlPlane:
        return ControlPlane(self.gateway.url, key or self.gateway.key)

    def wait_for(self, workload_id: str, state: str) -> None:
        wait_until(
            lambda: self.call("GET", f"/workloads/{workload_id}", key=self.admin_key).json()["state"] == state,
            what=f"{workload_id} to be {state}",
            timeout_s=20,
        )


@contextlib.contextmanager
def running_platform(folder: Path) -> Iterator[Platform]:
    """Run a gateway with a scheduler of two nodes."""
    new_store(folder)
    keys = KeyRepository(open_store(f"sqlite:///{folder / 'mlaas.db'}"))
    admin_key, _ = create_key(keys, name="ops", tenant="ops", role="admin")
    other_key, _ = create_key(keys, name="other", tenant="other", role="user")
    with running_scheduler(folder / "scheduler", [node("n0"), node("n1")]) as scheduler:
        routes = control_routes(scheduler, queues=scheduler.store, home=folder)
        with running_gateway(folder, CONFIG, further_routes=routes) as gateway:
            yield Platform(gateway, scheduler, folder, admin_key, other_key)
