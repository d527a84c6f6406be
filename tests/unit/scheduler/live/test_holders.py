"""Processes that ask for a gang, hold it and give it back."""

import asyncio

import pytest

from mlaas.errors import Conflict, InvalidRequest, NotFound
from mlaas.scheduler.live.types import Outcome, Signal
from mlaas.scheduler.types import Kind, Resources
from tests.fakes.live_scheduler import job


def ask(**fields):
    return job(command=None, **fields)


async def attach(bench, request, **more):
    """Ask until the gang is there."""
    for _ in range(100):
        asked = asyncio.ensure_future(bench.service.attach(request, tenant="ann", holder="pid 7", **more))
        while not asked.done():
            await bench.turn()
        ticket = await asked
        if ticket.lease_id is not None:
            return ticket
    raise AssertionError(f"it waits: {ticket.reason}")


async def next_signal(bench, lease_id):
    for _ in range(100):
        signal = await bench.service.watch(lease_id, after=0)
        if signal.number:
            return signal
    raise AssertionError("it is told nothing")


async def test_a_process_waits_for_its_turn_holds_its_gang_and_finishes(bench):
    big = await bench.submit(gpus=4, workers=2)
    await bench.settle()
    ticket = await bench.service.attach(ask(gpus=4, workers=2), tenant="ann", holder="pid 7", submission_id="mine")
    assert (ticket.workload_id, ticket.lease_id) == ("mine", None)
    assert ticket.reason
    bench.cluster.end(f"{big}.1")
    ticket = await attach(bench, "mine")
    assert (ticket.lease_id, ticket.group_name) == ("mine.1", "mlaas-mine.1")
    assert ticket.placement.num_workers == 2
    assert (await bench.service.get("mine")).holder == "pid 7"
    record = await bench.service.give_back("mine.1", Outcome.FINISHED, message="done")
    assert record.state == "succeeded"
    assert (await bench.service.give_back("mine.1", Outcome.FINISHED)).state == "succeeded"
    await bench.settle()
    assert not bench.cluster.groups


async def test_the_call_for_a_gang_may_be_repeated(bench):
    first = await attach(bench, ask(), submission_id="mine")
    again = await attach(bench, ask(), submission_id="mine")
    assert first == again
    assert len(await bench.service.list()) == 1


async def test_a_holder_is_told_to_yield_and_goes_on_under_another_lease(bench):
    await attach(bench, ask(gpus=4, workers=2, priority_class="low", min_runtime_s=0.0), submission_id="low")
    assert (await bench.service.heartbeat("low.1")).signal is Signal.GO_ON
    watching = asyncio.ensure_future(next_signal(bench, "low.1"))
    high = await bench.submit(gpus=4, workers=2, priority_class="high", estimate_s=60.0)
    await bench.settle()
    signal = await watching
    assert (signal.signal, signal.number, signal.within_s, signal.num_workers) == (Signal.YIELD, 1, 60.0, None)
    assert (await bench.service.give_back("low.1", Outcome.YIELDED)).state == "pending"
    assert (await bench.service.watch("low.1", after=1)).signal is Signal.OVER
    await bench.settle()
    assert await bench.state(high) == "running"
    bench.cluster.end(f"{high}.1")
    ticket = await attach(bench, "low")
    assert (ticket.lease_id, ticket.attempt) == ("low.2", 2)


async def test_a_lease_that_is_over_stays_over(bench):
    await attach(bench, ask(yield_grace_s=5.0), submission_id="mine")
    bench.cluster.lose_node((await bench.service.get("mine")).placement[0][0])
    await bench.settle()
    assert await bench.state("mine") == "running"
    signal = await bench.service.watch("mine.1")
    assert (signal.signal, signal.number) == (Signal.OVER, 2)
    for late in (
        bench.service.give_back("mine.1", Outcome.FINISHED),
        bench.service.report("mine.1", done=0.5),
        bench.service.hand_over("mine.1"),
        bench.service.attach("mine.1", tenant="ann", holder="pid 7"),
    ):
        with pytest.raises(Conflict, match="over"):
            await late
    assert await bench.state("mine") == "running"
    for never in ("mine.9", "mine.0", "nobody.1"):
        with pytest.raises(NotFound):
            await bench.service.watch(never)


