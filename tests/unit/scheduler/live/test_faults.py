"""What goes wrong, and what must not come of it."""

import asyncio

import pytest

from mlaas.errors import Conflict, PlatformError
from mlaas.scheduler.live.types import Outcome
from mlaas.scheduler.types import Resources
from tests.fakes.live_scheduler import START_S, job

STATES = ("held back", "pending", "backing off", "starting", "running", "yielding", "succeeded", "failed", "cancelled")


async def in_state(bench, state):
    """Bring a workload into a state and return its id."""
    fields = {"gpus": 4, "workers": 2, "submission_id": "it", "priority_class": "low", "min_runtime_s": 0.0}
    if state == "pending":
        await bench.submit(gpus=4, workers=2)
        await bench.settle()
    if state == "held back":
        fields["depends_on"] = (await bench.submit(),)
    if state == "starting":
        bench.cluster.on_call = lambda verb: setattr(bench.cluster, "is_down", verb == "make_group")
    if state == "backing off":
        bench.cluster.refusals = 1
    await bench.submit(**fields)
    await bench.settle()
    if state == "yielding":
        await bench.submit(gpus=4, workers=2, priority_class="high", estimate_s=60.0)
    if state in ("succeeded", "failed"):
        bench.cluster.end("it.1", 0 if state == "succeeded" else 1)
    if state == "cancelled":
        await bench.service.cancel("it", tenant="ann")
    await bench.settle()
    bench.cluster.on_call = lambda _verb: None
    bench.cluster.is_down = False
    return "it"


@pytest.mark.parametrize("state", STATES)
async def test_a_workload_is_cancelled_in_every_state(bench, state):
    workload_id = await in_state(bench, state)
    before = await bench.service.get(workload_id)
    assert before.state == {"held back": "pending", "backing off": "pending"}.get(state, state)
    after = await bench.service.cancel(workload_id, tenant=None)
    assert after.state == (state if state in ("succeeded", "failed") else "cancelled")
    assert await bench.service.cancel(workload_id, tenant="ann") == after
    await bench.after(100.0)
    assert not [lease for lease in bench.cluster.groups if lease.startswith("it.")]
    assert not [lease for lease in bench.cluster.commands if lease.startswith("it.")]
    assert await bench.service.get(workload_id) == after


async def test_a_store_that_is_down_refuses_submissions_and_lets_work_run(bench):
    running, ending = await bench.submit(), await bench.submit()
    await bench.settle()
    bench.store.is_down = True
    with pytest.raises(PlatformError) as refused:
        await bench.submit(submission_id="new")
    assert refused.value.retry_after_s > 0.0
    bench.cluster.end(f"{ending}.1")
    await bench.after(60.0)
    assert [await bench.state(each) for each in (running, ending)] == ["running", "running"]
    assert set(bench.cluster.groups) == {f"{running}.1", f"{ending}.1"}
    bench.store.is_down = False
    await bench.after(5.0)
    assert [await bench.state(each) for each in (running, ending)] == ["running", "succeeded"]
    assert [record.id for record in await bench.service.list() if record.id == "new"] == []
    await bench.submit(submission_id="new")
    await bench.settle()
    assert await bench.state("new") == "running"


async def test_nothing_is_placed_that_the_store_does_not_know(bench):
    waits = await bench.submit()
    bench.store.is_down = True
    await bench.after(10.0)
    assert not bench.cluster.groups
    bench.store.is_down = False
    await bench.after(5.0)
    assert await bench.state(waits) == "running"


async def test_a_submission_whose_answer_was_lost_is_there_once(bench):
    bench.store.loses_answers = True
    with pytest.raises(PlatformError):
        await bench.submit(submission_id="lost")
    bench.store.loses_answers = False
    bench.time.advance(5.0)
    assert await bench.submit(submission_id="lost") == "lost"
    await bench.settle()
    assert await bench.state("lost") == "running"


async def test_a_submission_whose_answer_was_lost_runs_even_if_nobody_asks_again(bench):
    bench.store.loses_answers = True
    with pytest.raises(PlatformError):
        await bench.submit(submission_id="lost")
    bench.store.loses_answers = False
    running = asyncio.ensure_future(bench.service.run())
    bench.time.advance(5.0)
    for _ in range(200):
        if "lost.1" in bench.cluster.running:
            break
        await asyncio.sleep(0.01)
    assert "lost.1" in bench.cluster.running
    await bench.service.stop()
    await running


async def test_a_change_whose_answer_was_lost_is_not_done_twice(bench):
    job_id = await bench.submit()
    bench.store.loses_answers = True
    await bench.settle()
    bench.store.loses_answers = False
    for _ in range(3):
        await bench.after(5.0)
    assert await bench.state(job_id) == "running"
    assert [lease for lease, _, _ in bench.cluster.started] == [f"{job_id}.1"]
    assert (await bench.service.get(job_id)).attempt == 1


