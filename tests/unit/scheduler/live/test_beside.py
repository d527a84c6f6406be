"""What is asked of a scheduler takes little of its loop's time."""

import asyncio
import time
from itertools import pairwise

from mlaas.errors import PlatformError
from mlaas.scheduler.live.service import MOST_ASKING
from tests.fakes.live_scheduler import job

ASKING = 8


async def test_the_end_of_a_large_array_does_not_hold_up_what_else_is_asked(bench, monkeypatch):
    for module in ("service", "writer"):
        monkeypatch.setattr(f"mlaas.scheduler.live.{module}.MOST_IN_A_ROW", 25)
    await bench.service.submit(job(array=tuple(range(500))), tenant="ann", submission_id="large")
    lives = bench.service.roster.lives
    cancelling = asyncio.create_task(bench.service.cancel("large", tenant="ann"))
    seen = [(0, 500)]
    while not cancelling.done():
        await asyncio.sleep(0.0)
        seen.append((sum(live.state.is_final for live in lives.values()), len(lives)))
    assert (await cancelling).state == "cancelled"
    assert max(after - before for (before, _), (after, _) in pairwise(seen)) <= 25
    assert max(before - after for (_, before), (_, after) in pairwise(seen)) <= 25


async def test_however_many_ask_for_reasons_a_turn_waits_for_one_of_them_at_most(bench):
    """By processor time, which does not depend on what else runs here: all of this process over the loop's own."""
    array = await bench.service.submit(job(estimate_s=1e5, array=tuple(range(150))), tenant="ann")
    await bench.settle()
    asking = [asyncio.create_task(bench.service.explain(record.id)) for record in array[-ASKING:]]
    all_s = own_s = 0.0
    while own_s < 0.3 and not all(task.done() for task in asking):
        bench.service.roster.has_changed = True
        began_all_s, began_own_s = time.process_time(), time.thread_time()
        await bench.service.loop.turn()
        all_s += time.process_time() - began_all_s
        own_s += time.thread_time() - began_own_s
    told = [task for task in asking if task.done()]
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert len(told) < ASKING
    assert all_s < 4.0 * own_s


async def test_more_than_can_be_answered_in_time_are_told_to_come_back(bench):
    [record] = await bench.service.submit(job(), tenant="ann")
    asking = [bench.service.explain(record.id) for _ in range(2 * MOST_ASKING)]
    told = await asyncio.gather(*asking, return_exceptions=True)
    refused = [each for each in told if isinstance(each, PlatformError)]
    assert len(refused) == MOST_ASKING
    assert {(error.code, error.retry_after_s is not None) for error in refused} == {("scheduler_busy", True)}
    assert await bench.service.explain(record.id)
