"""What a scheduler that starts anew still knows."""

import pytest

from mlaas.scheduler.requests.queues import QueuesDocument
from mlaas.scheduler.types import Queue

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