async def test_a_give_back_while_the_store_is_down_counts_when_it_is_repeated(bench):
    await bench.submit(command=None, submission_id="mine")
    await bench.settle()
    bench.store.is_down = True
    with pytest.raises(PlatformError):
        await bench.service.give_back("mine.1", Outcome.FINISHED)
    bench.store.is_down = False
    bench.time.advance(5.0)
    assert (await bench.service.give_back("mine.1", Outcome.FINISHED)).state == "succeeded"


async def test_a_node_that_dies_takes_no_failure_and_the_gang_goes_on_elsewhere(bench):
    job_id = await bench.submit(workers=2, gpus=2)
    await bench.settle()
    (lost, _), *_ = (await bench.service.get(job_id)).placement
    bench.cluster.lose_node(lost)
    await bench.settle()
    record = await bench.service.get(job_id)
    assert (record.state, record.attempt, record.num_failures) == ("running", 2, 0)
    assert [node for node, _ in record.placement] == [name for name in ("n0", "n1") if name != lost]
    assert "lost" in await bench.kinds(job_id)
    assert list(bench.cluster.groups) == [f"{job_id}.2"]


@pytest.mark.parametrize("moment", ["make_group", "made_group", "start_command"])
async def test_a_node_that_dies_in_mid_placement_leaves_nothing_behind(bench, moment):
    def die(verb):
        if verb == moment and "n0" in bench.cluster.nodes:
            bench.cluster.lose_node("n0")

    bench.cluster.on_call = die
    gang = await bench.submit(workers=2, gpus=4)
    await bench.settle()
    assert "n0" not in bench.cluster.nodes
    small = await bench.submit(gpus=1)
    await bench.after(5.0)
    assert [await bench.state(each) for each in (gang, small)] == ["pending", "running"]
    assert (await bench.service.get(gang)).num_failures == 0
    assert {lease.partition(".")[0] for lease in bench.cluster.groups} == {small}


async def test_a_group_that_is_refused_is_asked_for_again_with_growing_pauses(bench):
    bench.cluster.refusals = 3
    job_id = await bench.submit()
    waits = []
    for _ in range(3):
        await bench.settle()
        record = await bench.service.get(job_id)
        assert "refused" in record.reason
        waits.append((record.not_before_at - bench.time.clock.now()).total_seconds())
        bench.time.advance(waits[-1])
    assert waits == [0.5, 1.0, 2.0]
    await bench.settle()
    assert await bench.state(job_id) == "running"
    assert (await bench.service.get(job_id)).num_failures == 0


async def test_a_cluster_that_does_not_answer_changes_nothing(bench):
    running = await bench.submit()
    await bench.settle()
    bench.cluster.is_down = True
    waits = await bench.submit()
    await bench.after(60.0)
    assert [await bench.state(each) for each in (running, waits)] == ["running", "pending"]
    bench.cluster.is_down = False
    await bench.settle()
    assert [await bench.state(each) for each in (running, waits)] == ["running", "running"]


async def test_a_command_whose_launcher_has_forgotten_it_is_queued_again(bench):
    job_id = await bench.submit()
    await bench.settle()
    del bench.cluster.commands[f"{job_id}.1"]
    bench.time.advance(1.0)
    await bench.settle()
    record = await bench.service.get(job_id)
    assert (record.state, record.attempt, record.num_failures) == ("running", 2, 0)


async def test_groups_of_nobody_are_removed(bench):
    await bench.cluster.make_group("nobody.3", job().gang, _anywhere())
    await bench.settle()
    assert not bench.cluster.groups


async def test_of_two_schedulers_the_first_stops_and_changes_nothing(bench):
    first = bench.service
    kept = await bench.submit()
    await bench.settle()
    await bench.restart()
    other = await bench.submit()
    await bench.settle()
    # To the first one the second one's groups are nobody's, and its own job looks as if it had ended.
    bench.cluster.end(f"{kept}.1")
    await first.loop.look()
    with pytest.raises(Conflict, match="another scheduler"):
        await first.loop.turn()
    await first.loop.executor.settle()
    assert f"{other}.1" in bench.cluster.groups
    with pytest.raises(Conflict, match="another scheduler"):
        await first.submit(job(), tenant="ann")
    with pytest.raises(Conflict, match="another scheduler"):
        await first.run()
    with pytest.raises(PlatformError, match="taken over"):
        await first.submit(job(), tenant="ann")
    await bench.settle()
    assert [await bench.state(each) for each in (kept, other)] == ["succeeded", "running"]


async def test_a_restart_takes_up_everything_where_it_was(bench):
    running = await bench.submit(gpus=2)
    driver = await bench.submit(command=None)
    await bench.settle()
    waits = await bench.submit(gpus=4, workers=2)
    held = await bench.submit(depends_on=(running,))
    ended = await bench.submit()
    await bench.settle()
    bench.cluster.end(f"{ended}.1")
    groups = dict(bench.cluster.groups)
    await bench.restart()
    bench.cluster.end(f"{running}.1")
    await bench.settle()
    states = [await bench.state(each) for each in (running, driver, waits, held, ended)]
    assert states == ["succeeded", "running", "pending", "running", "succeeded"]
    assert f"{driver}.1" in groups
    assert bench.cluster.groups[f"{driver}.1"] == groups[f"{driver}.1"]
    assert sorted(lease for lease, _, _ in bench.cluster.started) == sorted(
        f"{each}.1" for each in (running, ended, held)
    )


