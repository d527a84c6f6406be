"""Decisions that can be replayed: a snapshot to and from JSON, exactly, and the last few with what was decided.

`decide(decode_snapshot(text), policy)` is the decision that was made live, whatever has happened since.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter, ValidationError

from mlaas.errors import InvalidRequest
from mlaas.scheduler.cluster import Allocation, ClusterIndex
from mlaas.scheduler.decision.quota import QueueTree
from mlaas.scheduler.estimates import Belief
from mlaas.scheduler.snapshot import Snapshot
from mlaas.scheduler.tables import PendingTable, Progress, RunningTable
from mlaas.scheduler.types import Decision, Node, Queue, Workload

if TYPE_CHECKING:
    from mlaas.scheduler.tables import Entry

FORMAT = 1
"""Grows when a recording of before cannot be read any more."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A workload that waits."""

    workload: Workload
    sequence: int
    belief: Belief
    progress: Progress
    since_s: float


@dataclass(frozen=True, slots=True)
class _Gang(_Row):
    """A workload that runs, and its cells."""

    nodes: tuple[tuple[int, int], ...]
    cells: tuple[int, ...]
    amounts: tuple[int, ...]
    workers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _World:
    format: int
    now_s: float
    nodes: tuple[Node, ...]
    outside: tuple[tuple[int, int], ...]
    """(cell, units) that run without this scheduler."""
    queues: tuple[Queue, ...]
    average_share: tuple[float, ...]
    waiting: tuple[_Row, ...]
    running: tuple[_Gang, ...]


_ADAPTER = TypeAdapter(_World)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return a snapshot as JSON."""
    outside = snapshot.cluster.outside.reshape(-1)
    world = _World(
        format=FORMAT,
        now_s=snapshot.now_s,
        nodes=snapshot.cluster.nodes,
        outside=tuple((int(cell), int(outside[cell])) for cell in np.flatnonzero(outside)),
        queues=snapshot.queues.queues,
        average_share=tuple(snapshot.average_share.tolist()),
        waiting=tuple(_row(snapshot.pending.entry(row)) for row in range(len(snapshot.pending))),
        running=tuple(
            _gang(snapshot.running.entry(row), snapshot.running.allocations[workload_id])
            for row, workload_id in enumerate(snapshot.running.ids)
        ),
    )
    return _ADAPTER.dump_json(world)


def decode_snapshot(recorded: bytes) -> Snapshot:
    """Return the snapshot that was recorded.

    Raises:
        InvalidRequest: it is no recording, or one of another format.
    """
    try:
        world = _ADAPTER.validate_json(recorded)
    except ValidationError as error:
        raise InvalidRequest("bad_recording", f"this is no recorded snapshot: {error.errors()[0]['msg']}") from error
    if world.format != FORMAT:
        raise InvalidRequest("bad_recording", f"a recording of format {world.format}; this version reads {FORMAT}")
    cluster = ClusterIndex(world.nodes)
    outside = np.zeros_like(cluster.outside)
    for cell, units in world.outside:
        outside.reshape(-1)[cell] = units
    cluster.set_outside(outside)
    tree = QueueTree(world.queues, cluster.resources)
    pending, running = PendingTable(), RunningTable()
    for row in world.waiting:
        gang = cluster.compile(row.workload.gang)
        share = cluster.gangs[gang].share * row.workload.gang.min_workers
        pending.add(
            row.workload, sequence=row.sequence, gang=gang, queue=tree.row_of[row.workload.queue], share=share,
            belief=row.belief, progress=row.progress, now_s=row.since_s,
        )  # fmt: skip
    for held in world.running:
        gang = cluster.compile(held.workload.gang)
        allocation = Allocation(
            held.nodes, *(np.array(each, dtype=np.int64) for each in (held.cells, held.amounts, held.workers))
        )
        cluster.take(allocation)
        running.add(
            held.workload, allocation, sequence=held.sequence, gang=gang, queue=tree.row_of[held.workload.queue],
            share=cluster.gangs[gang].share * allocation.num_workers, belief=held.belief, progress=held.progress,
            now_s=held.since_s, relative_speed=cluster.gangs[gang].speed_on(allocation.nodes),
        )  # fmt: skip
    return Snapshot(world.now_s, cluster, tree, pending, running, np.array(world.average_share))


@dataclass(frozen=True, slots=True)
class Recording:
    """One decision that was made."""

    number: int
    """Counts all decisions of this process, from 0."""
    policy: str
    snapshot: bytes
    """As `encode_snapshot` writes it."""
    decision: Decision


class Recorder:
    """The last decisions that did something, in memory."""

    def __init__(self, *, most: int) -> None:
        """Keep up to `most`. Each is a copy of all tables: a few megabytes for ten thousand workloads."""
        self._kept: deque[tuple[int, str, Snapshot, Decision]] = deque(maxlen=most)
        self._number = 0

    def record(self, snapshot: Snapshot, decision: Decision, *, policy: str) -> None:
        """Keep a decision. Call it before the decision is applied: the snapshot points into the ledger."""
        if decision.actions:
            self._kept.append((self._number, policy, snapshot.copy(), decision))
        self._number += 1

    def recordings(self) -> tuple[Recording, ...]:
        """Return what is kept, the oldest first."""
        return tuple(
            Recording(number, policy, encode_snapshot(snapshot), decision)
            for number, policy, snapshot, decision in self._kept
        )


def _row(entry: Entry) -> _Row:
    return _Row(entry.workload, entry.sequence, entry.belief, entry.progress, entry.since_s)


def _gang(entry: Entry, allocation: Allocation) -> _Gang:
    return _Gang(
        entry.workload, entry.sequence, entry.belief, entry.progress, entry.since_s,
        nodes=allocation.nodes, cells=tuple(allocation.cells.tolist()), amounts=tuple(allocation.amounts.tolist()),
        workers=tuple(allocation.workers.tolist()),
    )  # fmt: skip
