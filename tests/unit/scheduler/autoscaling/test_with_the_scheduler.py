"""A node is emptied by the live scheduler, and left for the autoscaler to take away."""

from __future__ import annotations

from dataclasses import replace

from mlaas.scheduler.autoscaling.service import CONSOLIDATE_S, Autoscaler
from mlaas.scheduler.autoscaling.types import NODE_TYPE_LABEL, Growth, NodeType
from mlaas.scheduler.types import Resources
from tests.fakes.live_scheduler import Bench

SMALL = NodeType(name="small", capacity=Resources(gpus=4, cpus=16), max_nodes=2, price_usd_per_hour=1.0)


def autoscaler_of(bench: Bench) -> Autoscaler:
    """Return what runs beside the scheduler, on the test's clock."""
    return Autoscaler(
        bench.cluster,
        bench.policy,
        load_snapshot=lambda: bench.service.roster.ledger.snapshot().copy(),
        load_growth=lambda: Growth(node_types=(SMALL,)),
        book=bench.service.loop.book,
        clock=lambda: bench.time.monotonic_s,
    )


async def test_the_gang_that_is_cheap_to_restart_moves_and_the_node_that_it_leaves_is_asked_for_no_more(tmp_path):
    bench = await Bench(tmp_path).start()
    for name, node in bench.cluster.nodes.items():
        bench.cluster.nodes[name] = replace(node, labels=((NODE_TYPE_LABEL, "small"),))
    ends = await bench.submit(gpus=3)
    await bench.settle()
    dear, cheap = await bench.submit(gpus=2, restart_cost_s=60.0), await bench.submit(gpus=1, restart_cost_s=1.0)
    await bench.settle()
    autoscaler, place = autoscaler_of(bench), {}
    for workload in (ends, dear, cheap):
        ((place[workload], _),) = (await bench.service.get(workload)).placement
    assert place[ends] == place[cheap] != place[dear]
    bench.cluster.end(f"{ends}.1")
    await bench.after(1_000.0)
    bench.time.advance(CONSOLIDATE_S)

    await autoscaler.tick()
    await bench.settle()
    assert [await bench.state(each) for each in (dear, cheap)] == ["running", "yielding"]
    assert f"and moves to {place[dear]}" in (await bench.service.get(cheap)).reason
    bench.cluster.end(f"{cheap}.1", -15)
    await bench.settle()

    record = await bench.service.get(cheap)
    assert (record.state, record.placement, record.num_preemptions) == ("running", [[place[dear], 1]], 0)
    await autoscaler.tick()
    asked_for = str(bench.cluster.demand)
    assert place[dear] in asked_for
    assert place[ends] not in asked_for
