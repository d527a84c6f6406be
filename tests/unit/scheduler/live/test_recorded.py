"""What was decided live is decided again from what was recorded of it."""

from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.ordering import POLICIES
from mlaas.scheduler.explanations.recording import decode_snapshot
from mlaas.scheduler.types import Place, Preempt


async def test_live_and_replayed_decisions_are_identical(bench):
    low = await bench.submit(gpus=4, workers=2, priority_class="low", min_runtime_s=0.0)
    await bench.settle()
    await bench.after(100.0)
    high = await bench.submit(gpus=4, workers=2, priority_class="high", estimate_s=60.0)
    await bench.submit(gpus=1)
    await bench.settle()
    bench.cluster.end(f"{low}.1", -15)
    await bench.settle()
    bench.cluster.end(f"{high}.1")
    await bench.settle()
    recordings = bench.service.loop.recorder.recordings()
    for recording in recordings:
        assert decide(decode_snapshot(recording.snapshot), POLICIES[recording.policy]) == recording.decision
    actions = [action for recording in recordings for action in recording.decision.actions]
    assert {low, high} <= {action.workload_id for action in actions if isinstance(action, Place)}
    assert low in {action.workload_id for action in actions if isinstance(action, Preempt)}


async def test_a_live_explanation_is_that_of_the_recorded_world(bench):
    await bench.submit(gpus=4, workers=2, estimate_s=1e5)
    await bench.settle()
    waiting = await bench.submit(gpus=4, workers=2, estimate_s=1e5)
    await bench.settle()
    told = await bench.service.explain(waiting)
    assert told.queued is not None
    assert not told.queued.starts_now
    assert told.queued.fit.fitting_workers == 0
    assert told.queued.remedies
    snapshot = bench.service.roster.ledger.snapshot()
    workload = snapshot.pending.workloads[snapshot.pending.row_of[waiting]]
    assert workload == bench.service.roster.lives[waiting].workload
    assert told.lines()[0].startswith(f"{waiting} is pending")
