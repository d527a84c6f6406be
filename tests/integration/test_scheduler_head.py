"""The whole head is killed, and brought up again: the queue goes on, nothing is lost, and nothing runs twice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mlaas.platform.head import Head, driver_environment
from mlaas.platform.instance import down
from mlaas.platform.parts import ensure
from mlaas.platform.processes import free_port, owned
from mlaas.platform.scheduler import Scheduler
from mlaas.scheduler.live.lifecycle import State
from mlaas.settings import Settings, ray_token_path
from mlaas.store.engine import migrate, open_store
from mlaas.store.workloads import WorkloadRepository
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

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


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """An instance whose head and scheduler are up, and nothing else."""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    settings = Settings(
        home=tmp_path / "home", gateway_port=free_port(), dashboard_port=free_port(), gcs_port=free_port()
    )
    settings.home.mkdir()
    migrate(settings.store_url)
    try:
        _up(settings)
        yield settings
    finally:
        down(settings)
        assert owned(settings.home) == []


def test_a_head_that_was_killed_goes_on_with_the_queue(settings, tmp_path):
    go, starts, done = tmp_path / "go", tmp_path / "starts", tmp_path / "done"
    waits = f"echo $$ >> {starts}; while [ ! -e {go} ]; do sleep 0.1; done"
    _submit(settings, ("ended", "1", f"echo once >> {done}"), ("running", "8", waits), ("waiting", "8", "true"))
    _wait_for(settings, "ended", State.SUCCEEDED, attempt=1)
    _wait_for(settings, "running", State.RUNNING, attempt=1)
    wait_until(starts.exists, what="the command to run")
    (first,) = starts.read_text().split()

    for process in owned(settings.home, part="ray"):
        process.kill()
    wait_until(lambda: not psutil.pid_exists(int(first)), what="the command to die with its head", timeout_s=10)
    assert not Head(settings).probe().ok
    assert not Scheduler(settings).probe().ok
    _up(settings)

    _wait_for(settings, "running", State.RUNNING, attempt=2)
    go.touch()
    _wait_for(settings, "running", State.SUCCEEDED, attempt=2)
    _wait_for(settings, "waiting", State.SUCCEEDED, attempt=1)
    wait_until(lambda: len(starts.read_text().split()) == 2, what="the second start")
    assert done.read_text() == "once\n"
    assert ray_token_path().exists()


def _up(settings: Settings) -> None:
    for part in (Head(settings), Scheduler(settings)):
        ensure(part)


def _submit(settings: Settings, *workloads: tuple[str, str, str]) -> None:
    environment = driver_environment(settings, address=f"127.0.0.1:{settings.gcs_port}")
    arguments = [word for workload in workloads for word in workload]
    done = subprocess.run(
        [sys.executable, "-c", SUBMIT, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _wait_for(settings: Settings, workload_id: str, state: State, *, attempt: int) -> None:
    repository = WorkloadRepository(open_store(settings.store_url))

    def is_there() -> bool:
        record = repository.get(workload_id)
        return (record.state, record.attempt) == (state, attempt)

    wait_until(is_there, what=f"{workload_id} to be {state} in attempt {attempt}", timeout_s=60)