async def test_a_process_that_dies_loses_its_gang_and_its_place_in_the_queue(bench):
    await attach(bench, ask(gpus=4, workers=2), submission_id="holds")
    await bench.service.attach(ask(gpus=4, workers=2), tenant="ann", holder="pid 8", submission_id="waits")
    for _ in range(5):
        await bench.after(10.0)
        await bench.service.heartbeat("holds.1")
    assert await bench.state("waits") == "failed"
    assert await bench.state("holds") == "running"
    for _ in range(5):
        await bench.after(10.0)
    record = await bench.service.get("holds")
    assert (record.state, "its process died" in record.reason) == ("failed", True)
    assert not bench.cluster.groups
    assert (await bench.service.heartbeat("holds.1")).signal is Signal.OVER


async def test_silence_while_the_scheduler_itself_stood_still_kills_nobody(bench):
    await attach(bench, ask(), submission_id="mine")
    await bench.after(1_000.0)
    assert await bench.state("mine") == "running"


async def test_groups_that_a_holder_makes_itself_are_its_own(bench):
    await attach(bench, ask(gpus=2), submission_id="mine")
    await bench.service.hand_over("mine.1")
    await bench.settle()
    assert not bench.cluster.groups
    node = (await bench.service.get("mine")).placement[0][0]
    bench.cluster.outside = {node: Resources(gpus=2)}
    await bench.settle()
    fits = await bench.submit(gpus=2, workers=3)
    await bench.settle()
    assert [await bench.state(each) for each in ("mine", fits)] == ["running", "running"]
    await bench.restart()
    assert await bench.state("mine") == "running"
    bench.cluster.lose_node(node)
    await bench.settle()
    assert (await bench.service.watch("mine.1")).signal is Signal.OVER


async def test_a_driver_reaches_its_gang_and_its_exit_code_decides(bench):
    driver = await bench.submit(kind=Kind.TRAIN, gpus=2)
    await bench.settle()
    assert bench.cluster.started[0][2] is Kind.TRAIN
    ticket = await attach(bench, f"{driver}.1")
    assert ticket.lease_id == f"{driver}.1"
    await bench.service.give_back(f"{driver}.1", Outcome.FINISHED)
    await bench.settle()
    assert await bench.state(driver) == "running"
    assert not bench.cluster.groups
    assert f"{driver}.1" in bench.cluster.running
    bench.cluster.end(f"{driver}.1", 0)
    await bench.settle()
    assert await bench.state(driver) == "succeeded"


async def test_a_driver_that_holds_its_gang_is_told_by_its_watch_and_not_by_a_signal(bench):
    fields = {"kind": Kind.TRAIN, "gpus": 4, "workers": 2, "priority_class": "low", "min_runtime_s": 0.0}
    driver = await bench.submit(**fields)
    await bench.settle()
    await attach(bench, f"{driver}.1")
    await bench.submit(gpus=4, workers=2, priority_class="high", estimate_s=60.0)
    await bench.settle()
    assert (await next_signal(bench, f"{driver}.1")).signal is Signal.YIELD
    assert bench.cluster.asked == []
    assert (await bench.service.give_back(f"{driver}.1", Outcome.YIELDED)).state == "pending"
    await bench.settle()
    assert f"{driver}.1" not in bench.cluster.commands


async def test_progress_says_how_long_a_run_goes_on(bench):
    await attach(bench, ask(estimate_s=10.0), submission_id="mine")
    await bench.after(10.0)
    await bench.service.report("mine.1", done=0.1)
    assert 60.0 < (await bench.service.top()).gangs[0].left_s < 140.0
    for bad in ({}, {"done": 0.0}, {"done": 2.0}, {"left_s": -1.0}, {"left_s": float("nan")}):
        with pytest.raises(InvalidRequest):
            await bench.service.report("mine.1", **bad)


async def test_another_tenant_holds_nothing_here(bench):
    await attach(bench, ask(), submission_id="mine")
    with pytest.raises(NotFound):
        await bench.service.attach("mine", tenant="bob", holder="pid 8")
    await bench.service.give_back("mine.1", Outcome.FINISHED)
    await bench.settle()
    with pytest.raises(NotFound):
        await bench.service.attach("mine", tenant="bob", holder="pid 8")
    with pytest.raises(Conflict, match="over"):
        await bench.service.attach("mine", tenant="ann", holder="pid 7")
