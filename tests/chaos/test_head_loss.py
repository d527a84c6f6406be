"""The head is lost while another machine goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from mlaas.platform.head import MIN_LOGICAL_CPUS, WorkerNode, ray_temp_dir
from mlaas.platform.instance import create_first_keys, down
from mlaas.platform.parts import ensure
from mlaas.platform.processes import owned
from mlaas.scheduler.live.lifecycle import State
from tests.fakes.bare_instance import BareInstance, bare_instance
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[BareInstance, WorkerNode]]:
    """An instance, and a node that has joined it."""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    head, other = bare_instance(tmp_path / "head", has_gateway=True), bare_instance(tmp_path / "node")
    node = WorkerNode(other.settings, address=head.address)
    try:
        head.up()
        ensure(node)
        yield head, node
    finally:
        for instance in (other, head):
            down(instance.settings)
            assert owned(instance.settings.home) == []


def answers(instance: BareInstance) -> bool:
    """Tell whether the gateway knows this machine's own key, which is in the store of the head's machine."""
    key = instance.settings.credentials_path.read_text()
    headers = {"authorization": f"Bearer {key}"}
    return httpx.get(f"{instance.settings.gateway_url}/v1/models", headers=headers, timeout=10).is_success


def test_what_runs_on_other_machines_is_adopted_by_the_head_that_is_back_and_its_gateway_answers(machines, tmp_path):
    head, node = machines
    create_first_keys(head.settings)
    cores, names = os.cpu_count() or 1, ("one", "two")
    whole_nodes = {"one": max(MIN_LOGICAL_CPUS, cores), "two": cores}
    for name in names:
        script = f"echo $$ >> {tmp_path}/{name}; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
        head.submit((name, str(whole_nodes[name]), script))
        head.wait_for(name, State.RUNNING, attempt=1)
        wait_until((tmp_path / name).exists, what=f"{name} to run", timeout_s=30)
    processes = {name: psutil.Process(int((tmp_path / name).read_text())) for name in names}

    head.kill()
    wait_until(lambda: not all(it.is_running() for it in processes.values()), what="the head's command to die")
    (adopted,) = (name for name in names if processes[name].is_running())
    (lost,) = {*names} - {adopted}
    # Both machines are one here, and `ray start` takes the node's raylet for a head that it must not start twice.
    (ray_temp_dir(head.settings) / "ray_current_cluster").unlink()
    head.up()

    head.wait_for(lost, State.RUNNING, attempt=2)
    head.wait_for(adopted, State.RUNNING, attempt=1)
    assert node.probe().ok
    wait_until(lambda: answers(head), what="the gateway to answer", timeout_s=60)
    assert processes[adopted].is_running()
    (tmp_path / "go").touch()
    head.wait_for(lost, State.SUCCEEDED, attempt=2)
    head.wait_for(adopted, State.SUCCEEDED, attempt=1)
    assert [len((tmp_path / name).read_text().split()) for name in (adopted, lost)] == [1, 2]
