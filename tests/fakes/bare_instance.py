"""An instance without models and MLflow, driven through its store and its cluster."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from mlaas.platform.head import Head, driver_environment
from mlaas.platform.parts import ensure
from mlaas.platform.processes import free_port, owned
from mlaas.platform.scheduler import Scheduler
from mlaas.platform.serve import Gateway
from mlaas.scheduler.live.lifecycle import State
from mlaas.settings import Settings
from mlaas.store.engine import migrate, open_store
from mlaas.store.workloads import WorkloadRecord, WorkloadRepository
from tests.waiting import wait_until

SUBMIT = """
import sys, ray
from mlaas.scheduler.on_ray.client import BlockingClient
from mlaas.scheduler.requests.spec import Command, WorkloadSpec
from mlaas.scheduler.types import Gang, Resources
ray.init(log_to_driver=False, logging_level="error")
for arguments in zip(*[iter(sys.argv[1:])] * 3):
    name, cpus, script = arguments
    spec = WorkloadSpec(gang=Gang(Resources(cpus=float(cpus))), command=Command(argv=("sh", "-c", script)))
    BlockingClient().submit(spec, tenant="tests", submission_id=name)
"""


@dataclass(frozen=True)
class BareInstance:
    """The instance: head, scheduler and, if it is wanted, the gateway."""

    settings: Settings
    has_gateway: bool = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.settings.gcs_port}"

    def up(self) -> None:
        """Start what is not up, as `mlaas up` does."""
        ensure(Head(self.settings))
        parts = [Scheduler(self.settings), *([Gateway(self.settings)] if self.has_gateway else [])]
        with ThreadPoolExecutor() as pool:
            list(pool.map(ensure, parts))

    def kill(self) -> None:
        """Kill the whole head at once, as a machine that loses its power does."""
        for process in owned(self.settings.home, part="ray"):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def submit(self, *workloads: tuple[str, str, str]) -> None:
        """Submit workloads of one worker: id, CPUs and shell script of each."""
        environment = driver_environment(self.settings, address=self.address)
        command = [sys.executable, "-c", SUBMIT, *(word for workload in workloads for word in workload)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    def record(self, workload_id: str) -> WorkloadRecord:
        return WorkloadRepository(open_store(self.settings.store_url)).get(workload_id)

    def wait_for(self, workload_id: str, state: State, *, attempt: int) -> None:
        """Wait for a state of one attempt."""

        def is_there() -> bool:
            record = self.record(workload_id)
            return (record.state, record.attempt) == (state, attempt)

        wait_until(is_there, what=f"{workload_id} to be {state} in attempt {attempt}", timeout_s=60)


def bare_instance(folder: Path, *, has_gateway: bool = False) -> BareInstance:
    """Return an instance in a folder that is not up yet."""
    settings = Settings(home=folder, gateway_port=free_port(), dashboard_port=free_port(), gcs_port=free_port())
    folder.mkdir()
    migrate(settings.store_url)
    return BareInstance(settings, has_gateway)
