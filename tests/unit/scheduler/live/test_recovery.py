"""What a scheduler that starts anew still knows, and what nobody needs to know any more."""

import asyncio

import pytest

from mlaas.errors import NotFound
from mlaas.scheduler.live import retention
from mlaas.scheduler.requests.queues import QueuesDocument
from mlaas.scheduler.types import Queue
from tests.waiting import wait_until

HALVES = QueuesDocument(queues=(Queue("default"), Queue("research", guarantee=(("GPU", 4.0),))))


async def test_what_queues_have_had_is_remembered_as_if_nothing_had_happened(bench):
    await bench.service.apply_queues(HALVES, is_dry_run=False)
    ends = await bench.submit(gpus=4, queue="research")
    await bench.submit(gpus=2, queue="default")
    await bench.after(40_000.0)
    bench.cluster.end(f"{ends}.1")
    await bench.after(20_000.0)
    before = bench.service.roster
    bench.time.advance(10_000.0)
    before.advance()
    await bench.restart()
    assert bench.service.roster.ledger.average_share == pytest.approx(before.ledger.average_share, rel=1e-9)
    assert all(bench.service.roster.ledger.average_share > 0.05)


async def test_a_clock_that_was_put_back_takes_nothing_of_what_queues_have_had(bench):
    await bench.submit(gpus=4)
    await bench.after(40_000.0)
    had = bench.service.roster.usage().average_share
    await bench.service.loop.writer.commit(proves_leadership=True)
    bench.time.wall_s -= 50_000.0
    await bench.restart()
    assert bench.service.roster.usage().average_share == pytest.approx(had)


async def test_old_history_goes_while_the_scheduler_runs_and_what_depends_on_it_starts(bench, monkeypatch):
    monkeypatch.setattr(retention, "MOST_HISTORY", 1)
    old, new = await bench.submit(), await bench.submit()
    await bench.settle()
    bench.cluster.end(f"{old}.1")
    await bench.settle()
    await bench.after(retention.KEPT_S + 1.0)
    bench.cluster.end(f"{new}.1")
    open_id = await bench.submit()
    dependent = await bench.submit(depends_on=(old, open_id))
    await bench.settle()
    running = asyncio.create_task(bench.service.run())
    await asyncio.to_thread(wait_until, lambda: len(bench.store.list()) < 4, what="the sweep", timeout_s=20.0)
    await bench.service.stop()
    await running
    assert {record.id for record in bench.store.list()} == {new, open_id, dependent}
    with pytest.raises(NotFound):
        bench.store.get(old)
    await bench.restart()
    assert await bench.state(dependent) == "pending"
    bench.cluster.end(f"{open_id}.1")
    await bench.settle()
    assert await bench.state(dependent) == "running"
