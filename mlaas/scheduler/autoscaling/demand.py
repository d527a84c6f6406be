"""What the autoscaler is asked for: whole gangs that quota allows and no present node holds. Pure.

Gangs are looked at in the order in which they would start. Each one first takes what is free on the nodes that are
there, and on those that gangs before it have brought; only then are nodes asked for, of the one type that makes it
fit for the least money. A gang that cannot be brought whole brings nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.autoscaling.grown import GrownCluster
from mlaas.scheduler.autoscaling.types import NODE_ID_LABEL
from mlaas.scheduler.cluster import UNIT, units
from mlaas.scheduler.decision.placement import find_nodes
from mlaas.scheduler.decision.quota import QueueTree
from mlaas.scheduler.live.ports import Demand
from mlaas.scheduler.types import Gang, Resources

if TYPE_CHECKING:
    from mlaas.scheduler.autoscaling.types import Growth
    from mlaas.scheduler.decision.ordering import SchedulingPolicy
    from mlaas.scheduler.snapshot import Snapshot

MOST_GANGS = 500
"""Waiting gangs that one decision looks at: nodes take minutes to come, the next decision is a moment away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What the cluster should hold, and what that brings."""

    demand: tuple[Demand, ...]
    """For `ClusterPort.publish_demand`: a bundle for each node that is in use or asked for."""
    new_nodes: tuple[tuple[str, int], ...]
    """Node types that are asked for, and how many of each."""
    spend_usd_per_hour: float
    """Of all nodes of known types, once the new ones are there."""
    brought: tuple[str, ...]
    """Workloads that nodes are asked for."""
    refused: tuple[tuple[str, str], ...]
    """Workloads that wait and bring nothing, each with its reason."""


def decide_demand(snapshot: Snapshot, policy: SchedulingPolicy, growth: Growth) -> Demands:
    """Return what to ask the autoscaler for.

    Args:
        snapshot: The world.
        policy: The order of what waits.
        growth: Node types, and the spend limit.
    """
    plan = _Plan(snapshot, growth)
    pending = snapshot.pending
    order = np.lexsort((pending.ints_of("sequence"), -policy.pending_ranks(snapshot)))
    for row in order[:MOST_GANGS].tolist():
        plan.bring(row)
    return plan.result()


class _Plan:
    """The demand under way."""

    def __init__(self, snapshot: Snapshot, growth: Growth) -> None:
        self.pending = snapshot.pending
        self.cluster = GrownCluster(snapshot.cluster, growth)
        self.tree = QueueTree(snapshot.queues.queues, self.cluster.index.resources)
        known = [self.tree.resources.index(name) for name in snapshot.queues.resources]
        used = np.zeros((len(self.tree.queues), len(self.tree.resources)), dtype=np.int64)
        used[:, known] = snapshot.usage.by_leaf
        self.usage = self.tree.usage(used)
        self.brought: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self.hopeless: dict[tuple[Gang, str], str] = {}

    def bring(self, row: int) -> None:
        """Find nodes for a gang that waits, or ask for them."""
        workload = self.pending.workloads[row]
        shape = (workload.gang, workload.queue)
        reason = self.hopeless.get(shape) or self._bring(row)
        if reason is not None:
            self.hopeless[shape] = reason
            self.refused.append((workload.id, reason))

    def _bring(self, row: int) -> str | None:
        """Return why nothing is brought; None when the gang has its nodes."""
        workload = self.pending.workloads[row]
        gang, workers = self.cluster.compile(workload.gang), workload.gang.min_workers
        need, queue = workers * self._need(workload.gang), self.tree.row_of[workload.queue]
        if not self.usage.fits(queue, need):
            return f"queue {workload.queue} is at its limit"
        nodes = find_nodes(self.cluster.free, gang, workers=workers)
        if nodes is None:
            nodes = self.cluster.buy_for(gang, workers=workers)
            if nodes is None:
                return "no node type holds it within what node types and the spend limit leave"
            self.brought.append(workload.id)
        self.cluster.free.take(self.cluster.free.allocate(gang, nodes))
        self.usage.charge(queue, need)
        return None

    def _need(self, gang: Gang) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        asked = gang.worker.amounts()
        return np.array([units(asked.get(name, 0.0)) for name in self.tree.resources], dtype=np.int64)

    def result(self) -> Demands:
        """Return the demand: what each present node holds then, and each new node whole.

        New nodes are asked for whole, so that the autoscaler's own packing cannot lay two of them on one. Their memory
        is left out: a machine always has a little less than its type says.
        """
        cluster = self.cluster
        demand = []
        counts: dict[str, int] = {}
        for row in range(cluster.num_present):
            node = cluster.index.nodes[row]
            used = self._resources(cluster.index.capacity[row] - cluster.free.cells[row])
            if used.amounts():
                demand.append(Demand(Gang(worker=used, labels=((NODE_ID_LABEL, node.name),)), 1))
        for row in sorted(cluster.bought):
            node_type = cluster.types[row - cluster.num_present]
            whole = node_type.capacity
            worker = Resources(gpus=whole.gpus, cpus=whole.cpus, custom=whole.custom)
            demand.append(Demand(Gang(worker=worker, labels=node_type.labels), 1))
            counts[node_type.name] = counts.get(node_type.name, 0) + 1
        return Demands(
            demand=tuple(demand),
            new_nodes=tuple(sorted(counts.items())),
            spend_usd_per_hour=cluster.spend_usd_per_hour,
            brought=tuple(self.brought),
            refused=tuple(self.refused),
        )

    def _resources(self, cells: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Resources:
        index = self.cluster.index
        amounts = {name: int(cells[column]) / UNIT for name, column in index.scalar_column.items() if cells[column] > 0}
        cpus, memory = amounts.pop("CPU", 0.0), amounts.pop("memory", 0.0)
        gpus = int(cells[: index.num_devices].sum()) / UNIT
        return Resources(gpus=gpus, cpus=cpus, memory_bytes=int(memory), custom=tuple(sorted(amounts.items())))
