"""What waits, what runs and what was used: the state that snapshots are taken of.

The live scheduler and the simulator keep the same ledger and differ only in who tells it what happened. It knows no
clock: each event comes with its time, and a clock that jumps back is taken as one that stood still.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mlaas.errors import Conflict, NotFound
from mlaas.scheduler.cluster import Allocation, ClusterIndex
from mlaas.scheduler.estimates import History
from mlaas.scheduler.fairness import decayed, held_shares
from mlaas.scheduler.quota import QueueTree
from mlaas.scheduler.snapshot import Snapshot
from mlaas.scheduler.tables import PendingTable, Progress, RunningTable, dominant_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlaas.scheduler.estimates import Belief
    from mlaas.scheduler.types import Node, Placement, Queue, Workload


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
    _accepted: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.cluster = ClusterIndex(self.nodes)
        self.tree = QueueTree(self.queues, self.cluster.resources)
        self.average_share = np.zeros(len(self.queues))

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

    def submit(self, workload: Workload, *, progress: Progress | None = None) -> None:
        """Queue a workload that has passed `validation`. One that ran before brings its progress along.

        Raises:
            Conflict: a workload with this id is queued or runs.
        """
        if workload.id in self._entries:
            raise Conflict("duplicate_workload", f"workload {workload.id} is already here; choose another id")
        gang = self.cluster.compile(workload.gang)
        belief = self.history.believe(tenant=workload.tenant, name=workload.name, estimate_s=workload.estimate_s)
        entry = _Entry(
            workload, self._accepted, gang, self.tree.row_of[workload.queue], belief, progress or Progress(), self.now_s
        )
        self._accepted += 1
        self._entries[workload.id] = entry
        self._wait(entry)

    def start(self, workload_id: str, placement: Placement) -> Progress:
        """Record that a waiting gang was placed; return its progress, in which this wait is counted."""
        entry = self._entry(workload_id)
        self.pending.remove(workload_id)
        waited_s = entry.progress.waited_s + self.now_s - entry.since_s
        entry.progress = Progress(entry.progress.attained_s, waited_s, entry.progress.restart_owed_s)
        self._run(entry, placement)
        return entry.progress

    def requeue(self, workload_id: str) -> Progress:
        """Record that a running gang has yielded what it holds, and waits again; return its progress."""
        entry = self._entry(workload_id)
        entry.progress = self._stopped(entry)
        self._wait(entry)
        return entry.progress

    def resize(self, workload_id: str, placement: Placement) -> Progress:
        """Record that a running gang goes on at another size; return its progress."""
        entry = self._entry(workload_id)
        entry.progress = self._stopped(entry)
        self._run(entry, placement)
        return entry.progress

    def finish(self, workload_id: str) -> float:
        """Record that a running gang has ended by itself, and learn from it; return the time it ran at full size."""
        entry = self._entry(workload_id)
        runtime_s = self._stopped(entry).attained_s
        del self._entries[workload_id]
        workload = entry.workload
        self.history.observe(
            tenant=workload.tenant, name=workload.name, estimate_s=workload.estimate_s, runtime_s=runtime_s
        )
        return runtime_s

    def remove(self, workload_id: str) -> None:
        """Take out a workload that was cancelled or has failed, waiting or running. Nothing is learned from it."""
        self._entry(workload_id)
        del self._entries[workload_id]
        if workload_id in self.pending.row_of:
            self.pending.remove(workload_id)
        else:
            self.cluster.give(self.running.remove(workload_id))

    def _entry(self, workload_id: str) -> _Entry:
        if workload_id not in self._entries:
            raise NotFound("unknown_workload", f"no workload {workload_id} is queued or runs")
        return self._entries[workload_id]

    def _wait(self, entry: _Entry) -> None:
        entry.since_s = self.now_s
        self.pending.add(
            entry.workload, sequence=entry.sequence, gang=entry.gang, queue=entry.queue, belief=entry.belief,
            share=self._share(entry, entry.workload.gang.min_workers), progress=entry.progress, now_s=self.now_s,
        )  # fmt: skip

    def _run(self, entry: _Entry, placement: Placement) -> None:
        entry.since_s = self.now_s
        allocation = self._allocate(entry, placement)
        self.cluster.take(allocation)
        self.running.add(
            entry.workload, allocation, sequence=entry.sequence, gang=entry.gang, queue=entry.queue,
            belief=entry.belief, share=self._share(entry, placement.num_workers), progress=entry.progress,
            now_s=self.now_s,
        )  # fmt: skip

    def _allocate(self, entry: _Entry, placement: Placement) -> Allocation:
        nodes = [(self.cluster.row_of[name], count) for name, count in placement.workers]
        return self.cluster.view().allocate(self.cluster.gangs[entry.gang], nodes)

    def _stopped(self, entry: _Entry) -> Progress:
        """Give back a running gang's cells; return what its checkpoint holds, and that it owes a restart."""
        row = self.running.row_of[entry.workload.id]
        attained_s = float(self.running.attained_s(self.now_s)[row])
        self.cluster.give(self.running.remove(entry.workload.id))
        return Progress(attained_s, entry.progress.waited_s, entry.workload.restart_cost_s)

    def _share(self, entry: _Entry, workers: int) -> float:
        return dominant_share(self.cluster.gangs[entry.gang], self.cluster, workers=workers)
