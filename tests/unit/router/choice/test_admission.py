"""Places at local models, and the line for them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlaas.providers.base import FailureKind, ProviderFailed
from mlaas.router.choice.admission import Admission
from mlaas.router.choice.waiting_line import WaitingLine
from mlaas.router.config import AdmissionConfig


def line_of(*waiting, capacity=0):
    line = WaitingLine(capacity=capacity)
    for number, (priority, tenant) in enumerate(waiting):
        line.wait(number, priority=priority, tenant=tenant)
    return line


def test_the_higher_priority_goes_first_and_then_who_came_first():
    line = line_of((0, "a"), (5, "a"), (0, "a"), (5, "a"))
    line.capacity = 3
    assert line.admit() == [1, 3, 0]


def test_tenants_of_one_priority_take_turns():
    line = line_of((0, "a"), (0, "a"), (0, "a"), (0, "b"), (0, "c"), (0, "b"))
    line.capacity = 6
    assert line.admit() == [0, 3, 4, 1, 5, 2]


def test_nobody_overtakes_those_who_wait():
    line = line_of((0, "a"))
    line.capacity = 1
    assert not line.try_take()
    assert line.admit() == [0]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc")), max_size=40))
def test_a_tenant_waits_for_no_more_than_one_request_of_each_other_one(waiting):
    line = line_of(*waiting, capacity=len(waiting))
    order = line.admit()
    assert sorted(order) == list(range(len(waiting)))
    priorities = [waiting[number][0] for number in order]
    assert priorities == sorted(priorities, reverse=True)
    for tenant in "abc":
        for priority in range(3):
            own = [number for number in order if waiting[number] == (priority, tenant)]
            assert own == sorted(own)
            if own:
                ahead = order[: order.index(own[0])]
                others = [waiting[number][1] for number in ahead if waiting[number][0] == priority]
                assert len(others) == len(set(others))


class Line(RuleBasedStateMachine):
    """Whatever comes and goes: no more places than there are, and nobody waits beside a free one."""

    def __init__(self) -> None:
        super().__init__()
        self.line = WaitingLine(capacity=2)
        self.waiting: set[int] = set()
        self.inside = self.count = 0

    def admit(self) -> None:
        admitted = self.line.admit()
        assert set(admitted) <= self.waiting
        self.waiting -= set(admitted)
        self.inside += len(admitted)

    @rule(priority=st.integers(0, 2), tenant=st.sampled_from("ab"))
    def arrive(self, priority, tenant):
        if self.line.try_take():
            self.inside += 1
            return
        self.count += 1
        self.line.wait(self.count, priority=priority, tenant=tenant)
        self.waiting.add(self.count)
        self.admit()

    @precondition(lambda self: self.inside)
    @rule()
    def leave(self):
        self.line.leave()
        self.inside -= 1
        self.admit()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data):
        ticket = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.line.drop(ticket)
        assert not self.line.drop(ticket)
        self.waiting.remove(ticket)

    @rule(capacity=st.integers(0, 5))
    def resize(self, capacity):
        self.line.capacity = capacity
        self.admit()

    @invariant()
    def places_are_kept(self):
        assert self.line.num_taken == self.inside
        assert self.line.num_waiting == len(self.waiting)
        assert not self.waiting or self.inside >= self.line.capacity


TestLine = Line.TestCase


def admission(**fields) -> Admission:
    return Admission(AdmissionConfig(**{"per_replica": 1, **fields}))


async def test_a_request_waits_for_a_place_and_its_wait_is_told():
    queue, order = admission(), []

    async def work(name: str) -> None:
        async with queue.place("m", num_replicas=1) as waited_s:
            order.append((name, waited_s > 0))
            await asyncio.sleep(0)

    await asyncio.gather(*(work(name) for name in "abc"))
    assert order == [("a", False), ("b", True), ("c", True)]
    assert (queue.num_taken("m"), queue.num_queued("m")) == (0, 0)


async def test_a_line_that_is_too_long_is_refused_with_the_time_to_come_back():
    queue = admission(max_queue=0)
    async with queue.place("m", num_replicas=1):
        with pytest.raises(ProviderFailed) as caught:
            await AsyncExitStack().enter_async_context(queue.place("m", num_replicas=1))
    failure = caught.value.failure
    assert (failure.kind, failure.status, failure.code) == (FailureKind.OVERLOADED, 429, "queue_full")
    assert 1 <= failure.retry_after_s <= 60


async def test_a_wait_that_is_too_long_ends_and_frees_its_place_in_the_line():
    queue = admission(max_wait_s=0.01)
    async with queue.place("m", num_replicas=1):
        with pytest.raises(ProviderFailed) as caught:
            await AsyncExitStack().enter_async_context(queue.place("m", num_replicas=1))
        assert (queue.num_taken("m"), queue.num_queued("m")) == (1, 0)
    assert (caught.value.failure.status, caught.value.failure.code) == (503, "queue_timeout")


async def test_a_caller_that_leaves_frees_its_place_also_in_the_moment_of_its_turn():
    queue = admission()

    async def hold(release: asyncio.Event) -> None:
        async with queue.place("m", num_replicas=1):
            await release.wait()

    release = asyncio.Event()
    first = asyncio.create_task(hold(release))
    await asyncio.sleep(0)
    second, third = (asyncio.create_task(hold(release)) for _ in range(2))
    await asyncio.sleep(0)
    assert queue.num_queued("m") == 2
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert queue.num_queued("m") == 1
    release.set()
    await first
    third.cancel()  # Its turn has come, and it has not run yet.
    await asyncio.gather(third, return_exceptions=True)
    assert (queue.num_taken("m"), queue.num_queued("m")) == (0, 0)


async def test_a_new_replica_lets_those_in_who_wait():
    queue, release = admission(), asyncio.Event()

    async def hold() -> None:
        async with queue.place("m", num_replicas=1):
            await release.wait()

    tasks = [asyncio.create_task(hold()) for _ in range(3)]
    await asyncio.sleep(0)
    assert (queue.num_taken("m"), queue.num_queued("m")) == (1, 2)
    queue.resize("m", num_replicas=2)
    assert (queue.num_taken("m"), queue.num_queued("m")) == (2, 1)
    release.set()
    await asyncio.gather(*tasks)
