"""What the autoscaler is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.errors import ConfigError
from mlaas.scheduler.autoscaling.demand import decide_demand
from mlaas.scheduler.autoscaling.grown import GrownCluster
from mlaas.scheduler.autoscaling.types import NODE_TYPE_LABEL, Growth, NodeType
from mlaas.scheduler.cluster import ClusterIndex
from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.ordering import policy_named
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.types import Gang, Node, Queue, Resources, Strategy, Workload

POLICY = policy_named("mlaas")
SMALL = NodeType(name="small", capacity=Resources(gpus=1, cpus=8), max_nodes=4, price_usd_per_hour=1.0)
A100 = NodeType(
    name="a100", capacity=Resources(gpus=4, cpus=32), labels=(("accelerator", "A100"),), max_nodes=2,
    price_usd_per_hour=10.0,
)  # fmt: skip
GROWTH = Growth(node_types=(SMALL, A100))
QUEUES = (Queue("default"),)
HEAD = Node("head", Resources(cpus=8))


def world(*workloads, nodes=(HEAD,), queues=QUEUES):
    ledger = Ledger(nodes, queues)
    for each in workloads:
        ledger.submit(each)
    return ledger


def job(name, *, gpus=1.0, workers=1, queue="default", **gang):
    return Workload(
        id=name, submitted_s=0.0, queue=queue,
        gang=Gang(worker=Resources(gpus=gpus, cpus=1), min_workers=workers, max_workers=workers, **gang),
    )  # fmt: skip


def demands(ledger, growth=GROWTH):
    return decide_demand(ledger.snapshot(), POLICY, growth)


def test_nobody_waits_and_nothing_is_asked_for():
    found = demands(world())
    assert (found.demand, found.new_nodes, found.spend_usd_per_hour) == ((), (), 0.0)


def test_the_cheapest_type_that_holds_the_whole_gang_is_asked_for():
    found = demands(world(job("a", workers=3)))
    assert (found.new_nodes, found.brought, found.spend_usd_per_hour) == ((("small", 3),), ("a",), 3.0)


def test_labels_choose_the_type_and_go_along():
    found = demands(world(job("a", labels=(("accelerator", "A100"),))))
    assert found.new_nodes == (("a100", 1),)
    (each,) = found.demand
    assert each.gang.labels == (("accelerator", "A100"),)
    assert each.gang.worker == Resources(gpus=4, cpus=32)


def test_strategy_and_shape_decide_what_suffices():
    assert demands(world(job("a", gpus=2))).new_nodes == (("a100", 1),)
    assert demands(world(job("a", workers=4, strategy=Strategy.STRICT_PACK))).new_nodes == (("a100", 1),)
    assert demands(world(job("a", workers=2, strategy=Strategy.STRICT_SPREAD))).new_nodes == (("small", 2),)


def test_gangs_share_what_is_asked_for():
    found = demands(world(*(job(str(number), labels=(("accelerator", "A100"),)) for number in range(5))))
    assert found.new_nodes == (("a100", 2),)
    assert found.brought == ("0", "4")


def test_free_cells_of_present_nodes_are_used_first_and_what_runs_is_pinned():
    present = Node("n1", Resources(gpus=1, cpus=8), ((NODE_TYPE_LABEL, "small"),))
    ledger = world(job("runs"), nodes=(HEAD, present))
    (place,) = decide(ledger.snapshot(), POLICY).actions
    ledger.start("runs", place.placement)
    ledger.submit(job("waits"))
    found = demands(ledger)
    assert (found.new_nodes, found.spend_usd_per_hour) == ((("small", 1),), 2.0)
    pinned = [each.gang for each in found.demand if each.gang.labels == (("ray.io/node-id", "n1"),)]
    assert [each.worker for each in pinned] == [Resources(gpus=1, cpus=1)]


def test_an_idle_node_is_named_by_no_demand():
    present = Node("n1", Resources(gpus=1, cpus=8), ((NODE_TYPE_LABEL, "small"),))
    assert demands(world(nodes=(HEAD, present))).demand == ()


def test_a_gang_that_is_placed_now_keeps_its_node():
    present = Node("n1", Resources(gpus=1, cpus=8), ((NODE_TYPE_LABEL, "small"),))
    found = demands(world(job("a"), nodes=(HEAD, present)))
    assert [each.gang.labels for each in found.demand] == [(("ray.io/node-id", "n1"),)]
    assert found.new_nodes == ()


def test_a_gang_that_cannot_be_brought_whole_brings_nothing():
    found = demands(world(job("a", workers=13)))
    assert found.new_nodes == ()
    assert found.refused == (("a", "no node type holds it within what node types and the spend limit leave"),)


def test_the_spend_limit_counts_what_is_there():
    present = Node("n1", Resources(gpus=1, cpus=8), ((NODE_TYPE_LABEL, "small"),), schedulable=False)
    growth = Growth(node_types=(SMALL, A100), max_usd_per_hour=3.0)
    assert demands(world(job("a", workers=2), nodes=(HEAD, present)), growth).new_nodes == (("small", 2),)
    assert demands(world(job("a", workers=3), nodes=(HEAD, present)), growth).new_nodes == ()


def test_quota_bounds_what_is_asked_for_also_of_a_resource_that_no_node_has_yet():
    queues = (
        Queue("team", guarantee=(("GPU", 2.0),), borrowing_limit=(("GPU", 0.0),)),
        Queue("default", guarantee=(("GPU", 8.0),)),
    )
    found = demands(world(*(job(name, queue="team") for name in "abc"), queues=queues))
    assert found.new_nodes == (("small", 2),)
    assert found.refused == (("c", "queue team is at its limit"),)


def test_the_largest_gang_counts_nodes_that_may_come():
    grown = GrownCluster(ClusterIndex((HEAD,)), GROWTH)
    wide = Gang(worker=Resources(gpus=1), min_workers=1, max_workers=100)
    assert grown.most_workers(wide) == 8
    assert (
        GrownCluster(ClusterIndex((HEAD,)), Growth(node_types=(A100,), max_usd_per_hour=15.0)).most_workers(wide) == 4
    )


@pytest.mark.parametrize("wrong", [{"max_nodes": -1}, {"price_usd_per_hour": float("nan")}])
def test_a_node_type_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match="node type x"):
        NodeType(**{"name": "x", "capacity": Resources(gpus=1), "max_nodes": 1, **wrong})


gangs = st.builds(
    dict,
    gpus=st.sampled_from([0.25, 1.0, 2.0, 4.0]),
    workers=st.integers(1, 6),
    queue=st.sampled_from(["default", "team"]),
    strategy=st.sampled_from(list(Strategy)),
)


@given(
    asked=st.lists(gangs, max_size=12),
    limit=st.none() | st.floats(0, 60),
    num_present=st.integers(0, 3),
    quota=st.integers(0, 12),
)
def test_demand_never_exceeds_types_spend_limit_or_quota(asked, limit, num_present, quota):
    queues = (
        Queue("team", guarantee=(("GPU", float(quota)),), borrowing_limit=(("GPU", 0.0),)),
        Queue("default", guarantee=(("GPU", 1e4),)),
    )
    nodes = [Node(f"n{i}", SMALL.capacity, ((NODE_TYPE_LABEL, "small"),)) for i in range(num_present)]
    ledger = world(
        *(job(f"j{number}", **each) for number, each in enumerate(asked)), nodes=(HEAD, *nodes), queues=queues
    )
    growth = Growth(node_types=(SMALL, A100), max_usd_per_hour=limit)
    found = demands(ledger, growth)
    new = dict(found.new_nodes)
    assert new.get("small", 0) + num_present <= SMALL.max_nodes
    assert new.get("a100", 0) <= A100.max_nodes
    spend = num_present + new.get("small", 0) + 10.0 * new.get("a100", 0)
    assert found.spend_usd_per_hour == pytest.approx(spend)
    assert limit is None or not new or spend <= limit + 1e-6
    gone = {each for each, _ in found.refused}
    team = [each for n, each in enumerate(asked) if each["queue"] == "team" and f"j{n}" not in gone]
    assert sum(each["gpus"] * each["workers"] for each in team) <= quota + 1e-9
    assert bool(new) == bool(found.brought)
