"""What operators watch of the scheduler, counted from its decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlaas.observability.definitions import (
    DECISION,
    GPUS,
    LOST_GPU_SECONDS,
    PENDING,
    PREEMPTIONS,
    QUEUE_SHARE,
    RUNNING,
    TENANT_SHARE,
    UTILIZATION,
    WAIT,
)
from mlaas.scheduler.cluster import UNIT
from mlaas.scheduler.types import Move, Place, Preempt, Shrink, WaitCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlaas.observability.meters import Meters
    from mlaas.scheduler.snapshot import Snapshot
    from mlaas.scheduler.types import Decision

_KINDS = {Preempt: "yield", Shrink: "shrink", Move: "move"}
HELD_BACK = "held-back"
"""Reason of those that wait for a dependency or the end of their back-off."""


def observe(
    meters: Meters, snapshot: Snapshot, decision: Decision, *, decision_s: float, held_back: Mapping[str, int]
) -> None:
    """Count a decision. Call it before the decision is applied: the snapshot points into the ledger.

    Args:
        meters: Where to count.
        snapshot: What was decided on.
        decision: What was decided.
        decision_s: How long that took.
        held_back: Workloads by queue that a dependency or a back-off keeps out of the snapshot.
    """
    meters.observe(DECISION, decision_s)
    _count_actions(meters, snapshot, decision)
    meters.replace(PENDING, _pending(snapshot, decision, held_back))
    queues = [queue.name for queue in snapshot.queues.queues]
    running = np.bincount(snapshot.running.ints_of("queue"), minlength=len(queues)).tolist()
    meters.replace(RUNNING, {(queue,): count for queue, count in zip(queues, running, strict=True)})
    shares = snapshot.average_share.tolist()
    meters.replace(QUEUE_SHARE, {(queue,): share for queue, share in zip(queues, shares, strict=True)})
    meters.replace(TENANT_SHARE, _tenant_shares(snapshot))
    _count_gpus(meters, snapshot)


def _count_actions(meters: Meters, snapshot: Snapshot, decision: Decision) -> None:
    pending, running = snapshot.pending, snapshot.running
    waits_s = pending.waits_s(snapshot.now_s)
    for action in decision.actions:
        match action:
            case Place():
                row = pending.row_of[action.workload_id]
                meters.observe(WAIT, float(waits_s[row]), (pending.workloads[row].queue,))
            case Preempt() | Shrink() | Move():
                row = running.row_of[action.workload_id]
                workload = running.workloads[row]
                size = int(running.ints_of("workers")[row])
                meters.add(PREEMPTIONS, (workload.queue, _KINDS[type(action)]))
                lost = workload.restart_cost_s * workload.gang.worker.gpus * size
                meters.add(LOST_GPU_SECONDS, (workload.queue,), amount=lost)


def _pending(snapshot: Snapshot, decision: Decision, held_back: Mapping[str, int]) -> dict[tuple[str, ...], float]:
    """Return how many wait by queue and reason; those that this decision places do not wait any more."""
    pending = snapshot.pending
    queues = [queue.name for queue in snapshot.queues.queues]
    counts = np.bincount(pending.ints_of("queue"), minlength=len(queues)).tolist()
    waits: dict[tuple[str, ...], float] = {
        (queue, WaitCode.QUEUED.value): count for queue, count in zip(queues, counts, strict=True) if count
    }
    for action in decision.actions:
        if isinstance(action, Place):
            waits[pending.workloads[pending.row_of[action.workload_id]].queue, WaitCode.QUEUED.value] -= 1
    for wait in decision.blocked:
        queue = pending.workloads[pending.row_of[wait.workload_id]].queue
        waits[queue, WaitCode.QUEUED.value] -= 1
        waits[queue, wait.code.value] = waits.get((queue, wait.code.value), 0) + 1
    return waits | {(queue, HELD_BACK): count for queue, count in held_back.items()}


def _tenant_shares(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    shares: dict[tuple[str, ...], float] = {}
    for workload, share in zip(snapshot.running.workloads, snapshot.running.floats_of("share").tolist(), strict=True):
        shares[workload.tenant,] = shares.get((workload.tenant,), 0.0) + share
    return shares


def _count_gpus(meters: Meters, snapshot: Snapshot) -> None:
    cluster = snapshot.cluster
    free, outside = (int(cells[:, : cluster.num_devices].sum()) for cells in (cluster.cells, cluster.outside))
    used = cluster.gpu_units - free - outside
    holders = {"gangs": used, "outside": outside, "free": free}
    meters.replace(GPUS, {(holder,): units / UNIT for holder, units in holders.items()})
    meters.replace(UTILIZATION, {(): used / max(cluster.gpu_units, 1)})
