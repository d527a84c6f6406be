"""Who yields, who does not, and what becomes of them."""

from mlaas.scheduler.live.types import Outcome
from mlaas.scheduler.requests.document import decode_spec
from mlaas.scheduler.types import Gang, Placement, Resources
from tests.fakes.live_scheduler import job


async def preempted(bench, **fields):
    """Start a job that fills the cluster, and submit one that takes its place; return both ids."""
    low = await bench.submit(gpus=4, workers=2, priority_class="low", min_runtime_s=0.0, **fields)
    await bench.settle()
    await bench.after(100.0)
    high = await bench.submit(gpus=4, workers=2, priority_class="high", estimate_s=60.0)
    await bench.settle()
    return low, high


async def test_a_preempted_job_is_asked_and_goes_on_later_without_a_failure(bench):
    low, high = await preempted(bench, restart_cost_s=5.0)
    assert [await bench.state(each) for each in (low, high)] == ["yielding", "pending"]
    assert bench.cluster.asked == [f"{low}.1"]
    assert "what yields there" in await bench.reason(high)
    bench.cluster.end(f"{low}.1", -15)
    await bench.settle()
    record = await bench.service.get(low)
    assert (record.state, record.num_failures, record.num_preemptions) == ("pending", 0, 1)
    assert record.attained_s == 101.5
    assert record.restart_owed_s == 5.0
    assert await bench.state(high) == "running"
    bench.cluster.end(f"{high}.1")
    await bench.settle()
    assert await bench.state(low) == "running"
    assert f"{low}.2" in bench.cluster.running


async def test_a_job_that_ignores_the_signal_is_killed_at_its_deadline_and_told_so(bench):
    low, high = await preempted(bench, yield_grace_s=30.0)
    await bench.after(29.0)
    assert await bench.state(low) == "yielding"
    await bench.after(1.0)
    assert await bench.state(high) == "running"
    record = await bench.service.get(low)
    assert (record.state, record.num_failures) == ("pending", 0)
    killed = [event for event in await bench.service.events(low) if event.kind == "killed"]
    assert "ignored the signal to yield for 30 s" in killed[0].text
    assert f"{low}.1" not in bench.cluster.commands


async def handed_over(bench, workload_id, *, job, **fields):
    """Start a gang whose holder makes a group of its own for it."""
    await bench.submit(command=None, submission_id=workload_id, priority_class="low", min_runtime_s=0.0, **fields)
    await bench.settle()
    await bench.service.hand_over(f"{workload_id}.1", job=job)
    await bench.settle()
    record = await bench.service.get(workload_id)
    made = (job, decode_spec(record.spec).gang, Placement(tuple((node, count) for node, count in record.placement)))
    bench.cluster.own_groups.append(made)
    return made


async def test_what_a_holder_has_made_itself_is_removed_at_its_deadline(bench):
    elsewhere = ("job of another", Gang(Resources(cpus=1)), Placement((("n0", 1),)))
    bench.cluster.own_groups.append(elsewhere)
    await handed_over(bench, "mine", job="its job", gpus=4, workers=2, yield_grace_s=20.0)
    assert not bench.cluster.groups
    high = await bench.submit(gpus=4, workers=2, priority_class="high", estimate_s=60.0)
    await bench.settle()
    await bench.after(19.0)
    assert [await bench.state(each) for each in ("mine", high)] == ["yielding", "pending"]
    assert len(bench.cluster.own_groups) == 2
    await bench.after(1.0)
    assert bench.cluster.own_groups == [elsewhere]
    assert [await bench.state(each) for each in ("mine", high)] == ["pending", "running"]


async def test_who_gives_back_may_go_on_there_as_others_do(bench):
    made = await handed_over(bench, "mine", job="its job", gpus=4)
    await bench.service.give_back("mine.1", Outcome.FINISHED)
    await bench.settle()
    assert bench.cluster.own_groups == [made]


async def test_another_gang_of_the_same_job_keeps_what_it_has_made(bench):
    first = await handed_over(bench, "first", job="the job", gpus=1, workers=2)
    second = await handed_over(bench, "second", job="the job", gpus=2)
    assert first[2] == Placement((("n0", 2),))
    assert second[2].workers[0][0] == "n0"
    third = await handed_over(bench, "third", job="the job", gpus=4)
    assert third[2].workers[0][0] == "n1"
    for each in ("first", "third"):
        await bench.service.cancel(each, tenant="ann")
    await bench.settle()
    assert bench.cluster.own_groups == [first, second], "nobody can tell the first gang's from the second's"


async def test_what_a_killed_holder_has_made_is_removed_after_a_crash_too(bench):
    await handed_over(bench, "mine", job="its job", gpus=4, workers=2, yield_grace_s=20.0)
    high = await bench.submit(gpus=4, workers=2, priority_class="high", estimate_s=60.0)
    await bench.settle()
    bench.crash_at("remove_own_groups")
    await bench.after(20.0)
    assert bench.is_dead
    await bench.bury()
    await bench.restart()
    assert not bench.cluster.own_groups
    await bench.after(5.0)
    assert [await bench.state(each) for each in ("mine", high)] == ["pending", "running"]


