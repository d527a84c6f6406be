"""Many timers of one length, and what a time limit does with them."""

from __future__ import annotations

import asyncio

import pytest

from mlaas.router.alarms import Alarms, TimeLimit

DEADLINE_S = 30.0


async def test_alarms_ring_in_the_order_in_which_they_were_set() -> None:
    rung: list[str] = []
    has_ended = asyncio.Event()
    alarms = Alarms(0.01)
    alarms.set(lambda: rung.append("first"))
    alarms.set(lambda: rung.append("second"))
    await asyncio.sleep(0)
    alarms.set(has_ended.set)
    await asyncio.wait_for(has_ended.wait(), DEADLINE_S)
    assert rung == ["first", "second"]


async def test_an_alarm_that_is_called_off_does_not_ring_and_holds_up_no_other() -> None:
    rung: list[str] = []
    alarms = Alarms(0.01)
    alarms.call_off(alarms.set(lambda: rung.append("called off")))
    for _ in range(2):
        has_rung = asyncio.Event()
        number = alarms.set(has_rung.set)
        await asyncio.wait_for(has_rung.wait(), DEADLINE_S)
        alarms.call_off(number)
    assert rung == []


async def test_what_takes_longer_than_its_time_limit_is_cancelled_and_told_so() -> None:
    was_cancelled = False

    async def work() -> None:
        nonlocal was_cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled = True
            raise

    limit = TimeLimit(Alarms(0.01))
    with pytest.raises(TimeoutError), limit:
        await asyncio.wait_for(work(), DEADLINE_S)
    task = asyncio.current_task()
    assert task is not None
    assert was_cancelled
    assert not task.cancelling()


async def test_what_ends_within_its_time_limit_is_left_alone() -> None:
    alarms, has_rung = Alarms(0.01), asyncio.Event()
    with TimeLimit(alarms):
        alarms.set(has_rung.set)
    await asyncio.wait_for(has_rung.wait(), DEADLINE_S)


async def test_a_task_that_is_cancelled_by_another_is_no_timeout() -> None:
    has_begun = asyncio.Event()

    async def work() -> None:
        with TimeLimit(Alarms(DEADLINE_S)):
            has_begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
