"""The loop, tick by tick on a clock of the test's own."""

from __future__ import annotations

import asyncio

from mlaas.scheduler.arbitration.service import FAILED_HOLD_S, OBSTACLE_S, ArbitrationService
from mlaas.scheduler.arbitration.types import Load, ReplicaState, Share
from mlaas.scheduler.types import Resources
from tests.fakes.sharing import MemoryLeases, MemoryReplicas, MemoryRouter

M = Share(name="m", version=1, worker=Resources(gpus=1), floor=1, ceiling=3, ttft_slo_s=1.0, hold_s=200.0)


class World:
    def __init__(self, **leases):
        self.now_s = 0.0
        self.leases, self.replicas, self.router = MemoryLeases(**leases), MemoryReplicas({"m": M}), MemoryRouter()
        self.service = self.restarted()

    def restarted(self):
        return ArbitrationService(self.leases, self.replicas, self.router, clock=lambda: self.now_s)

    def pass_time(self, seconds=0.0, *, ticks=3):
        for _ in range(ticks):
            self.now_s += seconds / ticks
            asyncio.run(self.service.tick())

    def ask(self, num_needed, *, waiting=0):
        self.router.seen = {"m": Load(num_ready=0, num_needed=num_needed, num_waiting=waiting, num_running=num_needed)}


def test_a_deployment_gets_its_floor_though_the_router_does_not_know_it_yet():
    world = World()
    world.pass_time()
    assert list(world.replicas.running) == ["w1"]
    assert world.leases.leases["w1"].is_floor


def test_replicas_follow_demand_up_at_once_and_down_after_the_hold():
    world = World()
    world.pass_time()
    world.ask(3)
    world.pass_time()
    assert len(world.replicas.running) == 3
    world.ask(1)
    world.pass_time(199.0)
    assert len(world.replicas.running) == 3
    world.pass_time(100.0, ticks=4)
    assert len(world.replicas.running) == len(world.leases.leases) == 1


def test_what_waits_for_a_machine_is_asked_for_once():
    world = World(num_machines=2)
    world.ask(3)
    world.pass_time(ticks=10)
    assert (world.leases.num_submitted, len(world.replicas.running)) == (3, 2)


def test_serve_is_left_alone_while_nothing_changes():
    world = World()
    world.pass_time(ticks=2)
    puts = world.replicas.num_puts
    world.pass_time(ticks=10)
    assert world.replicas.num_puts == puts


def test_what_serve_has_lost_is_put_again():
    world = World()
    world.pass_time()
    world.replicas.running.clear()
    world.pass_time()
    assert list(world.replicas.running) == ["w1"]


def test_a_replica_that_has_failed_is_left_to_be_read_and_then_replaced():
    world = World()
    world.pass_time()
    world.replicas.running["w1"] = ReplicaState.FAILED
    world.pass_time(FAILED_HOLD_S)
    assert (world.replicas.running, world.leases.num_submitted) == ({"w1": ReplicaState.FAILED}, 1)
    world.pass_time(FAILED_HOLD_S)
    assert (world.replicas.running, list(world.leases.leases)) == ({"w2": ReplicaState.READY}, ["w2"])


def test_a_restart_drops_no_replica():
    world = World()
    world.ask(3)
    world.pass_time()
    world.router.seen = {}
    world.service = world.restarted()
    world.pass_time()
    assert len(world.replicas.running) == 3


def test_an_undeployed_model_gives_everything_back():
    world = World()
    world.ask(2)
    world.pass_time()
    world.replicas.wanted = {}
    world.pass_time()
    assert (world.replicas.running, world.leases.leases) == ({}, {})


def test_whoever_deploys_is_told_at_once_that_no_replica_is_ever_placed():
    world = World()
    world.leases.refusal = "queue q may use at most 0 GPUs"
    world.pass_time(ticks=1)
    assert world.replicas.obstacles == {"m": "queue q may use at most 0 GPUs"}
    world.leases.refusal = ""
    world.pass_time(ticks=1)
    assert world.replicas.obstacles == {}


def test_whoever_deploys_is_told_what_hinders_a_replica_that_has_waited_for_a_while():
    world = World(num_machines=0)
    world.leases.obstacles = {"w1": "its queue is at its limit"}
    world.pass_time()
    world.pass_time(OBSTACLE_S - 1.0)
    assert (world.replicas.obstacles, world.leases.num_asked) == ({}, 0)
    world.pass_time(2.0)
    assert world.replicas.obstacles == {"m": "its queue is at its limit"}
    world.pass_time(OBSTACLE_S - 2.0, ticks=20)
    assert world.leases.num_asked == 1
    world.leases.obstacles = {}
    world.pass_time(OBSTACLE_S)
    assert world.replicas.obstacles == {}
