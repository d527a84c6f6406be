"""The cluster as it would be with more nodes of its node types."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlaas.scheduler.autoscaling.types import NODE_TYPE_LABEL
from mlaas.scheduler.cluster import UNIT, ClusterIndex, Free
from mlaas.scheduler.decision.placement import find_nodes, most_workers
from mlaas.scheduler.types import Node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlaas.scheduler.autoscaling.types import Growth, NodeType
    from mlaas.scheduler.cluster import CompiledGang
    from mlaas.scheduler.types import Gang

MOST_NEW_NODES = 1_000
"""New nodes of one type that one decision thinks of; the next decision goes on."""


class GrownCluster:
    """Present nodes and their free cells, and behind them nodes that could come: empty of cells until bought."""

    def __init__(self, cluster: ClusterIndex, growth: Growth) -> None:
        self._growth = growth
        self.num_present = len(cluster.nodes)
        have = {each.name: 0 for each in growth.node_types}
        self.spend_usd_per_hour = 0.0
        for node in cluster.nodes:
            if (node_type := growth.type_of(node)) is not None:
                have[node_type.name] += 1
                self.spend_usd_per_hour += node_type.price_usd_per_hour
        new = [
            (node_type, Node(f"+{node_type.name}-{number}", node_type.capacity, _labels(node_type)))
            for node_type in growth.node_types
            for number in range(min(node_type.max_nodes - have[node_type.name], MOST_NEW_NODES))
        ]
        self.types: list[NodeType] = [node_type for node_type, _ in new]
        """Of each new node, in the order of the index behind the present ones."""
        self.index = ClusterIndex((*cluster.nodes, *(node for _, node in new)))
        cells = self.index.capacity.copy()
        cells[self.num_present :] = 0
        cells[: self.num_present, : cluster.num_devices] = cluster.cells[:, : cluster.num_devices]
        for name, column in cluster.scalar_column.items():
            cells[: self.num_present, self.index.scalar_column[name]] = cluster.cells[:, column]
        self.free = Free(cells, self.index.num_devices)
        self.bought: set[int] = set()

    def compile(self, gang: Gang) -> CompiledGang:
        """Return a gang's demand in cells of this cluster."""
        return self.index.gangs[self.index.compile(gang)]

    def buy_for(self, gang: CompiledGang, *, workers: int) -> list[tuple[int, int]] | None:
        """Buy the cheapest nodes of one type with which a gang fits, and return where; None when none will do."""
        offers = [offer for each in self._growth.node_types if (offer := self._offer(each, gang, workers)) is not None]
        if not offers:
            return None
        cost, rows = min(offers)
        self._open(self.free, rows)
        self.bought |= set(rows)
        self.spend_usd_per_hour += cost
        return find_nodes(self.free, gang, workers=workers)

    def most_workers(self, gang: Gang) -> int:
        """Return the size of the largest gang of this kind that the empty cluster could hold, grown by any one type."""
        compiled = self.compile(gang)
        sizes = []
        for rows in ([], *(self._affordable(each) for each in self._growth.node_types)):
            cells = self.index.capacity.copy()
            cells[self.num_present :] = 0
            cells[rows] = self.index.capacity[rows]
            sizes.append(most_workers(Free(cells, self.index.num_devices), compiled))
        return max(sizes)

    def _offer(self, node_type: NodeType, gang: CompiledGang, workers: int) -> tuple[float, list[int]] | None:
        rows = self._affordable(node_type)
        if not rows:
            return None
        one = self.free.copy()
        self._open(one, rows[:1])
        per_node = int(one.slots(gang)[rows[0]])
        if not per_node:
            return None
        lacking = max(1, workers - most_workers(self.free, gang))
        for count in sorted({math.ceil(lacking / per_node), math.ceil(workers / per_node)}):
            if count <= len(rows):
                free = self.free.copy()
                self._open(free, rows[:count])
                if find_nodes(free, gang, workers=workers) is not None:
                    return count * node_type.price_usd_per_hour, rows[:count]
        return None

    def _affordable(self, node_type: NodeType) -> list[int]:
        """Rows of new nodes of a type that the spend limit leaves."""
        rows = [
            self.num_present + number
            for number, each in enumerate(self.types)
            if each is node_type and self.num_present + number not in self.bought
        ]
        limit = self._growth.max_usd_per_hour
        if limit is None or not node_type.price_usd_per_hour:
            return rows
        left = limit - self.spend_usd_per_hour
        return rows[: max(0, math.floor(left / node_type.price_usd_per_hour + 1e-9))]

    def _open(self, free: Free, rows: Sequence[int]) -> None:
        free.cells[rows] = self.index.capacity[rows]
        free.whole[rows] = (free.cells[rows, : free.num_devices] == UNIT).sum(axis=1)


def _labels(node_type: NodeType) -> tuple[tuple[str, str], ...]:
    return (*node_type.labels, (NODE_TYPE_LABEL, node_type.name))
