"""What users see of the live scheduler."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from mlaas.errors import AdmissionError, ConfigError, Conflict, NotFound
from mlaas.scheduler.requests.queues import QueuesDocument
from mlaas.scheduler.requests.spec import Retries
from mlaas.scheduler.types import Queue, Resources
from tests.fakes.live_scheduler import job, node


async def test_a_job_runs_to_its_end(bench):
    job_id = await bench.submit()
    await bench.settle()
    assert await bench.state(job_id) == "running"
    assert list(bench.cluster.running) == [f"{job_id}.1"]
    bench.cluster.end(f"{job_id}.1")
    await bench.settle()
    assert await bench.state(job_id) == "succeeded"
    assert not bench.cluster.groups
    assert not bench.cluster.commands
    assert await bench.kinds(job_id) == ["submitted", "placed", "running", "succeeded"]


async def test_what_does_not_fit_waits_with_a_reason_until_it_does(bench):
    first = await bench.submit(gpus=4, workers=2)
    await bench.settle()
    second = await bench.submit(gpus=4)
    assert "does not fit" in await bench.reason(second)
    bench.cluster.end(f"{first}.1")
    await bench.settle()
    assert await bench.state(second) == "running"


async def test_the_end_of_a_command_is_taken_in_without_a_look_at_the_cluster(bench):
    job_id = await bench.submit()
    await bench.settle()
    await bench.service.command_ended(bench.cluster.end(f"{job_id}.1"))
    await bench.service.loop.turn()
    assert await bench.state(job_id) == "succeeded"


async def test_the_same_submission_is_accepted_once(bench):
    first = await bench.service.submit(job(name="a"), tenant="ann", submission_id="x")
    assert await bench.service.submit(job(name="a"), tenant="ann", submission_id="x") == first
    with pytest.raises(Conflict, match="choose another id"):
        await bench.service.submit(job(name="b"), tenant="ann", submission_id="x")
    with pytest.raises(Conflict, match="choose another id"):
        await bench.service.submit(job(name="a"), tenant="bob", submission_id="x")
    await bench.settle()
    bench.cluster.end("x.1")
    await bench.settle()
    (ended,) = await bench.service.submit(job(name="a"), tenant="ann", submission_id="x")
    assert ended.state == "succeeded"
    assert [lease for lease, _, _ in bench.cluster.started] == ["x.1"]


async def test_one_of_many_submissions_at_once_that_is_a_duplicate_spoils_no_other(bench):
    await bench.service.submit(job(name="first"), tenant="ann", submission_id="s-3")
    results = await asyncio.gather(
        *(bench.service.submit(job(name="later"), tenant="ann", submission_id=f"s-{number}") for number in range(6)),
        return_exceptions=True,
    )
    assert [isinstance(result, Conflict) for result in results] == [False, False, False, True, False, False]
    assert len(await bench.service.list()) == 6


async def test_what_could_never_run_is_refused_and_not_stored(bench):
    with pytest.raises(AdmissionError, match="has 2"):
        await bench.submit(gpus=4, workers=3)
    with pytest.raises(AdmissionError, match="no queue"):
        await bench.submit(queue="nowhere")
    with pytest.raises(AdmissionError, match="priority class"):
        await bench.submit(priority_class="royal")
    with pytest.raises(AdmissionError, match="cannot be an id"):
        await bench.submit(submission_id="a.1")
    assert await bench.service.list() == []


async def test_an_array_is_a_workload_for_each_index(bench):
    records = await bench.service.submit(job(array=(0, 1, 5)), tenant="ann", submission_id="many")
    assert [record.id for record in records] == ["many-0", "many-1", "many-5"]
    await bench.settle()
    assert {dict(command.environment)["MLAAS_ARRAY_INDEX"] for _, command, _ in bench.cluster.started} == {
        "0",
        "1",
        "5",
    }
    after = await bench.submit(depends_on=("many",))
    assert (await bench.reason(after)).startswith("held back")
    for index in (0, 1):
        bench.cluster.end(f"many-{index}.1")
    await bench.settle()
    assert await bench.state(after) == "pending"
    await bench.service.cancel("many", tenant="ann")
    await bench.settle()
    assert [(await bench.state(record.id)) for record in records] == ["succeeded", "succeeded", "cancelled"]
    assert await bench.state(after) == "failed"


async def test_a_workload_starts_once_its_dependencies_have_succeeded(bench):
    first, second = await bench.submit(), await bench.submit()
    third = await bench.submit(depends_on=(first, second))
    await bench.settle()
    assert set(bench.cluster.running) == {f"{first}.1", f"{second}.1"}
    bench.cluster.end(f"{first}.1")
    await bench.settle()
    assert (await bench.reason(third)) == f"held back until these have succeeded: {second}"
    bench.cluster.end(f"{second}.1")
    await bench.settle()
    assert await bench.state(third) == "running"


async def test_what_waits_for_a_failure_fails_with_the_reason_to_the_end_of_the_chain(bench):
    first = await bench.submit()
    second = await bench.submit(depends_on=(first,))
    third = await bench.submit(depends_on=(second,))
    await bench.settle()
    bench.cluster.end(f"{first}.1", 3, "out of disk")
    await bench.settle()
    assert [await bench.state(each) for each in (first, second, third)] == ["failed"] * 3
    assert "exit code 3, last line: out of disk" in (await bench.service.get(second)).reason
    assert second in (await bench.service.get(third)).reason


async def test_dependencies_that_cannot_be_met_are_refused(bench):
    other = await bench.submit(tenant="bob")
    failed = await bench.submit()
    await bench.service.cancel(failed, tenant="ann")
    with pytest.raises(AdmissionError, match="does not exist"):
        await bench.submit(depends_on=("nothing",))
    with pytest.raises(AdmissionError, match="does not exist"):
        await bench.submit(depends_on=(other,))
    with pytest.raises(AdmissionError, match="cancelled"):
        await bench.submit(depends_on=(failed,))
    with pytest.raises(AdmissionError, match="wait for each other"):
        await bench.submit(depends_on=("me",), submission_id="me")
    with pytest.raises(AdmissionError, match="wait for each other"):
        await bench.submit(depends_on=("us-1",), array=(0, 1), submission_id="us")


async def test_a_failure_is_tried_again_with_doubling_back_off_and_then_final(bench):
    job_id = await bench.submit(retries=Retries(max_retries=2, backoff_s=10.0))
    for attempt, wait_s in ((1, 10.0), (2, 20.0)):
        await bench.settle()
        bench.cluster.end(f"{job_id}.{attempt}", 1)
        await bench.settle()
        record = await bench.service.get(job_id)
        assert (record.state, record.num_failures) == ("pending", attempt)
        assert f"retry {attempt} of 2 in {wait_s:g} s" in record.reason
        await bench.after(wait_s - 1.0)
        assert await bench.state(job_id) == "pending"
        await bench.after(1.0)
        assert await bench.state(job_id) == "running"
    bench.cluster.end(f"{job_id}.3", 1)
    await bench.settle()
    assert await bench.state(job_id) == "failed"
    assert "no retry is left of 2" in (await bench.service.get(job_id)).reason


async def test_tenants_do_not_see_each_other(bench):
    job_id = await bench.submit(tenant="ann")
    for verb in (bench.service.get, bench.service.events, bench.service.explain, bench.service.cancel):
        with pytest.raises(NotFound):
            await verb(job_id, tenant="bob")
    assert await bench.service.list(tenant="bob") == []
    assert (await bench.service.get(job_id)).tenant == "ann"


async def test_queues_are_replaced_while_work_runs(bench):
    job_id = await bench.submit()
    await bench.settle()
    document = QueuesDocument(queues=(Queue("default"), Queue("research", guarantee=(("GPU", 4.0),))))
    applied = await bench.service.apply_queues(document, is_dry_run=True)
    assert [change.subject for change in applied.changes] == ["queue research"]
    assert applied.warnings == ()
    with pytest.raises(AdmissionError):
        await bench.submit(queue="research")
    await bench.service.apply_queues(document, is_dry_run=False, by="key k of ops")
    assert bench.store.latest_queues().applied_by == "key k of ops"
    other = await bench.submit(queue="research")
    await bench.restart()
    assert [await bench.state(each) for each in (job_id, other)] == ["running", "running"]
    only_default = QueuesDocument(queues=(Queue("default"),))
    with pytest.raises(Conflict, match="research"):
        await bench.service.apply_queues(only_default, is_dry_run=False)
    bench.cluster.end(f"{other}.1")
    await bench.settle()
    assert (await bench.service.apply_queues(only_default, is_dry_run=False)).changes
    assert (await bench.service.apply_queues(only_default, is_dry_run=False)).changes == ()


async def test_guarantees_beyond_the_nodes_that_are_there_are_a_warning_and_contradictions_a_refusal(bench):
    beyond = QueuesDocument(queues=(Queue("default", guarantee=(("GPU", 100.0),)),))
    for is_dry_run in (True, False):
        applied = await bench.service.apply_queues(beyond, is_dry_run=is_dry_run)
        assert [text.partition(" now; ")[0] for text in applied.warnings] == [
            "queues are guaranteed 100 GPUs, and the cluster has 8 GPUs"
        ]
    job_id = await bench.submit(gpus=4, workers=2)
    await bench.settle()
    assert await bench.state(job_id) == "running"
    cohort = Queue("company", guarantee=(("GPU", 4.0),))
    with pytest.raises(ConfigError, match="guaranteed 8 GPU, which has 4"):
        await bench.service.apply_queues(
            QueuesDocument(queues=(cohort, Queue("default", "company", guarantee=(("GPU", 8.0),)))), is_dry_run=True
        )


async def test_a_class_that_is_kept_for_others_is_refused_and_never_recommended(bench):
    with pytest.raises(AdmissionError, match="'serving' is not for tenant ann; ann may use low, normal, high"):
        await bench.submit(priority_class="serving")
    await bench.submit(gpus=4, workers=2, tenant="serving", priority_class="serving")
    await bench.settle()
    waits = await bench.submit(gpus=4, priority_class="high")
    await bench.settle()
    assert not any("priority class" in line for line in (await bench.service.explain(waits)).lines())


async def test_the_same_submission_again_returns_what_is_there_whatever_has_changed_since(bench):
    spec = job(deadline_at=bench.time.clock.now() + timedelta(hours=1), queue="night")
    night = QueuesDocument(queues=(Queue("default"), Queue("night")))
    await bench.service.apply_queues(night, is_dry_run=False)
    await bench.service.submit(spec, tenant="ann", submission_id="x")
    await bench.settle()
    bench.cluster.end("x.1")
    await bench.settle()
    await bench.after(7_200.0)
    await bench.service.apply_queues(QueuesDocument(), is_dry_run=False)
    (again,) = await bench.service.submit(spec, tenant="ann", submission_id="x")
    assert (again.id, again.state) == ("x", "succeeded")
    with pytest.raises(AdmissionError, match="is not in the future"):
        await bench.service.submit(spec, tenant="ann", submission_id="y")


async def test_an_index_of_an_array_names_only_itself_and_the_array_is_the_same_again(bench):
    spec = job(array=(0, 2, 7))
    records = await bench.service.submit(spec, tenant="ann", submission_id="a")
    assert [record.spec["array"] for record in records] == [[0], [2], [7]]
    again = await bench.service.submit(spec, tenant="ann", submission_id="a")
    assert [record.id for record in again] == ["a-0", "a-2", "a-7"]
    with pytest.raises(Conflict):
        await bench.service.submit(replace(spec, array=(0, 2)), tenant="ann", submission_id="a")


async def test_a_workload_is_explained_planned_and_seen(bench):
    big = await bench.submit(gpus=4, workers=2)
    await bench.settle()
    waits = await bench.submit(gpus=4)
    held = await bench.submit(depends_on=(big,))
    await bench.settle()
    assert (await bench.service.explain(waits)).queued is not None
    assert (await bench.service.explain(held)).held_back
    assert (await bench.service.explain(big)).running is not None
    plan = await bench.service.plan(job(gpus=4), tenant="ann")
    assert plan.refusal is None
    assert plan.queued is not None
    assert not plan.queued.starts_now
    assert len((await bench.service.top()).nodes) == 2
    await bench.service.cancel(waits, tenant="ann")
    assert (await bench.service.explain(waits)).state == "cancelled"


async def test_what_runs_without_the_scheduler_is_used_capacity(bench):
    bench.cluster.outside = {"n0": Resources(gpus=4), "n1": Resources(gpus=1)}
    await bench.settle()
    big, small = await bench.submit(gpus=4), await bench.submit(gpus=3)
    await bench.settle()
    assert [await bench.state(each) for each in (big, small)] == ["pending", "running"]
    bench.cluster.outside = {}
    await bench.settle()
    assert await bench.state(big) == "running"


async def test_a_node_that_comes_takes_what_waits(bench):
    await bench.submit(gpus=4, workers=2)
    await bench.settle()
    waits = await bench.submit(gpus=4)
    await bench.settle()
    bench.cluster.nodes["n2"] = node("n2")
    await bench.settle()
    assert (await bench.service.get(waits)).placement == [["n2", 1]]


async def test_a_turn_with_nothing_to_do_writes_nothing_and_decides_nothing(bench):
    await bench.submit()
    await bench.settle()
    calls = []
    bench.store._write = lambda *args, **kwargs: calls.append(args)
    bench.cluster.on_call = calls.append
    for _ in range(5):
        await bench.service.loop.turn()
    assert calls == []
