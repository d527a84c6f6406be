"""One scheduling decision: live, in a dry run, in `explain` and in a simulation.

It walks the waiting workloads in the policy's order. Each one starts if its quota and the free cells allow; if not, and the policy lets it,
others shrink or yield for it; if not, the first such workload gets a reservation and the rest may only pass where they do not delay it. What
is idle in the end goes to elastic gangs.

A gang that does not fit rules out every later one of the same shape in the same queue, so a cycle costs what it places, not what waits.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.backfill import Held, Reservation, reserve
from mlaas.scheduler.elastic import grow
from mlaas.scheduler.ordering import Blocked, borrowed, usage_by_leaf
from mlaas.scheduler.placement import find_nodes, most_workers
from mlaas.scheduler.preemption import Claim, Room, make_room, preference
from mlaas.scheduler.types import Decision, Place, Placement, Preempt, Reserve, Shrink, Wait, WaitCode

if TYPE_CHECKING:
    from mlaas.scheduler.cluster import Allocation, Bools, CompiledGang, Free, Ints
    from mlaas.scheduler.estimates import Floats
    from mlaas.scheduler.ordering import SchedulingPolicy
    from mlaas.scheduler.snapshot import Snapshot
    from mlaas.scheduler.types import Action


def decide(snapshot: Snapshot, policy: SchedulingPolicy) -> Decision:
    """Return what to do now. Pure: the same snapshot and policy give the same decision.

    Args:
        snapshot: The world. Its workloads have passed `validation`.
        policy: Order of workloads, and who may make whom yield.
    """
    if not len(snapshot.pending) and not len(snapshot.running):
        return Decision(())
    cycle = _Cycle(snapshot, policy)
    if len(snapshot.pending):
        cycle.walk()
    if not cycle.passed_over and len(snapshot.running):
        cycle.actions += grow(snapshot, cycle.free, cycle.usage, gone=cycle.gone)
    return Decision(tuple(cycle.actions), tuple(cycle.blocked))


class _Cycle:
    """The plan under way."""

    def __init__(self, snapshot: Snapshot, policy: SchedulingPolicy) -> None:
        self.snapshot = snapshot
        self.policy = policy
        self.free: Free = snapshot.cluster.free()
        self.usage = snapshot.queues.usage(usage_by_leaf(snapshot))
        self.is_limited = snapshot.queues.is_limited
        self.reservation: Reservation | None = None
        self.actions: list[Action] = []
        self.blocked: list[Wait] = []
        self.gone: set[int] = set()
        self.placed: list[tuple[Allocation, float]] = []
        self.passed_over = False
        pending = snapshot.pending
        self.gang = pending.ints_of("gang")
        self.queue = pending.ints_of("queue")
        self.ranks = policy.pending_ranks(snapshot)
        self.runtime_s = policy.pending_runtime_s(snapshot)
        self.yielders = _Yielders(snapshot, policy) if policy.margin is not None and len(snapshot.running) else None

    def walk(self) -> None:
        """Go through the waiting workloads until nothing more can happen."""
        if self.policy.blocked is Blocked.STOP:
            self._walk_in_order()
            return
        order, first_outside = self._candidates()
        while len(order):
            row = int(order[0])
            if first_outside is not None and self._goes_before(first_outside, row):
                self._stay(first_outside)
                first_outside = None
                continue
            order = order[1:]
            if not self._start(row):
                order = order[~self._hopeless(row, order)]
        if first_outside is not None:
            self._stay(first_outside)

    def _walk_in_order(self) -> None:
        for row in np.argsort(-self.ranks, kind="stable"):
            if not self._start(int(row)):
                return

    def _candidates(self) -> tuple[Ints, int | None]:
        """Rows that may start now, in order; and the first row of the others, which would want the reservation."""
        gangs = self.snapshot.cluster.gangs
        present = np.unique(self.gang)
        may = np.zeros(len(gangs), dtype=bool)
        for number in present:
            may[number] = _may_fit(self.free, gangs[number])
        candidate = may[self.gang]
        if self.yielders is not None:
            candidate |= self.ranks > self.yielders.floor
            if self.is_limited:
                candidate[:] = True
        sequence = self.snapshot.pending.ints_of("sequence")
        rows = np.flatnonzero(candidate)
        order = rows[np.lexsort((sequence[rows], -self.ranks[rows]))]
        others = np.flatnonzero(~candidate)
        if not len(others):
            return order, None
        best = others[self.ranks[others] == self.ranks[others].max()]
        return order, int(best[sequence[best].argmin()])

    def _goes_before(self, row: int, other: int) -> bool:
        sequence = self.snapshot.pending.ints_of("sequence")
        return bool((-self.ranks[row], sequence[row]) < (-self.ranks[other], sequence[other]))

    def _start(self, row: int) -> bool:
        """Start a workload if it may, with all that this takes; False when it stays."""
        gang, workers = self._gang(row), int(self.snapshot.pending.ints_of("workers")[row])
        need = self.snapshot.need(gang, workers) if self.is_limited else None
        within_quota = need is None or self.usage.fits(int(self.queue[row]), need)
        if within_quota:
            nodes, cells = self._fitting(row, gang, workers)
            if nodes is not None:
                self._place(row, gang, nodes, "fits" if cells is self.free else "fits beside the reservation")
                return True
        if self.yielders is not None:
            room = self.yielders.room_for(self, row, gang, workers)
            if room is not None:
                self._yield_and_place(row, gang, room)
                return True
        self._stay(row, within_quota=within_quota)
        return False

    def _fitting(self, row: int, gang: CompiledGang, workers: int) -> tuple[list[tuple[int, int]] | None, Free]:
        """Nodes for a workload, and the free cells that they were found in."""
        cells = self.cells_for(row)
        return find_nodes(cells, gang, workers=workers), cells

    def cells_for(self, row: int) -> Free:
        """Free cells that a workload may use: all of them if it ends before the reservation begins, else those beside it."""
        return self.reservation.spare if self.reservation is not None and self.outlasts(row) else self.free

    def outlasts(self, row: int) -> bool:
        """Whether a waiting workload is expected to run into the reservation."""
        return self.reservation is not None and self.snapshot.now_s + self.runtime_s[row] > self.reservation.start_s

    def _place(
        self, row: int, gang: CompiledGang, nodes: list[tuple[int, int]], reason: str, *, after: tuple[str, ...] = ()
    ) -> None:
        allocation = self.cells_for(row).allocate(gang, nodes)
        self.free.take(allocation)
        if self.reservation is not None:
            self.reservation.spare.narrow(self.free, allocation)
        if self.is_limited:
            workers = sum(count for _, count in nodes)
            self.usage.charge(int(self.queue[row]), self.snapshot.need(gang, workers))
        self.placed.append((allocation, self.snapshot.now_s + float(self.runtime_s[row])))
        placement = self.snapshot.cluster.placement(allocation)
        self.actions.append(Place(self.snapshot.pending.ids[row], placement, reason, after))

    def _yield_and_place(self, row: int, gang: CompiledGang, room: Room) -> None:
        running, cluster = self.snapshot.running, self.snapshot.cluster
        workload_id = self.snapshot.pending.ids[row]
        for victim in room.shrunk:
            kept = running.workloads[victim].gang.min_workers
            placement = _first_workers(cluster.placement(running.allocations[running.ids[victim]]), kept)
            reason = f"gives up what it has beyond its smallest size, {kept} workers, so that {workload_id} can start"
            self.actions.append(Shrink(running.ids[victim], placement, workload_id, reason))
            self._give_back(victim, keep_workers=kept)
        for victim in room.yielding:
            self.actions.append(Preempt(running.ids[victim], workload_id, self._why(row, victim)))
            self._give_back(victim, keep_workers=0)
        self.gone |= {*room.shrunk, *room.yielding}
        after = tuple(running.ids[victim] for victim in (*room.shrunk, *room.yielding))
        self._place(row, gang, list(room.nodes), f"takes the place of {', '.join(after)}", after=after)

    def _why(self, row: int, victim: int) -> str:
        assert self.yielders is not None
        standing = "stands on borrowed capacity" if self.yielders.borrowed[victim] else "is in the same queue"
        rank, other = self.ranks[row], self.yielders.ranks[victim]
        return f"{standing} and ranks {other:.2f}, below {self.snapshot.pending.ids[row]} with {rank:.2f}"

    def _give_back(self, victim: int, *, keep_workers: int) -> None:
        """Free a running gang's cells and quota; its cells are beside the reservation if the reservation did not count on them."""
        running = self.snapshot.running
        allocation = running.allocations[running.ids[victim]]
        self.free.give(allocation, keep_workers=keep_workers)
        if self.reservation is not None and self.ends_s[victim] > self.reservation.start_s:
            self.reservation.spare.give(allocation, keep_workers=keep_workers)
        if self.is_limited:
            gang = self.snapshot.cluster.gangs[running.ints_of("gang")[victim]]
            given = int(running.ints_of("workers")[victim]) - keep_workers
            self.usage.charge(int(running.ints_of("queue")[victim]), -self.snapshot.need(gang, given))

    def _stay(self, row: int, *, within_quota: bool = True) -> None:
        """Pass a workload over; the first that quota does not hold back gets the reservation."""
        self.passed_over = True
        workload_id = self.snapshot.pending.ids[row]
        if not within_quota:
            text = f"queue {self.snapshot.pending.workloads[row].queue} is at its limit and has nothing left to borrow"
            self.blocked.append(Wait(workload_id, WaitCode.QUOTA, text))
            return
        if self.reservation is not None:
            code, text = WaitCode.BACKFILL, "would delay the workload that holds the reservation, or does not fit beside it"
        elif self.policy.blocked is Blocked.STOP:
            code, text = WaitCode.RESOURCES, "first in line, and does not fit on what is free"
        else:
            code, text = self._reserve(row)
        self.blocked.append(Wait(workload_id, code, text))

    def _reserve(self, row: int) -> tuple[WaitCode, str]:
        gang, workers = self._gang(row), int(self.snapshot.pending.ints_of("workers")[row])
        self.reservation = reserve(self.free, gang, self._held(), workers=workers)
        if self.reservation is None:
            return WaitCode.IMPOSSIBLE, "no set of schedulable nodes can hold it, even empty"
        held = self.reservation
        start_s = max(held.start_s, self.snapshot.now_s)
        self.reservation = replace(held, start_s=start_s)
        names = self.snapshot.cluster.nodes
        placement = Placement(tuple((names[node].name, count) for node, count in held.nodes))
        reason = "first in line: what starts now leaves this for it"
        self.actions.append(Reserve(self.snapshot.pending.ids[row], start_s, placement, reason))
        return WaitCode.RESOURCES, f"first in line; expected to start in {start_s - self.snapshot.now_s:.0f} s"

    @cached_property
    def ends_s(self) -> Floats:
        """When each running gang is expected to end."""
        return self.snapshot.now_s + self.policy.running_left_s(self.snapshot)

    def _held(self) -> Held:
        """What holds cells in this plan, and until when."""
        running = self.snapshot.running
        row, cell, amount, _ = running.entries()
        ends_s = self.ends_s
        if self.gone:
            amount = np.where(np.isin(row, list(self.gone)), 0, amount)
        live = amount > 0
        rows, cells, amounts, ends = [row[live]], [cell[live]], [amount[live]], [ends_s]
        for number, (allocation, end_s) in enumerate(self.placed, start=len(running)):
            rows.append(np.full(len(allocation.cells), number))
            cells.append(allocation.cells)
            amounts.append(allocation.amounts)
            ends.append(np.array([end_s]))
        return Held(np.concatenate(rows), np.concatenate(cells), np.concatenate(amounts), np.concatenate(ends))

    def _hopeless(self, row: int, rest: Ints) -> Bools:
        """Later rows that cannot start because this one could not: same gang and queue, and as long or longer."""
        same = (self.gang[rest] == self.gang[row]) & ((self.queue[rest] == self.queue[row]) | (not self.is_limited))
        if self.reservation is None:
            return same
        passes = self.snapshot.now_s + self.runtime_s <= self.reservation.start_s
        hopeless: Bools = same & (passes[rest] <= passes[row])
        return hopeless

    def _gang(self, row: int) -> CompiledGang:
        return self.snapshot.cluster.gangs[self.gang[row]]


