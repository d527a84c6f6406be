"""When the autoscaler's slot is written."""

from __future__ import annotations

import asyncio

from mlaas.scheduler.autoscaling.service import CONSOLIDATE_S, REPEAT_S, Autoscaler
from mlaas.scheduler.autoscaling.types import NODE_TYPE_LABEL, Growth, NodeType
from mlaas.scheduler.decision.ordering import policy_named
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.types import Decision, Gang, Move, Node, Placement, Queue, Resources, Workload
from tests.fakes.memory_cluster import MemoryCluster

SMALL = NodeType(name="small", capacity=Resources(gpus=2), max_nodes=2, price_usd_per_hour=1.0)
GROWTH = Growth(node_types=(SMALL,))
HEAD = Node("head", Resources(cpus=1))


class World:
    def __init__(self, growth=GROWTH, nodes=(HEAD,)):
        self.ledger = Ledger(nodes, (Queue("default"),))
        self.cluster, self.growth, self.now_s, self.num_published = MemoryCluster([]), growth, 0.0, 0
        self.cluster.on_call = self.count
        self.booked: list[Decision] = []
        self.autoscaler = Autoscaler(
            self.cluster,
            policy_named("mlaas"),
            load_snapshot=lambda: self.ledger.snapshot(),
            load_growth=lambda: self.growth,
            book=self.booked.append,
            clock=lambda: self.now_s,
        )

    def count(self, verb):
        self.num_published += verb == "publish_demand"

    def tick(self):
        asyncio.run(self.autoscaler.tick())

    def submit(self, name):
        self.ledger.submit(Workload(id=name, submitted_s=0.0, gang=Gang(worker=Resources(gpus=1))))


def test_what_waits_is_published_once_and_taken_back_when_it_is_gone():
    world = World()
    world.submit("a")
    for _ in range(3):
        world.tick()
    assert world.num_published == 1
    assert [each.gang.worker.gpus for each in world.cluster.demand] == [2]
    world.ledger.remove("a")
    world.tick()
    assert world.cluster.demand == ()


def test_an_unchanged_demand_is_repeated_for_a_control_store_that_has_forgotten_it():
    world = World()
    world.tick()
    world.now_s = REPEAT_S
    world.tick()
    assert world.num_published == 2


def test_without_node_types_the_slot_is_left_alone_and_emptied_when_they_go():
    world = World(growth=Growth())
    world.submit("a")
    world.tick()
    assert world.num_published == 0
    world.growth = GROWTH
    world.tick()
    world.growth = Growth()
    world.tick()
    assert (world.num_published, world.cluster.demand) == (2, ())


def test_one_node_is_emptied_in_a_minute_by_moves_that_are_booked_like_any_decision():
    nodes = tuple(Node(name, SMALL.capacity, ((NODE_TYPE_LABEL, "small"),)) for name in ("n1", "n2"))
    world = World(nodes=nodes)
    for name, node in (("a", "n1"), ("b", "n2")):
        world.submit(name)
        world.ledger.start(name, Placement(((node, 1),)))
    world.ledger.advance(10_000.0)
    world.tick()
    assert world.booked == []
    for _ in range(3):
        world.now_s += CONSOLIDATE_S / 2
        world.tick()
    ((move,),) = [decision.actions for decision in world.booked]
    assert isinstance(move, Move)
    assert (move.workload_id, move.placement) == ("a", Placement((("n2", 1),)))