async def test_a_restart_in_the_middle_of_a_yield_keeps_its_deadline(bench):
    low = await in_state(bench, "yielding")
    bench.time.advance(40.0)
    await bench.restart()
    assert await bench.state(low) == "yielding"
    assert bench.cluster.asked == [f"{low}.1"] * 2
    await bench.after(21.0)
    assert "killed" in await bench.kinds(low)


async def test_a_restart_remembers_a_back_off_and_what_runs_have_taught(bench):
    taught = await bench.submit(name="nightly")
    await bench.settle()
    await bench.after(500.0)
    bench.cluster.end(f"{taught}.1")
    await bench.settle()
    bench.cluster.refusals = 1
    waits = await bench.submit()
    await bench.settle()
    before = bench.service.roster.ledger.history.believe(tenant="ann", name="nightly", estimate_s=None)
    await bench.restart()
    assert await bench.state(waits) == "pending"
    assert bench.service.roster.ledger.history.believe(tenant="ann", name="nightly", estimate_s=None) == before
    await bench.after(1.0)
    assert await bench.state(waits) == "running"


@pytest.mark.parametrize("verb", ["write", "written", "make_group", "made_group", "start_command", "started_command"])
async def test_a_crash_between_store_and_cluster_starts_nothing_twice(bench, verb):
    job_id = await bench.submit()
    bench.crash_at(verb)
    await bench.settle()
    assert bench.is_dead
    await bench.bury()
    await bench.restart()
    assert await bench.state(job_id) == "running"
    assert [lease for lease, _, _ in bench.cluster.started] == [f"{job_id}.1"]


@pytest.mark.parametrize(
    "verb", ["write", "written", "stop_command", "remove_group", "removed_group", "forget_command"]
)
async def test_a_crash_after_the_end_of_a_run_does_not_run_it_again(bench, verb):
    job_id = await bench.submit()
    await bench.settle()
    bench.cluster.end(f"{job_id}.1")
    bench.crash_at(verb)
    await bench.settle()
    assert bench.is_dead
    await bench.bury()
    await bench.restart()
    assert await bench.state(job_id) == "succeeded"
    assert [lease for lease, _, _ in bench.cluster.started] == [f"{job_id}.1"]
    assert not bench.cluster.groups
    assert not bench.cluster.commands


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
async def test_a_clock_that_jumps_ends_nothing_and_wakes_nothing(bench, jump_s):
    low = await in_state(bench, "yielding")
    await bench.submit(command=None, submission_id="waiting")
    bench.time.wall_s += jump_s
    await bench.settle()
    assert await bench.state(low) == "yielding"
    assert await bench.state("waiting") == "pending"
    await bench.after(14.0)
    assert await bench.state("waiting") == "pending"
    bench.cluster.end(f"{low}.1", -15)
    await bench.settle()
    record = await bench.service.get(low)
    assert record.attained_s < 60.0
    assert bench.service.roster.ledger.now_s < START_S + 100.0
    await bench.restart()
    assert await bench.state(low) == "pending"


async def test_what_the_cluster_did_not_answer_is_done_later_however_busy_the_loop_is(bench, monkeypatch):
    monkeypatch.setattr("mlaas.scheduler.live.loop.TICK_S", 0.01)
    job_id = await bench.submit()
    await bench.settle()
    failures = ["remove_group", "remove_group", "observe"]

    def fail(verb):
        bench.service.loop.wake()
        if verb in failures:
            failures.remove(verb)
            raise RuntimeError("an error that nobody thought of")

    bench.cluster.on_call = fail
    bench.cluster.end(f"{job_id}.1")
    running = asyncio.ensure_future(bench.service.run())
    for _ in range(500):
        if not bench.cluster.groups:
            break
        await asyncio.sleep(0.01)
    assert not bench.cluster.groups
    assert failures == []
    await bench.service.stop()
    await running


async def test_a_scheduler_with_nothing_to_do_learns_that_another_one_leads(bench):
    first = bench.service
    await bench.restart()
    bench.time.advance(10.0)
    with pytest.raises(Conflict, match="another scheduler"):
        await first.loop.turn()


async def test_use_from_outside_that_is_only_a_group_going_away_holds_nobody_up(bench):
    bench.cluster.outside = {"n0": Resources(gpus=4), "n1": Resources(gpus=4)}
    await bench.turn()
    bench.cluster.outside = {}
    job_id = await bench.submit(gpus=4, workers=2)
    await bench.settle()
    assert await bench.state(job_id) == "running"


def _anywhere():
    from mlaas.scheduler.types import Placement

    return Placement((("n0", 1),))
