"""One scheduling decision: live, in a dry run, in `explain` and in a simulation.

It walks the waiting workloads in the policy's order. Each one starts if its quota and the free cells allow; if not,
and the policy lets it, others shrink or yield for it, or move so that idle capacity comes together; if not, the first
such workload gets a reservation, and the rest may only pass where they do not delay it: they end before it begins, or
can be made to yield by then. What is idle in the end goes to elastic gangs.

A gang that does not fit rules out every later one of the same shape in the same queue, so a cycle costs what it
places, not what waits.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.decision.backfill import Held, Reservation, reserve
from mlaas.scheduler.decision.elastic import enlarge, grow
from mlaas.scheduler.decision.ordering import AGED_RANK, Blocked, entitled_pending
from mlaas.scheduler.decision.placement import find_nodes
from mlaas.scheduler.decision.yielders import Yielders
from mlaas.scheduler.types import Decision, Move, Place, Placement, Preempt, Reserve, Shrink, Wait, WaitCode
from mlaas.scheduler.wording import duration

if TYPE_CHECKING:
    from mlaas.scheduler.cluster import Allocation, Bools, CompiledGang, Free, Ints
    from mlaas.scheduler.decision.moving import Way
    from mlaas.scheduler.decision.ordering import SchedulingPolicy
    from mlaas.scheduler.decision.preemption import Room
    from mlaas.scheduler.decision.quota import Usage
    from mlaas.scheduler.estimates import Floats
    from mlaas.scheduler.snapshot import Snapshot
    from mlaas.scheduler.types import Action


CHUNK = 64
"""Waiting workloads sorted at a time; most cycles place a few."""
MOST_ROOMS = 50
"""Gangs that others yield for in one cycle. It bounds the cycle; the next one, a moment later, goes on."""


def decide(snapshot: Snapshot, policy: SchedulingPolicy) -> Decision:
    """Return what to do now. Pure: the same snapshot and policy give the same decision.

    Args:
        snapshot: The world. Its workloads have passed `validation`.
        policy: Order of workloads, and who may make whom yield.
    """
    if not len(snapshot.pending) and not len(snapshot.running):
        return Decision(())
    cycle = Cycle(snapshot, policy)
    if len(snapshot.pending):
        cycle.walk()
    if not cycle.passed_over:
        if not cycle.gone:
            # Else it would be at once on cells that others have yet to leave; it grows once they have.
            cycle.actions = enlarge(snapshot, cycle.actions, cycle.free, cycle.usage)
        cycle.actions += grow(snapshot, cycle.free, cycle.usage, gone=cycle.gone.keys())
    return Decision(tuple(cycle.actions), tuple(cycle.blocked))


class Cycle:
    """The plan under way."""

    def __init__(self, snapshot: Snapshot, policy: SchedulingPolicy) -> None:
        self.snapshot = snapshot
        self.policy = policy
        self.free: Free = snapshot.cluster.free()
        self.is_limited = snapshot.queues.is_limited
        self.preempts: Bools = snapshot.pending.ints_of("preempts") == 1
        self.head: int | None = None
        self.reservation: Reservation | None = None
        self.in_the_way: Bools | None = None
        self.actions: list[Action] = []
        self.blocked: list[Wait] = []
        self.gone: dict[int, int] = {}
        self.placed: list[tuple[Allocation, float]] = []
        self.passed_over = False
        self.rooms = 0
        pending = snapshot.pending
        self.gang = pending.ints_of("gang")
        self.queue = pending.ints_of("queue")
        self.ranks = policy.pending_ranks(snapshot)
        self.aged: Bools = self.ranks >= AGED_RANK
        self.left_to_aged: set[int] = set()
        self.runtime_s = policy.pending_runtime_s(snapshot)

    @cached_property
    def yielders(self) -> Yielders | None:
        """What runs and may be asked to yield; None when the policy asks no one."""
        if self.policy.margin is None or not len(self.snapshot.running):
            return None
        return Yielders(self.snapshot, self.policy, self.policy.margin)

    @cached_property
    def usage(self) -> Usage:
        """Quota usage of the plan."""
        return self.snapshot.usage.copy()

    def walk(self) -> None:
        """Go through the waiting workloads until nothing more can happen."""
        if self.policy.blocked is Blocked.STOP:
            self._walk_in_order()
            return
        rest, first_outside = self._candidates()
        while len(rest):
            order, rest = self._first(rest)
            while len(order):
                row = int(order[0])
                if first_outside is not None and self._goes_before(first_outside, row):
                    self._stay(first_outside)
                    first_outside = None
                order = order[1:]
                if not self._start(row):
                    order = order[~self._hopeless(row, order)]
                    if len(rest):
                        rest = rest[~self._hopeless(row, rest)]
        if first_outside is not None:
            self._stay(first_outside)

    def _walk_in_order(self) -> None:
        ranks = self.ranks.copy()
        for _ in range(len(ranks)):
            row = int(ranks.argmax())
            if not self._start(row):
                return
            ranks[row] = -np.inf

    def _first(self, rows: Ints) -> tuple[Ints, Ints]:
        """Split off the rows that rank highest, in order; ties go by sequence and stay together."""
        sequence = self.snapshot.pending.ints_of("sequence")
        ranks = self.ranks[rows]
        if len(rows) > 2 * CHUNK:
            high = ranks >= np.partition(ranks, len(rows) - CHUNK)[len(rows) - CHUNK]
            rows, rest, ranks = rows[high], rows[~high], ranks[high]
        else:
            rest = rows[:0]
        return rows[np.lexsort((sequence[rows], -ranks))], rest

    def _candidates(self) -> tuple[Ints, int | None]:
        """Rows that may start now; and the first row of the others, which would want the reservation."""
        gangs = self.snapshot.cluster.gangs
        may = np.zeros(len(gangs), dtype=bool)
        for number in np.flatnonzero(np.bincount(self.gang, minlength=len(gangs))):
            may[number] = _may_fit(self.free, gangs[number], by_moving=self.policy.moves)
        candidate = may[self.gang]
        if not candidate.all() and self.yielders is not None:
            candidate |= self.is_limited or self.ranks > self.yielders.floor
        others = np.flatnonzero(~candidate)
        if not len(others):
            return np.flatnonzero(candidate), None
        ranks = self.ranks[others]
        best = others[ranks == ranks.max()]
        return np.flatnonzero(candidate), int(best[self.snapshot.pending.ints_of("sequence")[best].argmin()])

    def _goes_before(self, row: int, other: int) -> bool:
        sequence = self.snapshot.pending.ints_of("sequence")
        return bool((-self.ranks[row], sequence[row]) < (-self.ranks[other], sequence[other]))

    def _start(self, row: int) -> bool:
        """Start a workload if it may, with all that this takes; False when it stays."""
        gang, workers = self._gang(row), int(self.snapshot.pending.ints_of("workers")[row])
        need = workers * gang.demand if self.is_limited else None
        within_quota = need is None or self._may_use(row, need)
        if within_quota:
            nodes = self._fitting(row, gang, workers)
            if nodes is not None:
                self._place(row, gang, nodes, "fits beside the reservation" if self.outlasts(row) else "fits")
                return True
        if self._start_with_others_help(row, gang, workers, within_quota=within_quota):
            return True
        self._stay(row, within_quota=within_quota)
        return False

    def _may_use(self, row: int, need: Ints) -> bool:
        """Whether quota allows a workload, and it takes none that one waits for that has aged."""
        queue = int(self.queue[row])
        if not self.usage.fits(queue, need):
            return False
        is_left = not self.aged[row] and self.snapshot.queues.path(queue)[-1] in self.left_to_aged
        return not is_left or self.usage.is_entitled(queue, need)

    def _start_with_others_help(self, row: int, gang: CompiledGang, workers: int, *, within_quota: bool) -> bool:
        """Start a workload for which others yield or move; False when none will."""
        if self.yielders is None or self.rooms >= MOST_ROOMS or not self.preempts[row]:
            return False
        if not self.aged[row] and (self.left_to_aged or (self.head is not None and self.aged[self.head])):
            return False
        if self.yielders.may_hear(self.ranks[row]) or self._is_entitled(row, gang, workers):
            room = self.yielders.room_for(self, row, gang, workers)
            if room is not None:
                self._yield_and_place(row, gang, room)
                return True
        if within_quota and self.policy.moves:
            way = self.yielders.way_for(self, row, gang, workers)
            if way is not None:
                self._move_and_place(row, gang, way)
                return True
        return False

    def _is_entitled(self, row: int, gang: CompiledGang, workers: int) -> bool:
        """Whether a workload's queue is guaranteed what it needs."""
        return self.is_limited and self.usage.is_entitled(int(self.queue[row]), workers * gang.demand)

    def _fitting(self, row: int, gang: CompiledGang, workers: int) -> list[tuple[int, int]] | None:
        """Nodes that a workload may start on now."""
        nodes = find_nodes(self.free, gang, workers=workers)
        if nodes is None or self.head is None:
            return nodes
        self.reserve_for_head()
        return find_nodes(self.cells_for(row), gang, workers=workers) if self.outlasts(row) else nodes

    def cells_for(self, row: int) -> Free:
        """Free cells that a workload may use: all if it ends before the reservation begins, else those beside it."""
        return self.reservation.spare if self.reservation is not None and self.outlasts(row) else self.free

    def outlasts(self, row: int) -> bool:
        """Whether a waiting workload, once started, would stand in the way when the reservation begins."""
        return self.in_the_way is not None and bool(self.in_the_way[row])

    def _place(
        self, row: int, gang: CompiledGang, nodes: list[tuple[int, int]], reason: str, *, after: tuple[str, ...] = ()
    ) -> None:
        allocation = self.cells_for(row).allocate(gang, nodes)
        self._hold(allocation, self.snapshot.now_s + float(self.runtime_s[row]))
        if self.is_limited:
            self.usage.charge(int(self.queue[row]), allocation.num_workers * gang.demand)
        placement = self.snapshot.cluster.placement(allocation)
        self.actions.append(Place(self.snapshot.pending.ids[row], placement, reason, after))

    def _hold(self, allocation: Allocation, end_s: float) -> None:
        """Take cells in this plan until they are expected to be free again."""
        self.free.take(allocation)
        if self.reservation is not None:
            self.reservation.spare.narrow(self.free, allocation)
        self.placed.append((allocation, end_s))

    def _yield_and_place(self, row: int, gang: CompiledGang, room: Room) -> None:
        self.rooms += 1
        running, cluster = self.snapshot.running, self.snapshot.cluster
        workload_id = self.snapshot.pending.ids[row]
        for victim, kept in room.shrunk:
            placement = _first_workers(cluster.placement(running.allocations[running.ids[victim]]), kept)
            reason = f"goes on with {kept} workers, so that {workload_id} can start"
            self.actions.append(Shrink(running.ids[victim], placement, workload_id, reason))
            self._give_back(victim, keep_workers=kept)
        for victim in room.yielding:
            self.actions.append(Preempt(running.ids[victim], workload_id, self._why(row, victim)))
            self._give_back(victim, keep_workers=0)
        self.gone |= {**dict(room.shrunk), **dict.fromkeys(room.yielding, 0)}
        after = tuple(running.ids[victim] for victim in (*dict(room.shrunk), *room.yielding))
        self._place(row, gang, list(room.nodes), f"takes the place of {', '.join(after)}", after=after)

    def _move_and_place(self, row: int, gang: CompiledGang, way: Way) -> None:
        self.rooms += 1
        running, cluster = self.snapshot.running, self.snapshot.cluster
        workload_id = self.snapshot.pending.ids[row]
        for moved, allocation in way.moves:
            reason = f"goes on elsewhere, so that {workload_id} fits"
            self.actions.append(Move(running.ids[moved], cluster.placement(allocation), workload_id, reason))
            self._give_back(moved, keep_workers=0, refund=False)
        for moved, allocation in way.moves:
            self._hold(allocation, self.ends_s[moved] + running.floats_of("restart_s")[moved])
        moved_ids = [running.ids[moved] for moved, _ in way.moves]
        self.gone |= dict.fromkeys((moved for moved, _ in way.moves), 0)
        reason = f"fits once {', '.join(moved_ids)} have moved"
        self._place(row, gang, list(way.nodes), reason, after=tuple(moved_ids))

    def _why(self, row: int, victim: int) -> str:
        assert self.yielders is not None
        standing = "stands on borrowed capacity" if self.yielders.borrowed[victim] else "is in the same queue"
        rank, other = self.ranks[row], self.yielders.ranks[victim]
        return f"{standing} and ranks {other:.2f}, below {self.snapshot.pending.ids[row]} with {rank:.2f}"

    def _give_back(self, victim: int, *, keep_workers: int, refund: bool = True) -> None:
        """Free a running gang's cells, and its quota where it does not go on.

        Its cells are spare beside the reservation only if the reservation did not count on them.
        """
        running = self.snapshot.running
        allocation = running.allocations[running.ids[victim]]
        self.free.give(allocation, keep_workers=keep_workers)
        if self.reservation is not None and self.ends_s[victim] > self.reservation.start_s:
            self.reservation.spare.give(allocation, keep_workers=keep_workers)
        if self.is_limited and refund:
            gang = self.snapshot.cluster.gangs[running.ints_of("gang")[victim]]
            given = int(running.ints_of("workers")[victim]) - keep_workers
            self.usage.charge(int(running.ints_of("queue")[victim]), -given * gang.demand)

    def _stay(self, row: int, *, within_quota: bool = True) -> None:
        """Pass a workload over; the first that quota does not hold back gets the reservation."""
        self.passed_over = True
        workload_id = self.snapshot.pending.ids[row]
        if not within_quota:
            if self.aged[row]:
                self._leave_quota_to(row)
            text = f"queue {self.snapshot.pending.workloads[row].queue} is at its limit and has nothing left to borrow"
            self.blocked.append(Wait(workload_id, WaitCode.QUOTA, text))
            return
        if self.head is not None:
            text = "would delay the workload that holds the reservation, or does not fit beside it"
            self.blocked.append(Wait(workload_id, WaitCode.BACKFILL, text))
            return
        self.head = row
        self.blocked.append(Wait(workload_id, WaitCode.RESOURCES, "first in line, and does not fit on what is free"))

    def _leave_quota_to(self, row: int) -> None:
        """Let nobody borrow before a workload that has aged, if its cohort could ever hold it."""
        tree, queue = self.snapshot.queues, int(self.queue[row])
        need = int(self.snapshot.pending.ints_of("workers")[row]) * self._gang(row).demand
        if tree.usage(np.zeros_like(tree.guarantee)).fits(queue, need):
            self.left_to_aged.add(tree.path(queue)[-1])

    def reserve_for_head(self) -> None:
        """Reserve capacity for the first in line.

        Only called when something could pass it: otherwise there is nothing to hold.
        """
        if self.reservation is not None or self.head is None:
            return
        gang, workers = self._gang(self.head), int(self.snapshot.pending.ints_of("workers")[self.head])
        found = reserve(self.free, gang, self._held(), workers=workers)
        if found is None:
            self.head = None
            return
        start_s = max(found.start_s, self.snapshot.now_s)
        self.reservation = replace(found, start_s=start_s)
        ends_before = self.snapshot.now_s + self.runtime_s <= start_s
        self.in_the_way = ~(ends_before | self._cedes(self.head, start_s))
        if self.aged[self.head]:
            # Estimates may be wrong for ever: what has aged waits for what runs, and for nothing that starts later.
            self.in_the_way[:] = True
            self.reservation.spare.close(gang.mask)
        names = self.snapshot.cluster.nodes
        placement = Placement(tuple((names[node].name, count) for node, count in found.nodes))
        reason = f"first in line: what starts now leaves this to it, in {duration(start_s - self.snapshot.now_s)}"
        self.actions.append(Reserve(self.snapshot.pending.ids[self.head], start_s, placement, reason))

    def _cedes(self, head: int, start_s: float) -> Bools:
        """Waiting workloads that the head could make yield by then, so that they may run on its cells until then."""
        pending, queue = self.snapshot.pending, int(self.queue[head])
        if self.policy.margin is None or not self.preempts[head]:
            return np.zeros(len(pending), dtype=bool)
        cedes = (self.ranks + self.policy.margin < self.ranks[head]) & (pending.ints_of("preemptible") == 1)
        cedes &= pending.ints_of("priority") <= pending.ints_of("priority")[head]
        cedes &= self.snapshot.now_s + pending.floats_of("min_runtime_s") <= start_s
        if self.is_limited:
            cedes &= (self.queue == queue) | ~entitled_pending(self.snapshot)
        return cedes

    @cached_property
    def ends_s(self) -> Floats:
        """When each running gang is expected to end."""
        return self.snapshot.now_s + self.policy.running_left_s(self.snapshot)

    def _held(self) -> Held:
        """What holds cells in this plan, and until when."""
        running = self.snapshot.running
        row, cell, amount, worker = running.entries()
        ends_s = self.ends_s
        if self.gone:
            kept = running.ints_of("workers").copy()
            kept[list(self.gone)] = list(self.gone.values())
            amount = np.where(worker < kept[row], amount, 0)
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
        same: Bools = (self.gang[rest] == self.gang[row]) & (
            (self.queue[rest] == self.queue[row]) | (not self.is_limited)
        )
        same &= ~self.preempts[rest] | self.preempts[row]
        if self.in_the_way is not None:
            same &= self.in_the_way[rest] >= self.in_the_way[row]
        return same

    def _gang(self, row: int) -> CompiledGang:
        return self.snapshot.cluster.gangs[self.gang[row]]


def _may_fit(free: Free, gang: CompiledGang, *, by_moving: bool) -> bool:
    """Whether a gang could fit, by its GPUs alone: cheap, and never wrong when it says no."""
    if not gang.devices:
        return True
    fits_a_node = by_moving or gang.devices <= free.whole.max(initial=0)
    return bool(fits_a_node and gang.devices * gang.gang.min_workers <= free.whole.sum())


def _first_workers(placement: Placement, count: int) -> Placement:
    """Return the part of a placement that holds its first `count` workers."""
    kept = []
    for node, workers in placement.workers:
        if count > 0:
            kept.append((node, min(workers, count)))
            count -= workers
    return Placement(tuple(kept))
