"""What waits, what runs and what was used: the state that snapshots are taken of.

The live scheduler and the simulator keep the same ledger and differ only in who tells it what happened. It knows no
clock: each event comes with its time, and a clock that jumps back is taken as one that stood still.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mlaas.errors import Conflict, InvalidRequest, NotFound, PlacementError
from mlaas.scheduler.cluster import Allocation, ClusterIndex
from mlaas.scheduler.decision.fairness import decayed, held_shares
from mlaas.scheduler.decision.quota import QueueTree
from mlaas.scheduler.estimates import History, reported
from mlaas.scheduler.snapshot import Snapshot
from mlaas.scheduler.tables import PendingTable, Progress, RunningTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlaas.scheduler.estimates import Belief
    from mlaas.scheduler.types import Node, Placement, Queue, Resources, Workload


@dataclass(slots=True)
class _Entry:
    workload: Workload
    sequence: int
    gang: int
    queue: int
    belief: Belief
    progress: Progress
    since_s: float
    """Start of the present wait or run."""


@dataclass(slots=True)
class Ledger:
    """The state of one scheduler. Not safe for threads; its owner is one loop."""

    nodes: Sequence[Node]
    queues: Sequence[Queue]
    history: History = field(default_factory=History)
    now_s: float = 0.0
    cluster: ClusterIndex = field(init=False)
    tree: QueueTree = field(init=False)
    pending: PendingTable = field(init=False, default_factory=PendingTable)
    running: RunningTable = field(init=False, default_factory=RunningTable)
    average_share: np.ndarray[tuple[int], np.dtype[np.float64]] = field(init=False)
    _entries: dict[str, _Entry] = field(init=False, default_factory=dict)
    """What was asked for already of what the tables hold."""
    _accepted: int = field(init=False, default=0)
    _outside: Mapping[str, Resources] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.cluster = ClusterIndex(self.nodes)
        self.tree = QueueTree(self.queues, self.cluster.resources)
        self.average_share = np.zeros(len(self.queues))

    @classmethod
    def of(cls, snapshot: Snapshot) -> Ledger:
        """Return a ledger of its own that goes on from a snapshot, to try out what would happen.

        It has no history: what is submitted to it brings its belief along.
        """
        ledger = cls((), ())
        ledger.nodes, ledger.queues, ledger.now_s = snapshot.cluster.nodes, snapshot.queues.queues, snapshot.now_s
        ledger.cluster, ledger.tree = snapshot.cluster.copy(), snapshot.queues
        ledger.pending, ledger.running = snapshot.pending.copy(), snapshot.running.copy()
        ledger.average_share = snapshot.average_share.copy()
        ledger._outside = ledger.cluster.occupied()
        last = max(table.ints_of("sequence").max(initial=-1) for table in (ledger.pending, ledger.running))
        ledger._accepted = 1 + int(last)
        return ledger

    def snapshot(self) -> Snapshot:
        """Return the world as it is now. It points into this ledger: decide before the next event."""
        return Snapshot(self.now_s, self.cluster, self.tree, self.pending, self.running, self.average_share)

    def advance(self, now_s: float) -> None:
        """Let time pass: what runs uses its share."""
        elapsed_s = now_s - self.now_s
        if elapsed_s > 0.0:
            queue, share = self.running.ints_of("queue"), self.running.floats_of("share")
            held = held_shares(queue, share, num_queues=len(self.average_share))
            self.average_share = decayed(self.average_share, held, elapsed_s=elapsed_s)
            self.now_s = now_s

    def set_nodes(self, nodes: Sequence[Node]) -> None:
        """Replace the nodes. A gang on a lost one stays booked there until it is requeued or removed."""
        if tuple(nodes) == self.cluster.nodes:
            return
        before, self.nodes = self.cluster, nodes
        self.cluster = before.with_nodes(nodes)
        carried = self.cluster.carried(self.running.allocations, before)
        for allocation in carried.values():
            self.cluster.take(allocation)
        self.running.relocate(carried)
        self.cluster.occupy(self._outside)
        self.tree = QueueTree(self.queues, self.cluster.resources)
        for table in (self.pending, self.running):
            self._reckon_shares(table)

    def occupy(self, outside: Mapping[str, Resources]) -> None:
        """Replace what runs on the nodes, by name, without this scheduler: it is not free."""
        self._outside = outside
        self.cluster.occupy(outside)

    def set_queues(self, queues: Sequence[Queue]) -> None:
        """Replace the queues.

        Raises:
            Conflict: one that is gone still has workloads; nothing is changed.
        """
        tree = QueueTree(queues, self.cluster.resources)
        used = {workload.queue for table in (self.pending, self.running) for workload in table.workloads}
        lost = used - tree.row_of.keys()
        if lost:
            raise Conflict("queue_in_use", f"workloads wait or run in {', '.join(sorted(lost))}; drain them first")
        past = dict(zip(self.tree.row_of, self.average_share, strict=True))
        self.average_share = np.array([past.get(queue.name, 0.0) for queue in queues])
        self.queues, self.tree = queues, tree
        self._entries.clear()
        for table in (self.pending, self.running):
            table.set_column("queue", np.array([tree.row_of[it.queue] for it in table.workloads], dtype=np.int64))

    def submit(
        self, workload: Workload, *, progress: Progress | None = None, belief: Belief | None = None,
        sequence: int | None = None,
    ) -> None:  # fmt: skip
        """Queue a workload that has passed `validation`. One that ran before brings its progress along.

        Args:
            workload: What to queue.
            progress: What it has had before; None = nothing.
            belief: How long it is believed to run; None = drawn from this ledger's history.
            sequence: Its number in the order of acceptance; None = the next one.

        Raises:
            Conflict: a workload with this id is queued or runs.
        """
        entry = self._accept(workload, progress=progress or Progress(), belief=belief, sequence=sequence)
        self._entries[workload.id] = entry
        self._wait(entry)

    def restore(
        self, workload: Workload, placement: Placement, *, progress: Progress, started_s: float,
        sequence: int | None = None,
    ) -> None:  # fmt: skip
        """Take over a gang that runs already; where it meets use from outside, that use is its own.

        Args:
            workload: What runs.
            placement: Where.
            progress: What it had had before it was placed.
            started_s: When it was placed.
            sequence: Its number in the order of acceptance; None = the next one.

        Raises:
            Conflict: a workload with this id is queued or runs.
            PlacementError: a node of it is gone, or other gangs hold what it would need there.
        """
        entry = self._accept(workload, progress=progress, belief=None, sequence=sequence)
        entry.since_s = min(started_s, self.now_s)
        self.cluster.occupy({})
        try:
            self._run(entry, self._taken(entry, placement))
        finally:
            self.cluster.occupy(self._outside)
        self._entries[workload.id] = entry

    def start(self, workload_id: str, placement: Placement) -> Progress:
        """Record that a waiting gang was placed; return its progress, in which this wait is counted.

        Raises:
            PlacementError: it does not fit there any more; it goes on waiting.
        """
        entry = self._entry(workload_id)
        allocation = self._taken(entry, placement)
        self.pending.remove(workload_id)
        waited_s = entry.progress.waited_s + self.now_s - entry.since_s
        entry.progress = Progress(entry.progress.attained_s, waited_s, entry.progress.restart_owed_s)
        entry.since_s = self.now_s
        self._run(entry, allocation)
        return entry.progress

    def begin(self, workload_id: str) -> None:
        """Record that a placed gang runs only from now on: what it takes the place of has yielded by now."""
        entry = self._entry(workload_id)
        entry.since_s = self.now_s
        self.running.begin(workload_id, restart_owed_s=entry.progress.restart_owed_s, now_s=self.now_s)

    def report(self, workload_id: str, *, left_s: float | None = None, done: float | None = None) -> None:
        """Correct what is believed of a running gang by what it says itself.

        Args:
            workload_id: Which.
            left_s: Seconds that it has to go at its present size.
            done: Part of its work that is done, above 0; used when `left_s` is None.

        Raises:
            NotFound: no such workload runs.
            InvalidRequest: neither is given, or it is no such number.
        """
        entry = self._entry(workload_id)
        row = self.running.row_of.get(workload_id)
        if row is None:
            raise NotFound("not_running", f"workload {workload_id} does not run; only what runs reports progress")
        attained_s = self.running.attained_s_of(row, self.now_s)
        if left_s is not None and math.isfinite(left_s) and left_s >= 0.0:
            rest_s = left_s * float(self.running.floats_of("speed")[row])
        elif left_s is None and done is not None and 0.0 < done <= 1.0:
            rest_s = attained_s * (1.0 - done) / done
        else:
            raise InvalidRequest("progress", f"left_s {left_s}, done {done}: give seconds left, or a part in (0, 1]")
        entry.belief = reported(rest_s, attained_s=attained_s)
        self.running.believe(workload_id, entry.belief)

    def requeue(self, workload_id: str) -> Progress:
        """Record that a running gang has yielded what it holds, and waits again; return its progress."""
        entry = self._entry(workload_id)
        entry.progress = self._stopped(entry)
        self._wait(entry)
        return entry.progress

    def resize(self, workload_id: str, placement: Placement) -> Progress:
        """Record that a running gang goes on at another size; return its progress.

        Raises:
            PlacementError: it does not fit there; it goes on as it was.
        """
        entry = self._entry(workload_id)
        held = self.running.allocations[workload_id]
        self.cluster.give(held)
        try:
            allocation = self._taken(entry, placement)
        except PlacementError:
            self.cluster.take(held)
            raise
        entry.progress = self._progress(entry)
        entry.since_s = self.now_s
        self.running.remove(workload_id)
        self._run(entry, allocation)
        return entry.progress

    def stop(self, workload_id: str) -> Progress:
        """Take out a running gang that yields; return the progress with which it may be submitted again later."""
        progress = self._stopped(self._entry(workload_id))
        self._entries.pop(workload_id, None)
        return progress

    def finish(self, workload_id: str) -> float:
        """Record that a running gang has ended by itself, and learn from it; return the time it ran at full size."""
        entry = self._entry(workload_id)
        runtime_s = self._stopped(entry).attained_s
        self._entries.pop(workload_id, None)
        workload = entry.workload
        self.history.observe(
            tenant=workload.tenant, name=workload.name, estimate_s=workload.estimate_s, runtime_s=runtime_s
        )
        return runtime_s

    def remove(self, workload_id: str) -> None:
        """Take out a workload that was cancelled or has failed, waiting or running. Nothing is learned from it."""
        if workload_id in self.pending.row_of:
            self.pending.remove(workload_id)
        elif workload_id in self.running.row_of:
            self.cluster.give(self.running.remove(workload_id))
        else:
            raise self._unknown(workload_id)
        self._entries.pop(workload_id, None)

    def _entry(self, workload_id: str) -> _Entry:
        known = self._entries.get(workload_id)
        if known is None:
            known = self._entries[workload_id] = self._found(workload_id)
        return known

    def _found(self, workload_id: str) -> _Entry:
        table: PendingTable | RunningTable = self.pending if workload_id in self.pending.row_of else self.running
        row = table.row_of.get(workload_id)
        if row is None:
            raise self._unknown(workload_id)
        gang, queue, known = int(table.ints_of("gang")[row]), int(table.ints_of("queue")[row]), table.entry(row)
        return _Entry(known.workload, known.sequence, gang, queue, known.belief, known.progress, known.since_s)

    def _unknown(self, workload_id: str) -> NotFound:
        return NotFound("unknown_workload", f"no workload {workload_id} is queued or runs")

    def _wait(self, entry: _Entry) -> None:
        entry.since_s = self.now_s
        self.pending.add(
            entry.workload, sequence=entry.sequence, gang=entry.gang, queue=entry.queue, belief=entry.belief,
            share=self.cluster.gangs[entry.gang].share * entry.workload.gang.min_workers, progress=entry.progress,
            now_s=self.now_s,
        )  # fmt: skip

    def _accept(self, workload: Workload, *, progress: Progress, belief: Belief | None, sequence: int | None) -> _Entry:
        if workload.id in self.pending.row_of or workload.id in self.running.row_of:
            raise Conflict("duplicate_workload", f"workload {workload.id} is already here; choose another id")
        if belief is None:
            belief = self.history.believe(tenant=workload.tenant, name=workload.name, estimate_s=workload.estimate_s)
        number = self._accepted if sequence is None else sequence
        self._accepted = max(self._accepted, number + 1)
        gang, queue = self.cluster.compile(workload.gang), self.tree.row_of[workload.queue]
        return _Entry(workload, number, gang, queue, belief, progress, self.now_s)

    def _run(self, entry: _Entry, allocation: Allocation) -> None:
        """Record a gang on cells that it has taken."""
        gang = self.cluster.gangs[entry.gang]
        self.running.add(
            entry.workload, allocation, sequence=entry.sequence, gang=entry.gang, queue=entry.queue,
            belief=entry.belief, share=gang.share * allocation.num_workers, progress=entry.progress,
            now_s=entry.since_s, relative_speed=gang.speed_on(allocation.nodes),
        )  # fmt: skip

    def _taken(self, entry: _Entry, placement: Placement) -> Allocation:
        """Take cells for a gang.

        Raises:
            PlacementError: it does not fit there; nothing is taken.
        """
        rows = [(self.cluster.row_of.get(name, -1), count) for name, count in placement.workers]
        gang = self.cluster.gangs[entry.gang]
        if all(row >= 0 for row, _ in rows):
            allocation = self.cluster.view().allocate(gang, rows)
            if self.cluster.take_if_free(allocation, gang):
                return allocation
        where = ", ".join(name for name, _ in placement.workers)
        raise PlacementError("does_not_fit", f"the gang of {entry.workload.id} does not fit on {where} any more")

    def _reckon_shares(self, table: PendingTable | RunningTable) -> None:
        """Bring shares up to date with the size of the cluster."""
        share = np.array([gang.share for gang in self.cluster.gangs])
        table.set_column("share", table.ints_of("workers") * share[table.ints_of("gang")])

    def _stopped(self, entry: _Entry) -> Progress:
        """Give back a running gang's cells; return what its checkpoint holds, and that it owes a restart."""
        progress = self._progress(entry)
        self.cluster.give(self.running.remove(entry.workload.id))
        return progress

    def _progress(self, entry: _Entry) -> Progress:
        row = self.running.row_of[entry.workload.id]
        attained_s = self.running.attained_s_of(row, self.now_s)
        return Progress(attained_s, entry.progress.waited_s, entry.workload.restart_cost_s)
