"""A Ray cluster of several raylets on this machine, with the real scheduler as its actor and a store in a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from mlaas.scheduler.live.lifecycle import State
from mlaas.scheduler.on_ray.actor import start_actor
from mlaas.scheduler.on_ray.client import NAMESPACE, BlockingClient
from mlaas.scheduler.on_ray.parts import log_path
from mlaas.scheduler.requests.spec import Command, WorkloadSpec
from mlaas.scheduler.types import Gang
from mlaas.store.engine import migrate
from tests.waiting import wait_until

TENANT = "tests"
NODE: dict[str, Any] = {"num_cpus": 4, "num_gpus": 2, "object_store_memory": 80_000_000}


@dataclass(frozen=True)
class ScheduledCluster:
    """The cluster, and who asks its scheduler."""

    cluster: Cluster
    client: Any
    home: Path

    def submit(self, script: str, gang: Gang, **fields: Any) -> str:
        """Submit a shell script and return the workload's id."""
        spec = WorkloadSpec(gang=gang, command=Command(argv=("sh", "-c", script)), **fields)
        (record,) = self.client.submit(spec, tenant=TENANT)
        return record.id

    def record(self, workload_id: str) -> Any:
        return self.client.get(workload_id)

    def wait_for(self, workload_id: str, state: State, *, attempt: int | None = None) -> Any:
        """Wait for a state, of one attempt; a scheduler that starts anew is waited for too."""

        def is_there() -> bool:
            with contextlib.suppress(Exception):
                record = self.record(workload_id)
                return record.state == state and attempt in (None, record.attempt)
            return False

        wait_until(is_there, what=f"{workload_id} to be {state}", timeout_s=40)
        return self.record(workload_id)

    def log(self, workload_id: str, *, attempt: int = 1, rank: int = 0) -> str:
        path = log_path(self.home, f"{workload_id}.{attempt}", rank)
        return path.read_text() if path.exists() else ""

    def processes(self, name: str) -> list[psutil.Process]:
        """Return this cluster's Ray workers of an actor class."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "".join(process.cmdline()).startswith(f"ray::{name}"):
                    found.append(process)
        return found


@contextlib.contextmanager
def scheduled_cluster(home: Path, *racks: str) -> Iterator[ScheduledCluster]:
    """Start a head in the first rack and a node in each further one, and the scheduler; end all of it."""
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("MLAAS_HOME", str(home))
        variables.setenv("PYTHONPATH", os.getcwd())
        home.mkdir(parents=True, exist_ok=True)
        migrate(f"sqlite:///{home / 'mlaas.db'}")
        cluster = Cluster(
            initialize_head=True, head_node_args={**NODE, "include_dashboard": False, "labels": {"rack": racks[0]}}
        )
        try:
            for rack in racks[1:]:
                cluster.add_node(**NODE, labels={"rack": rack})
            ray.init(address=cluster.address, namespace=NAMESPACE, log_to_driver=False, logging_level="error")
            cluster.wait_for_nodes()
            start_actor()
            scheduled = ScheduledCluster(cluster, BlockingClient(), home)
            wait_until(lambda: _is_up(scheduled.client), what="the scheduler", timeout_s=60)
            yield scheduled
        finally:
            ray.shutdown()
            cluster.shutdown()


def _is_up(client: Any) -> bool:
    with contextlib.suppress(Exception):
        client.list()
        return True
    return False
