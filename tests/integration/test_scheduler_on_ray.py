"""The live scheduler on a real Ray cluster of several raylets: placing, adopting, and losing processes and nodes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import psutil
import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mlaas.api.packing import pack
from mlaas.errors import PlatformError
from mlaas.scheduler.live.lifecycle import State
from mlaas.scheduler.on_ray.actor import SchedulerActor
from mlaas.scheduler.on_ray.groups import NODE_LABEL
from mlaas.scheduler.on_ray.packages import package_path
from mlaas.scheduler.requests.spec import Command, WorkloadSpec
from mlaas.scheduler.types import Gang, Kind, Resources, Strategy
from tests.fakes.scheduled_cluster import NODE, TENANT, ScheduledCluster, scheduled_cluster
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

RACK_A, RACK_B = (("rack", "a"),), (("rack", "b"),)
PAIR = Gang(Resources(cpus=3), 2, 2, strategy=Strategy.STRICT_SPREAD, labels=RACK_B)
"""Fits on two nodes of rack b, one worker on each."""

DRIVER = """
import ray

@ray.remote(num_cpus=0)
def ask():
    import answer
    return answer.ANSWER

ray.init(logging_level="error", log_to_driver=False)
print("the answer is", ray.get(ask.remote()))
"""


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScheduledCluster]:
    with scheduled_cluster(tmp_path_factory.mktemp("scheduler"), "a", "b", "b") as cluster:
        yield cluster


def test_each_worker_of_a_gang_runs_the_command_on_its_node_and_its_log_stays(on_ray):
    script = "echo worker $MLAAS_WORKER_RANK of $MLAAS_NUM_WORKERS at $MLAAS_MASTER_ADDR in $MLAAS_LEASE_ID"
    workload = on_ray.submit(script, PAIR)
    record = on_ray.wait_for(workload, State.SUCCEEDED)
    racks = {node["NodeID"]: node["Labels"]["rack"] for node in ray.nodes()}
    assert sorted(racks[node] for node, _ in record.placement) == ["b", "b"]
    (address,) = {node["NodeManagerAddress"] for node in ray.nodes()}
    for rank in (0, 1):
        assert on_ray.log(workload, rank=rank) == f"worker {rank} of 2 at {address} in {workload}.1\n"


def test_of_other_kinds_one_driver_is_started_and_what_it_leaves_behind_is_killed(on_ray, tmp_path):
    daemon = tmp_path / "daemon"
    script = f"setsid sh -c 'echo $$ > {daemon}; exec sleep 600' & while [ ! -s {daemon} ]; do sleep 0.1; done"
    workload = on_ray.submit(script, PAIR, kind=Kind.TRAIN)
    on_ray.wait_for(workload, State.SUCCEEDED)
    pid = int(daemon.read_text())
    wait_until(lambda: not psutil.pid_exists(pid), what="the daemon to be killed", timeout_s=10)
    assert not on_ray.log(workload, rank=1)


def test_a_command_that_fails_says_so_with_its_last_line(on_ray):
    workload = on_ray.submit("echo fine; echo out of paper >&2; exit 3", Gang(Resources(cpus=1)))
    record = on_ray.wait_for(workload, State.FAILED)
    assert record.exit_code == 3
    assert "out of paper" in record.reason


def test_a_working_directory_is_there_for_the_driver_and_for_its_tasks(on_ray, tmp_path):
    (tmp_path / "answer.py").write_text("ANSWER = 42")
    (tmp_path / "main.py").write_text(DRIVER)
    package = pack(tmp_path)
    path = package_path(on_ray.home, package.digest)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(package.archive)
    spec = WorkloadSpec(
        gang=Gang(Resources(cpus=1), labels=RACK_B),
        kind=Kind.TRAIN,
        command=Command(argv=(sys.executable, "main.py"), working_dir=package.digest),
    )
    (record,) = on_ray.client.submit(spec, tenant="tests")
    on_ray.wait_for(record.id, State.SUCCEEDED)
    assert on_ray.log(record.id).splitlines()[-1] == "the answer is 42"


def test_a_cancelled_command_is_ended_with_its_children(on_ray):
    workload = on_ray.submit("trap '' TERM; sleep 600 & echo $!; wait; sleep 600", Gang(Resources(cpus=1)))
    wait_until(lambda: on_ray.log(workload), what="the command's first line", timeout_s=30)
    child = int(on_ray.log(workload))
    on_ray.client.cancel(workload, tenant=None)
    on_ray.wait_for(workload, State.CANCELLED)
    wait_until(lambda: not psutil.pid_exists(child), what="the command's child to die", timeout_s=10)


def test_a_killed_scheduler_is_back_and_what_ran_goes_on_once(on_ray, tmp_path):
    script = f"echo $$ >> {tmp_path}/starts; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; echo over"
    running = on_ray.submit(script, Gang(Resources(cpus=1)))
    ended = on_ray.submit(f"while [ ! -e {tmp_path}/quick ]; do sleep 0.02; done; echo x >> {tmp_path}/ended", PAIR)
    on_ray.wait_for(running, State.RUNNING)
    on_ray.wait_for(ended, State.RUNNING)
    (scheduler,) = on_ray.processes("SchedulerActor")
    scheduler.kill()
    (tmp_path / "quick").touch()
    on_ray.wait_for(ended, State.SUCCEEDED, attempt=1)
    on_ray.wait_for(running, State.RUNNING, attempt=1)
    (tmp_path / "go").touch()
    on_ray.wait_for(running, State.SUCCEEDED, attempt=1)
    assert len((tmp_path / "starts").read_text().split()) == 1
    assert (tmp_path / "ended").read_text().split() == ["x", "x"]


def test_commands_die_with_their_launcher_and_are_queued_again(on_ray, tmp_path):
    script = f"echo $$; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
    workload = on_ray.submit(script, Gang(Resources(cpus=1), labels=RACK_A))
    wait_until(lambda: on_ray.log(workload), what="the command's first line", timeout_s=30)
    first = int(on_ray.log(workload))
    launchers = on_ray.processes("Launcher")
    for launcher in launchers:
        launcher.kill()
    wait_until(lambda: not psutil.pid_exists(first), what="the command to die", timeout_s=10)
    record = on_ray.wait_for(workload, State.RUNNING, attempt=2)
    assert record.num_failures == 0
    (tmp_path / "go").touch()
    on_ray.wait_for(workload, State.SUCCEEDED, attempt=2)


def test_of_two_schedulers_the_named_one_leads_and_nothing_runs_twice(on_ray, tmp_path):
    script = f"echo $$ >> {tmp_path}/starts; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
    running = on_ray.submit(script, Gang(Resources(cpus=1)))
    on_ray.wait_for(running, State.RUNNING)
    (first,) = on_ray.processes("SchedulerActor")
    second = ray.remote(SchedulerActor).options(num_cpus=0, max_restarts=-1).remote()
    wait_until(lambda: len(on_ray.processes("SchedulerActor")) == 2, what="the second scheduler", timeout_s=30)
    command = Command(argv=("sh", "-c", f"echo $$ >> {tmp_path}/later"))
    spec = WorkloadSpec(gang=Gang(Resources(cpus=1)), command=command)

    def is_accepted() -> bool:
        with contextlib.suppress(PlatformError):
            on_ray.client.submit(spec, tenant=TENANT, submission_id="later")
            return on_ray.processes("SchedulerActor") == [first]
        return False

    wait_until(is_accepted, what="the named scheduler to be alone", timeout_s=40)
    del second
    on_ray.wait_for("later", State.SUCCEEDED, attempt=1)
    (tmp_path / "go").touch()
    on_ray.wait_for(running, State.SUCCEEDED, attempt=1)
    assert len((tmp_path / "starts").read_text().split()) == len((tmp_path / "later").read_text().split()) == 1


@pytest.mark.parametrize("gpus", [(1.0, 1.0), (1.0, 0.5, 0.5)])
def test_a_command_sees_the_gpus_of_its_gang_and_no_others(on_ray, tmp_path, gpus):
    script = f"echo $CUDA_VISIBLE_DEVICES; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
    workloads = [on_ray.submit(script, Gang(Resources(gpus=amount), labels=RACK_A)) for amount in gpus]
    for workload in workloads:
        wait_until(lambda: on_ray.log(workload), what="the command's first line", timeout_s=30)  # noqa: B023
    whole, *others = [on_ray.log(workload).strip() for workload in workloads]
    assert {whole, others[0]} == {"0", "1"}
    assert len(set(others)) == 1, "halves share a device"
    (tmp_path / "go").touch()
    for workload in workloads:
        on_ray.wait_for(workload, State.SUCCEEDED)


def test_a_group_that_no_lease_knows_is_removed(on_ray):
    leaked = placement_group([{"CPU": 1}], name="mlaas-nobody.1", lifetime="detached")
    assert leaked.wait(10)
    wait_until(lambda: placement_group_table(leaked)["state"] == "REMOVED", what="the leak to go", timeout_s=30)


def test_of_a_gang_that_was_handed_over_what_its_job_has_made_there_is_removed_with_it(on_ray):
    ticket = on_ray.client.attach(WorkloadSpec(gang=PAIR), tenant=TENANT, holder="this test")
    wait_until(lambda: on_ray.client.get(ticket.workload_id).state == State.RUNNING, what="the gang", timeout_s=30)
    ticket = on_ray.client.attach(ticket.workload_id, tenant=TENANT, holder="this test")
    on_ray.client.hand_over(ticket.lease_id)
    (there, _), (_, _) = ticket.placement.workers
    (elsewhere,) = [node["NodeID"] for node in ray.nodes() if node["Labels"]["rack"] == "a"]
    own, other = (
        placement_group([{"CPU": 1}], bundle_label_selector=[{NODE_LABEL: node}]) for node in (there, elsewhere)
    )
    assert own.wait(30)
    assert other.wait(30)
    on_ray.client.cancel(ticket.workload_id, tenant=TENANT)
    wait_until(lambda: placement_group_table(own)["state"] == "REMOVED", what="the job's group to go", timeout_s=30)
    assert placement_group_table(other)["state"] == "CREATED"
    remove_placement_group(other)


def outside_of(on_ray: ScheduledCluster, name: str) -> dict[str, float]:
    (node,) = [node for node in on_ray.client.top().nodes if node.name == name]
    return dict(node.outside)


@ray.remote(num_cpus=3)
class Squatter:
    """Plain Ray work that has not asked the scheduler."""

    def ping(self) -> None:
        """Answer."""


def test_what_runs_without_the_scheduler_is_used_capacity(on_ray):
    (head,) = [node["NodeID"] for node in ray.nodes() if node["Labels"]["rack"] == "a" and node["Alive"]]
    squatter = Squatter.options(scheduling_strategy=NodeAffinitySchedulingStrategy(head, soft=False)).remote()
    ray.get(squatter.ping.remote())
    wait_until(lambda: outside_of(on_ray, head) == {"CPU": 3}, what="outside use", timeout_s=20)
    workload = on_ray.submit("true", Gang(Resources(cpus=2), labels=RACK_A))
    fits = on_ray.submit("true", Gang(Resources(cpus=1), labels=RACK_A))
    on_ray.wait_for(fits, State.SUCCEEDED)
    assert on_ray.record(workload).state == State.PENDING
    ray.kill(squatter)
    on_ray.wait_for(workload, State.SUCCEEDED)


def test_a_gang_that_loses_a_node_is_queued_whole_and_placed_elsewhere(on_ray, tmp_path):
    script = f"echo $$ >> {tmp_path}/pids; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
    workload = on_ray.submit(script, PAIR)
    pids = tmp_path / "pids"
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, what="both workers", timeout_s=30)
    old = [int(word) for word in pids.read_text().split()]
    lost = next(iter(on_ray.cluster.worker_nodes))
    on_ray.cluster.remove_node(lost, allow_graceful=False)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in old), what="the whole gang to die", timeout_s=30)
    on_ray.wait_for(workload, State.PENDING)
    on_ray.cluster.add_node(**NODE, labels={"rack": "b"})
    record = on_ray.wait_for(workload, State.RUNNING, attempt=2)
    assert record.num_failures == 0
    (tmp_path / "go").touch()
    on_ray.wait_for(workload, State.SUCCEEDED, attempt=2)
