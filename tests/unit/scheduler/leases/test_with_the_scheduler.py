"""The client of leases against the scheduler itself, on a cluster in memory: each says what the other expects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlaas.scheduler.leases.holder import lease
from mlaas.scheduler.requests.spec import WorkloadSpec
from mlaas.scheduler.types import Kind
from tests.fakes.live_scheduler import job, node
from tests.fakes.scheduler_thread import SchedulerThread, running_scheduler
from tests.waiting import wait_until

GPUS = 2


class Blocking:
    """The verbs as calls that block, as a driver makes them."""

    def __init__(self, scheduler: SchedulerThread) -> None:
        self._scheduler = scheduler

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        method = getattr(self._scheduler.service, verb)

        def call(*args: Any, **kwargs: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(method(*args, **kwargs), self._scheduler.loop).result(30)

        return call

    def placement_group(self, name: str) -> str:
        return name


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SchedulerThread]:
    monkeypatch.delenv("MLAAS_LEASE_ID", raising=False)
    with running_scheduler(tmp_path, [node("n0", gpus=GPUS)], poll_s=0.1) as scheduler:
        yield scheduler


@pytest.fixture
def verbs(scheduler: SchedulerThread) -> Blocking:
    return Blocking(scheduler)


def asked(**fields: Any) -> WorkloadSpec:
    return job(command=None, kind=Kind.TRAIN, min_runtime_s=0.0, **fields)


def submit(verbs: Blocking, spec: WorkloadSpec) -> str:
    return verbs.submit(spec, tenant="default")[0].id


def wait_for(verbs: Blocking, workload_id: str, state: str) -> None:
    wait_until(lambda: verbs.get(workload_id).state == state, what=f"{workload_id} {state}", timeout_s=20)


def test_it_waits_behind_what_runs_says_why_and_ends_as_succeeded(scheduler: SchedulerThread, verbs: Blocking) -> None:
    running = submit(verbs, job(gpus=GPUS, preemptible=False))
    wait_for(verbs, running, "running")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 1:
            scheduler.cluster.end(f"{running}.1")

    with lease(asked(gpus=GPUS), scheduler=verbs, say=say) as gang:
        assert gang.node_ids() == ("n0",)
        gang.hand_over()
        gang.report(done=0.5)
        assert f"{gang.workload_id}.1" not in scheduler.cluster.groups
        workload_id = gang.workload_id
    assert " waits: " in said[0]
    assert verbs.get(workload_id).state == "succeeded"


def test_preempted_it_gives_back_and_goes_on_when_the_other_has_ended(
    scheduler: SchedulerThread, verbs: Blocking
) -> None:
    with lease(asked(gpus=GPUS, priority_class="low"), scheduler=verbs, say=lambda _: None) as gang:
        urgent = submit(verbs, job(gpus=GPUS, priority_class="high"))
        wait_until(gang.yield_signal, what="the signal", timeout_s=20)
        assert gang.yield_signal().new_size is None
        scheduler.cluster.on_call = lambda verb: (
            scheduler.cluster.end(f"{urgent}.1") if verb == "started_command" else None
        )
        gang.yield_and_wait()
        assert gang.attempt == 2
        assert verbs.get(urgent).state == "succeeded"
    assert verbs.get(gang.workload_id).state == "succeeded"


def test_an_elastic_gang_is_told_its_next_size_and_has_it(scheduler: SchedulerThread, verbs: Blocking) -> None:
    other = verbs.submit(job(gpus=GPUS - 1), tenant="ann")[0].id
    wait_for(verbs, other, "running")
    with lease(asked(workers=1, most=GPUS), scheduler=verbs, say=lambda _: None) as gang:
        assert gang.num_workers == 1
        verbs.cancel(other, tenant=None)
        wait_until(gang.yield_signal, what="the signal to grow", timeout_s=20)
        assert gang.yield_signal().new_size == GPUS
        gang.yield_and_wait()
        assert gang.num_workers == GPUS
        assert gang.yield_signal() is None


def test_a_command_takes_up_its_gang_whoever_its_tenant_is_and_is_started_again_after_it_has_yielded(
    scheduler: SchedulerThread, verbs: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload_id = verbs.submit(job(kind=Kind.TRAIN), tenant="ann")[0].id
    wait_for(verbs, workload_id, "running")
    monkeypatch.setenv("MLAAS_LEASE_ID", f"{workload_id}.1")

    def drive() -> None:
        with lease(scheduler=verbs, say=lambda _: None) as gang:
            assert gang.num_workers == 1
            gang.yield_and_wait()

    with pytest.raises(SystemExit):
        drive()
    wait_until(lambda: f"{workload_id}.2" in scheduler.cluster.running, what="the second attempt", timeout_s=20)


def test_cancelled_it_loses_its_gang(scheduler: SchedulerThread, verbs: Blocking) -> None:
    with lease(asked(), scheduler=verbs, say=lambda _: None) as gang:
        verbs.cancel(gang.workload_id, tenant=None)
        wait_until(lambda: gang.is_lost, what="the loss", timeout_s=20)
    assert verbs.get(gang.workload_id).state == "cancelled"
