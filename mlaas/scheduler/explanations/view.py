"""The cluster at a glance: nodes, gangs, queues, tenants and fragmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.cluster import UNIT
from mlaas.scheduler.decision.fairness import fair_shares

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlaas.scheduler.cluster import Bools, ClusterIndex, Ints
    from mlaas.scheduler.decision.ordering import SchedulingPolicy
    from mlaas.scheduler.estimates import Floats
    from mlaas.scheduler.explanations.shortage import Amounts
    from mlaas.scheduler.snapshot import Snapshot
    from mlaas.scheduler.types import Placement

MOST_WAITING = 1_000
"""Waiting workloads that are named."""
MOST_SHAPES = 64
"""Different gangs in the queue that fragmentation is measured for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node and who uses it."""

    name: str
    host: str
    """What people call the machine; empty when that is its name."""
    labels: tuple[tuple[str, str], ...]
    schedulable: bool
    """False: it drains, or is lost while a gang is still booked there."""
    capacity: Amounts
    used: Amounts
    """By gangs of this scheduler."""
    outside: Amounts
    """By what it did not start."""
    gangs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GangView:
    """A gang on its nodes."""

    workload_id: str
    name: str
    tenant: str
    queue: str
    kind: str
    priority: int
    placement: Placement
    gpus: float
    since_s: float
    """Seconds that it has held them."""
    attained_s: float
    """Time at full size that its checkpoint would hold."""
    left_s: float
    """Seconds that it is expected to go on."""
    yield_within_s: float | None
    """Seconds until it is killed, when it has been told to yield."""

    @property
    def progress(self) -> float:
        """Part of its work that is believed to be done."""
        return self.attained_s / max(self.attained_s + self.left_s, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingView:
    """A workload that waits."""

    workload_id: str
    tenant: str
    position: int
    """From 1, in the order in which the next decision looks at them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """A queue or cohort: quota in every resource that any queue limits, and its part of the cluster."""

    name: str
    parent: str | None
    num_running: int
    """Of its own and all below it."""
    num_waiting: int
    guarantee: Amounts
    used: Amounts
    """By its own workloads and all below it."""
    borrowed: Amounts
    """Used beyond its guarantee."""
    lent: Amounts
    """Of its unused guarantee, what its siblings' borrowing takes: in proportion to what each has to lend."""
    average_share: float
    """Dominant share of the cluster that it has had lately, with decay."""
    due_share: float
    """Dominant share that it is due now, among the queues that have work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantView:
    """A tenant and what it has."""

    name: str
    num_running: int
    num_waiting: int
    gpus: float
    share: float
    """Dominant share of the cluster that its gangs hold now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragmentation:
    """How much of what is free is of use."""

    free_gpus: float
    idle_nodes: int
    """Nodes that take work and have none."""
    largest_gpus: float
    """Most free GPUs on one node."""
    wasted: float
    """Part of the free GPUs that the average waiting gang cannot use, because of where they lie; 0 when none waits.

    Source: Weng et al., "Beware of Fragmentation", USENIX ATC 2023.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """The cluster at one moment."""

    nodes: tuple[NodeView, ...]
    gangs: tuple[GangView, ...]
    """The one that has run longest first."""
    waiting: tuple[WaitingView, ...]
    """The first `MOST_WAITING`, in order."""
    queues: tuple[QueueView, ...]
    tenants: tuple[TenantView, ...]
    fragmentation: Fragmentation
    num_waiting: int
    total_gpus: float
    used_gpus: float
    others: tuple[TenantView, ...] = ()
    """Sums over the tenants that whoever looks may not see one by one; empty when `tenants` are all."""

    @property
    def utilization(self) -> float:
        """Part of all GPUs that gangs of this scheduler hold."""
        return self.used_gpus / self.total_gpus if self.total_gpus else 0.0


def view(snapshot: Snapshot, policy: SchedulingPolicy, *, yield_by_s: Mapping[str, float]) -> ClusterView:
    """Return the cluster at a glance.

    Args:
        snapshot: The world.
        policy: What says how long gangs are expected to go on.
        yield_by_s: Deadlines of those that were told to yield, on the snapshot's clock.
    """
    gangs = _gangs(snapshot, policy.running_left_s(snapshot), yield_by_s)
    return ClusterView(
        nodes=_nodes(snapshot),
        gangs=gangs,
        waiting=_waiting(snapshot, policy),
        queues=_queues(snapshot),
        tenants=_tenants(snapshot),
        fragmentation=_fragmentation(snapshot),
        num_waiting=len(snapshot.pending),
        total_gpus=snapshot.cluster.gpu_units / UNIT,
        used_gpus=sum(gang.gpus for gang in gangs),
    )


def _nodes(snapshot: Snapshot) -> tuple[NodeView, ...]:
    cluster = snapshot.cluster
    used = cluster.capacity - cluster.cells - cluster.outside
    on: dict[int, list[str]] = {}
    for workload_id, allocation in snapshot.running.allocations.items():
        for row, _ in allocation.nodes:
            on.setdefault(row, []).append(workload_id)
    return tuple(
        NodeView(
            name=node.name,
            host=node.host,
            labels=node.labels,
            schedulable=node.schedulable,
            capacity=_amounts(cluster, cluster.capacity[row]),
            used=_amounts(cluster, used[row]),
            outside=_amounts(cluster, cluster.outside[row]),
            gangs=tuple(on.get(row, ())),
        )
        for row, node in enumerate(cluster.nodes)
    )


def _amounts(cluster: ClusterIndex, cells: Ints) -> Amounts:
    """Return what the cells of one node amount to, by resource; zeros are left out."""
    units = {"GPU": int(cells[: cluster.num_devices].sum())}
    units |= {name: int(cells[column]) for name, column in cluster.scalar_column.items()}
    return tuple((name, value / UNIT) for name, value in units.items() if value)


def _gangs(snapshot: Snapshot, left_s: Floats, yield_by_s: Mapping[str, float]) -> tuple[GangView, ...]:
    running, now_s = snapshot.running, snapshot.now_s
    attained_s = running.attained_s(now_s)
    started_s = running.floats_of("started_s")
    gangs = []
    for row in np.argsort(started_s, kind="stable"):
        workload = running.workloads[row]
        deadline_s = yield_by_s.get(workload.id)
        placement = snapshot.cluster.placement(running.allocations[workload.id])
        gangs.append(
            GangView(
                workload_id=workload.id,
                name=workload.name,
                tenant=workload.tenant,
                queue=workload.queue,
                kind=workload.kind,
                priority=workload.priority,
                placement=placement,
                gpus=round(workload.gang.worker.gpus * placement.num_workers, 4),
                since_s=max(now_s - float(started_s[row]), 0.0),
                attained_s=float(attained_s[row]),
                left_s=float(left_s[row]),
                yield_within_s=None if deadline_s is None else max(deadline_s - now_s, 0.0),
            )
        )
    return tuple(gangs)


def _waiting(snapshot: Snapshot, policy: SchedulingPolicy) -> tuple[WaitingView, ...]:
    pending = snapshot.pending
    order = np.lexsort((pending.ints_of("sequence"), -policy.pending_ranks(snapshot)))[:MOST_WAITING]
    return tuple(
        WaitingView(workload_id=pending.workloads[row].id, tenant=pending.workloads[row].tenant, position=position)
        for position, row in enumerate(order, start=1)
    )


def _queues(snapshot: Snapshot) -> tuple[QueueView, ...]:
    tree, pending, running = snapshot.queues, snapshot.pending, snapshot.running
    rows = range(len(tree.queues))
    below = np.zeros((len(rows), len(rows)), dtype=bool)
    for row in rows:
        below[tree.path(row), row] = True
    used = below.astype(np.int64) @ snapshot.usage.by_leaf
    waits = np.bincount(pending.ints_of("queue"), minlength=len(rows))
    runs = np.bincount(running.ints_of("queue"), minlength=len(rows))
    due = fair_shares(tree, (waits + runs) > 0)
    borrowed = np.maximum(used - tree.entitlement, 0)
    lent = _lent(snapshot, used, borrowed)
    named = [bool(column.any()) for column in tree.guarantee.T]

    def amounts(units: Ints) -> Amounts:
        return tuple((name, int(units[column]) / UNIT) for column, name in enumerate(tree.resources) if named[column])

    return tuple(
        QueueView(
            name=queue.name,
            parent=queue.parent,
            num_running=int(runs[below[row]].sum()),
            num_waiting=int(waits[below[row]].sum()),
            guarantee=amounts(tree.entitlement[row]),
            used=amounts(used[row]),
            borrowed=amounts(borrowed[row]),
            lent=amounts(lent[row]),
            average_share=float(snapshot.average_share[below[row]].sum()),
            due_share=float(due[row]),
        )
        for row, queue in enumerate(tree.queues)
    )


def _lent(snapshot: Snapshot, used: Ints, borrowed: Ints) -> Ints:
    """Return what siblings' borrowing takes of each queue's unused guarantee."""
    tree = snapshot.queues
    idle = np.maximum(np.minimum(tree.entitlement - used, tree.lent), 0)
    lent = np.zeros_like(idle)
    for cohort in set(tree.parent) - {-1}:
        members = [row for row, above in enumerate(tree.parent) if above == cohort]
        offered = idle[members].sum(axis=0)
        taken = np.minimum(borrowed[members].sum(axis=0), offered)
        lent[members] = idle[members] * taken // np.maximum(offered, 1)
    return lent


def _tenants(snapshot: Snapshot) -> tuple[TenantView, ...]:
    held: dict[str, list[float]] = {}
    for row, workload in enumerate(snapshot.running.workloads):
        tenant = held.setdefault(workload.tenant, [0.0, 0.0, 0.0, 0.0])
        tenant[0] += 1
        tenant[2] += workload.gang.worker.gpus * float(snapshot.running.ints_of("workers")[row])
        tenant[3] += float(snapshot.running.floats_of("share")[row])
    for workload in snapshot.pending.workloads:
        held.setdefault(workload.tenant, [0.0, 0.0, 0.0, 0.0])[1] += 1
    return tuple(
        TenantView(name=name, num_running=int(runs), num_waiting=int(waits), gpus=round(gpus, 4), share=share)
        for name, (runs, waits, gpus, share) in sorted(held.items(), key=lambda item: (-item[1][3], item[0]))
    )


def _fragmentation(snapshot: Snapshot) -> Fragmentation:
    cluster = snapshot.cluster
    takes_work: Bools = np.array([node.schedulable for node in cluster.nodes], dtype=bool)
    free = cluster.cells[:, : cluster.num_devices].sum(axis=1) * takes_work
    idle = takes_work & ~(cluster.capacity - cluster.cells).any(axis=1)
    total = int(free.sum())
    return Fragmentation(
        free_gpus=total / UNIT,
        idle_nodes=int(idle.sum()),
        largest_gpus=float(free.max(initial=0)) / UNIT,
        wasted=_wasted(snapshot, total),
    )


def _wasted(snapshot: Snapshot, free_units: int) -> float:
    """Return the part of the free GPUs that is of no use to what waits, by how many of each kind wait."""
    shapes = np.bincount(snapshot.pending.ints_of("gang"), minlength=1)
    common = [int(shape) for shape in np.argsort(-shapes, kind="stable")[:MOST_SHAPES] if shapes[shape]]
    gangs = [(snapshot.cluster.gangs[shape], int(shapes[shape])) for shape in common]
    gangs = [(gang, number) for gang, number in gangs if gang.gpu_units]
    if not free_units or not gangs:
        return 0.0
    cells = snapshot.cluster.view()
    useful = sum(number * int(cells.slots(gang).sum()) * gang.gpu_units for gang, number in gangs)
    return 1.0 - useful / (sum(number for _, number in gangs) * free_units)
