"""Which node is emptied."""

from __future__ import annotations

from dataclasses import replace

from mlaas.scheduler.autoscaling.consolidate import decide_consolidation
from mlaas.scheduler.autoscaling.types import NODE_TYPE_LABEL, Growth, NodeType
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.types import Gang, Move, Node, Placement, Queue, Resources, Workload

TYPE = NodeType(name="small", capacity=Resources(gpus=2, cpus=8), max_nodes=4, price_usd_per_hour=2.0)
GROWTH = Growth(node_types=(TYPE,))
NODES = tuple(Node(name, TYPE.capacity, ((NODE_TYPE_LABEL, "small"),)) for name in ("n1", "n2"))
SETTLED_S = 10_000.0


def job(name, *, gpus=1.0, **fields):
    return Workload(id=name, submitted_s=0.0, gang=Gang(worker=Resources(gpus=gpus)), **fields)


def running(*placed, nodes=NODES, now_s=SETTLED_S):
    ledger = Ledger(nodes, (Queue("default"),))
    for workload, node in placed:
        ledger.submit(workload)
        ledger.start(workload.id, Placement(((node, 1),)))
    ledger.advance(now_s)
    return ledger


def test_the_cheaper_gang_moves_and_its_node_is_closed():
    ledger = running((job("dear", restart_cost_s=60.0), "n1"), (job("cheap"), "n2"))
    found = decide_consolidation(ledger.snapshot(), GROWTH)
    assert found is not None
    assert (found.node, found.saves_usd_per_hour) == ("n2", 2.0)
    assert found.moves == (Move("cheap", Placement((("n1", 1),)), "n2", found.reason),)


def test_nothing_moves_while_someone_waits():
    ledger = running((job("a"), "n1"), (job("b"), "n2"))
    ledger.submit(job("waits", gpus=2.0))
    assert decide_consolidation(ledger.snapshot(), GROWTH) is None


def test_nothing_moves_that_would_not_fit_or_costs_too_much_or_may_not_yield():
    full = running((job("a", gpus=2.0), "n1"), (job("b"), "n2"))
    assert decide_consolidation(full.snapshot(), GROWTH) is None
    for fields in ({"restart_cost_s": 1000.0}, {"preemptible": False}):
        ledger = running((job("a", **fields), "n1"), (job("b", **fields), "n2"))
        assert decide_consolidation(ledger.snapshot(), GROWTH) is None


def test_what_has_just_started_is_left_in_peace():
    ledger = running((job("a"), "n1"), (job("b"), "n2"), now_s=10.0)
    assert decide_consolidation(ledger.snapshot(), GROWTH) is None


def test_machines_that_no_autoscaler_brought_and_nodes_in_use_from_outside_stay():
    own = tuple(replace(node, labels=()) for node in NODES)
    assert decide_consolidation(running((job("a"), "n1"), (job("b"), "n2"), nodes=own).snapshot(), GROWTH) is None
    ledger = running((job("a"), "n1"), (job("b"), "n2"))
    ledger.occupy({"n1": Resources(cpus=1), "n2": Resources(cpus=1)})
    assert decide_consolidation(ledger.snapshot(), GROWTH) is None