async def test_a_job_that_finishes_while_it_should_yield_has_succeeded(bench):
    low, high = await preempted(bench)
    bench.cluster.end(f"{low}.1", 0)
    await bench.settle()
    assert [await bench.state(each) for each in (low, high)] == ["succeeded", "running"]


async def test_nobody_else_takes_the_place_that_is_being_made(bench):
    low, high = await preempted(bench)
    thief = await bench.submit(gpus=1, priority_class="low")
    await bench.after(10.0)
    assert await bench.state(thief) == "pending"
    bench.cluster.end(f"{low}.1", -15)
    await bench.settle()
    assert [await bench.state(each) for each in (high, thief)] == ["running", "pending"]


async def test_who_the_place_is_made_for_may_go_before_it_is_there(bench):
    low, high = await preempted(bench)
    await bench.service.cancel(high, tenant="ann")
    small = await bench.submit(gpus=1)
    await bench.settle()
    assert set(bench.cluster.groups) == {f"{low}.1"}
    assert await bench.state(small) == "pending"
    bench.cluster.end(f"{low}.1", -15)
    await bench.settle()
    assert await bench.state(small) == "running"


async def test_an_elastic_gang_shrinks_for_another_and_grows_again(bench):
    async def size(workload_id):
        return sum(count for _, count in (await bench.service.get(workload_id)).placement)

    wide = await bench.submit(gpus=1, workers=2, most=8, min_runtime_s=0.0, estimate_s=1e6)
    await bench.settle()
    assert await size(wide) == 8
    await bench.after(1000.0)
    other = await bench.submit(gpus=4, estimate_s=10.0, priority_class="high")
    await bench.settle()
    assert [await bench.state(each) for each in (wide, other)] == ["yielding", "pending"]
    bench.cluster.end(f"{wide}.1", -15)
    await bench.settle()
    assert [await bench.state(each) for each in (wide, other)] == ["running", "running"]
    assert 2 <= await size(wide) <= 4
    bench.cluster.end(f"{other}.1")
    await bench.settle()
    assert await bench.state(wide) == "yielding"
    assert "goes on with 8 workers" in (await bench.service.get(wide)).reason
    bench.cluster.end(f"{wide}.2", -15)
    await bench.settle()
    assert await bench.state(wide) == "running"
    assert await size(wide) == 8
    assert (await bench.service.get(wide)).num_preemptions == 0


async def test_a_gang_moves_out_of_anothers_way_once_in_its_minimum_runtime(bench):
    filler = await bench.submit(gpus=3, preemptible=False)
    moves = await bench.submit(gpus=1, restart_cost_s=1.0, min_runtime_s=300.0, estimate_s=5e3)
    await bench.settle()
    stays = await bench.submit(gpus=1, preemptible=False)
    await bench.after(1_000.0)
    assert {await place(bench, each) for each in (filler, moves)} != {await place(bench, stays)}
    bench.cluster.end(f"{filler}.1")
    await bench.settle()
    wide = await bench.submit(gpus=4, estimate_s=1e4)
    await bench.settle()
    there = await place(bench, stays)
    told = await bench.service.get(moves)
    assert f"and moves to {there}: " in told.reason
    assert (await bench.service.watch(f"{moves}.1", after=0)).num_workers == 1
    bench.cluster.end(f"{moves}.1", -15)
    await bench.settle()
    assert [await bench.state(each) for each in (moves, wide)] == ["running", "running"]
    assert (await bench.service.get(moves)).num_preemptions == 0
    assert [event.kind for event in await bench.service.events(moves)][-3:] == ["yielded", "placed", "running"]
    bench.cluster.end(f"{wide}.1")
    await bench.settle()
    blocks = await bench.submit(gpus=3, preemptible=False)
    await bench.settle()
    await bench.submit(gpus=3, estimate_s=1e4)
    await bench.after(290.0)
    assert await place(bench, blocks) != there
    assert await bench.state(moves) == "running"
    await bench.after(20.0)
    assert await bench.state(moves) == "yielding"


async def place(bench, workload_id):
    """Return the node of a workload that has one worker."""
    return (await bench.service.get(workload_id)).placement[0][0]


async def test_an_estimate_that_is_wrong_by_100_times_ends_nothing_and_is_corrected(bench):
    long = await bench.submit(gpus=4, workers=2, estimate_s=60.0)
    await bench.settle()
    await bench.after(6_000.0)
    assert await bench.state(long) == "running"
    view = await bench.service.top()
    assert view.gangs[0].left_s > 60.0
    await bench.service.report(f"{long}.1", left_s=20.0)
    assert (await bench.service.top()).gangs[0].left_s < 60.0
    bench.cluster.end(f"{long}.1")
    await bench.settle()
    short = job(estimate_s=60.0)
    believed = bench.service.roster.ledger.history.believe(tenant="ann", name="", estimate_s=short.estimate_s)
    assert believed.log_median > 4.1
