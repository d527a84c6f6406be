"""Guarantees, borrowing and lending in a tree of queues.

A queue may use its guarantee, and beyond it what its cohort's members lend and do not use. Amounts follow Kueue: a
cohort's quota is what its children lend upwards and what it is guaranteed beyond their guarantees; usage beyond what
a child keeps is charged to its parent.

Source: Kueue, `pkg/cache/scheduler/resource_node.go` and KEP-79 (hierarchical cohorts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.cluster import units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlaas.scheduler.cluster import Bools, Ints
    from mlaas.scheduler.types import Queue

INFINITE = np.int64(2**60)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What bounds each queue's use, queues x resources, as plain integers."""

    kept: list[list[int]]
    lent: list[list[int]]
    quota: list[list[int]]
    limit: list[list[int]]
    guaranteed: list[list[int]]
    """Of each queue, the resources that it has a guarantee of."""
    entitlement: list[list[int]]


class QueueTree:
    """The queues, compiled: a row per queue, a column per resource of the cluster."""

    def __init__(self, queues: Sequence[Queue], resources: Sequence[str]) -> None:
        self.queues = tuple(queues)
        self.resources = tuple(resources)
        self.row_of = {queue.name: row for row, queue in enumerate(self.queues)}
        self.parent = [-1 if queue.parent is None else self.row_of[queue.parent] for queue in self.queues]
        self._paths = [self._path(row) for row in range(len(self.queues))]
        self.parents = np.array(self.parent, dtype=np.int64)
        self.weight = np.array([queue.weight for queue in self.queues])
        self.guarantee = self._matrix([queue.guarantee for queue in self.queues], absent=0)
        self.borrowing_limit = self._matrix([queue.borrowing_limit for queue in self.queues], absent=int(INFINITE))
        lending_limit = self._matrix([queue.lending_limit for queue in self.queues], absent=int(INFINITE))
        self.is_limited = any(queue.guarantee or queue.borrowing_limit or queue.lending_limit for queue in self.queues)
        depths = np.array([self._depth(row) for row in range(len(self.queues))], dtype=np.int64)
        self.levels = [np.flatnonzero(depths == depth) for depth in range(1, int(depths.max(initial=0)) + 1)]
        self.quota = np.zeros_like(self.guarantee)
        self.lent = np.zeros_like(self.guarantee)
        for row in np.argsort(-depths, kind="stable").tolist():
            children = [child for child, parent in enumerate(self.parent) if parent == row]
            beyond_children = self.guarantee[row] - self.quota[children].sum(axis=0)
            self.quota[row] = np.maximum(beyond_children, 0) + self.lent[children].sum(axis=0)
            self.lent[row] = np.minimum(self.quota[row], lending_limit[row])
        self.kept = self.quota - self.lent
        self.entitlement = self.quota.copy()
        for row, parent in enumerate(self.parent):
            if parent < 0:
                self.quota[row][~self._named_below(row)] = INFINITE
                self.kept[row] = 0
        self.has_guarantee: Bools = np.array([bool((queue > 0).any()) for queue in self.guarantee], dtype=bool)
        self.owned = np.where(self.guarantee > 0, self.entitlement, INFINITE)
        """What a queue may hold and borrow nothing; of what it has no guarantee of, all."""
        self.bounds = _Bounds(
            self.kept.tolist(), self.lent.tolist(), self.quota.tolist(), self.borrowing_limit.tolist(),
            [np.flatnonzero(amounts > 0).tolist() for amounts in self.guarantee], self.entitlement.tolist(),
        )  # fmt: skip

    def usage(self, by_leaf: Ints) -> Usage:
        """Return the state of all quotas when each queue's own workloads use `by_leaf` units (queues x resources)."""
        total = by_leaf.copy()
        for level in reversed(self.levels[1:]):
            np.add.at(total, self.parents[level], np.maximum(total[level] - self.kept[level], 0))
        return Usage(self, by_leaf.copy(), total.tolist())

    def path(self, row: int) -> list[int]:
        """Return a queue and its ancestors, the root last."""
        return self._paths[row]

    def _path(self, row: int) -> list[int]:
        rows = [row]
        while self.parent[rows[-1]] >= 0:
            rows.append(self.parent[rows[-1]])
        return rows

    def _depth(self, row: int) -> int:
        return len(self.path(row))

    def _matrix(self, limits: Sequence[tuple[tuple[str, float], ...]], *, absent: int) -> Ints:
        rows = [
            [units(named[name]) if name in named else absent for name in self.resources] for named in map(dict, limits)
        ]
        return np.array(rows, dtype=np.int64).reshape(len(limits), len(self.resources))

    def _named_below(self, root: int) -> Bools:
        """Resources that any queue of the tree under a root guarantees; the others are free for all."""
        members = [row for row in range(len(self.queues)) if self.path(row)[-1] == root]
        named = {name for row in members for name, _ in self.queues[row].guarantee}
        return np.array([name in named for name in self.resources], dtype=bool)


class Usage:
    """What the queues use, while a plan charges and refunds them.

    Plain integers: a plan asks thousands of times about two or three resources, where arrays would cost more than
    they save.
    """

    def __init__(self, tree: QueueTree, by_leaf: Ints, total: list[list[int]]) -> None:
        self.tree = tree
        self.by_leaf = by_leaf
        """Units that each queue's own workloads use, queues x resources."""
        self._total = total
        self._kept, self._lent = tree.bounds.kept, tree.bounds.lent
        self._quota, self._limit = tree.bounds.quota, tree.bounds.limit

    def copy(self) -> Usage:
        """Return an independent copy."""
        return Usage(self.tree, self.by_leaf.copy(), [row.copy() for row in self._total])

    def charge(self, row: int, need: Ints) -> None:
        """Add usage to a queue; a negative `need` refunds it."""
        self.by_leaf[row] += need
        path = self.tree.path(row)
        for column, amount in enumerate(need.tolist()):
            for node in path if amount else ():
                total, kept = self._total[node], self._kept[node][column]
                before = max(total[column] - kept, 0)
                total[column] += amount
                amount = max(total[column] - kept, 0) - before

    def available(self, row: int, column: int) -> int:
        """Return how many more units of a resource the queue may use, its own and what it may borrow."""
        parent, used, quota = self.tree.parent[row], self._total[row][column], self._quota[row][column]
        if parent < 0:
            return int(INFINITE) if quota >= INFINITE else quota - used
        kept, limit = self._kept[row][column], self._limit[row][column]
        upward = self.available(parent, column)
        if limit < INFINITE:
            upward = min(upward, self._lent[row][column] - max(used - kept, 0) + limit)
        return max(kept - used, 0) + upward

    def fits(self, row: int, need: Ints) -> bool:
        """Return whether the queue may use `need` more."""
        return all(amount <= self.available(row, column) for column, amount in enumerate(need.tolist()) if amount > 0)

    def is_entitled(self, row: int, need: Ints) -> bool:
        """Return whether `need` more stays within the queue's own guarantee of every resource that has one."""
        total, named, entitlement = (
            self._total[row],
            self.tree.bounds.guaranteed[row],
            self.tree.bounds.entitlement[row],
        )
        return bool(named) and all(total[it] + int(need[it]) <= entitlement[it] for it in named)