class _Yielders:
    """What runs, as far as it may be asked to yield."""

    def __init__(self, snapshot: Snapshot, policy: SchedulingPolicy) -> None:
        assert policy.margin is not None
        running = snapshot.running
        self.margin = policy.margin
        self.ranks: Floats = policy.running_ranks(snapshot)
        self.askable: Bools = ~policy.protected(snapshot)
        self.borrowed: Bools = borrowed(snapshot, self.ranks)
        self.order: Ints = preference(running, borrowed=self.borrowed, ranks=self.ranks)
        self.floor = float(self.ranks[self.askable].min()) + self.margin if self.askable.any() else np.inf
        self.min_workers = np.array([workload.gang.min_workers for workload in running.workloads], dtype=np.int64)
        self._needs: Ints | None = None

    def room_for(self, cycle: _Cycle, row: int, gang: CompiledGang, workers: int) -> Room | None:
        """Return the room that running gangs can make for a waiting workload."""
        eligible = self._eligible(cycle, row, gang, workers)
        if not eligible.any():
            return None
        claim = Claim(gang, workers, int(cycle.queue[row]), cycle.snapshot.need(gang, workers), eligible)
        return make_room(
            claim, cycle.cells_for(row), cycle.usage, cycle.snapshot.running,
            order=self.order, needs=self._needs_of(cycle.snapshot), min_workers=self.min_workers,
        )  # fmt: skip

    def _eligible(self, cycle: _Cycle, row: int, gang: CompiledGang, workers: int) -> Bools:
        running, pending = cycle.snapshot.running, cycle.snapshot.pending
        below = self.ranks + self.margin < cycle.ranks[row]
        eligible = self.askable & (running.ints_of("priority") <= pending.ints_of("priority")[row])
        if cycle.is_limited:
            queue = int(cycle.queue[row])
            entitled = cycle.usage.is_entitled(queue, cycle.snapshot.need(gang, workers))
            mine = running.ints_of("queue") == queue
            eligible &= (mine & below) | (self.borrowed & ~mine & (below | entitled))
        else:
            eligible &= below
        if cycle.gone:
            eligible[list(cycle.gone)] = False
        if cycle.reservation is not None and cycle.outlasts(row):
            eligible &= cycle.ends_s > cycle.reservation.start_s
        return eligible

    def _needs_of(self, snapshot: Snapshot) -> Ints:
        if self._needs is None:
            running = snapshot.running
            gangs, sizes = running.ints_of("gang"), running.ints_of("workers")
            if snapshot.queues.is_limited:
                self._needs = np.array(
                    [snapshot.need(snapshot.cluster.gangs[gang], int(size)) for gang, size in zip(gangs, sizes, strict=True)]
                )
            else:
                self._needs = np.zeros((len(running), len(snapshot.queues.resources)), dtype=np.int64)
        return self._needs


def _may_fit(free: Free, gang: CompiledGang) -> bool:
    return most_workers(free, gang) >= gang.gang.min_workers


def _first_workers(placement: Placement, count: int) -> Placement:
    """Return the part of a placement that holds its first `count` workers."""
    kept = []
    for node, workers in placement.workers:
        if count > 0:
            kept.append((node, min(workers, count)))
            count -= workers
    return Placement(tuple(kept))
