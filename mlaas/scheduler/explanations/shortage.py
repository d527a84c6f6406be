"""What a gang lacks: quota of its queue, or room on nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.cluster import UNIT
from mlaas.scheduler.decision.placement import most_workers
from mlaas.scheduler.decision.quota import INFINITE
from mlaas.scheduler.wording import amount, count, listed

if TYPE_CHECKING:
    from mlaas.scheduler.cluster import Bools, ClusterIndex, CompiledGang, Ints
    from mlaas.scheduler.snapshot import Snapshot

Amounts = tuple[tuple[str, float], ...]
"""Amounts by resource name."""


@dataclass(frozen=True, slots=True)
class QuotaLevel:
    """A queue, or a cohort above it, and one resource that it limits."""

    queue: str
    resource: str
    used: float
    """By the queue and all below it."""
    limit: float
    """How far it may go now, with what it can borrow."""
    guarantee: float
    need: float
    """What the workload would add."""

    @property
    def borrowed(self) -> float:
        """What it uses beyond its guarantee."""
        return max(self.used - self.guarantee, 0.0)

    @property
    def missing(self) -> float:
        """What it would have to be given for the workload to start."""
        return max(self.used + self.need - self.limit, 0.0)

    def text(self) -> str:
        """Say where it stands."""
        borrows = f", {amount(self.resource, self.borrowed)} of it borrowed" if self.borrowed else ""
        return (
            f"queue {self.queue} uses {self.used:.10g} of {amount(self.resource, self.limit)} that it may use now"
            f" (guarantee {self.guarantee:.10g}{borrows}); this needs {self.need:.10g} more"
        )


@dataclass(frozen=True, slots=True)
class NodeGap:
    """The node that comes closest to holding one more worker."""

    node: str
    free: Amounts
    """Of what the worker needs."""
    missing: Amounts
    held_by: tuple[str, ...]
    """Gangs on it, the one with most of it first."""
    is_used_outside: bool
    """Whether something that this scheduler did not start holds part of it."""

    def text(self) -> str:
        """Say what is missing there, and who has it."""
        lacks = listed([amount(name, value) for name, value in self.missing]) or "a whole device"
        holders = [*self.held_by, *(["use outside the scheduler"] if self.is_used_outside else [])]
        return f"nearest is node {self.node}: {lacks} short" + (f", held by {listed(holders)}" if holders else "")


@dataclass(frozen=True, slots=True)
class Fit:
    """How a gang stands against the nodes, whatever its turn and its quota."""

    needed_workers: int
    fitting_workers: int
    """Fit now, as its strategy and topology ask; at most `needed_workers`."""
    possible_workers: int
    """Would fit on the nodes if nothing ran there; at most `needed_workers`."""
    suitable_nodes: int
    """Nodes that could hold a worker when empty."""
    unsuitable: tuple[tuple[str, int], ...]
    """Why the other nodes do not suit, and how many."""
    scattered: Amounts
    """What is free of each resource on suitable nodes together."""
    nearest: NodeGap | None
    """None: it fits, or no node suits."""

    @property
    def fits(self) -> bool:
        """Whether the gang fits on what is free."""
        return self.fitting_workers >= self.needed_workers

    def texts(self) -> tuple[str, ...]:
        """Say what fits, what is missing and where."""
        if self.fits:
            return (f"{count(self.needed_workers, 'worker')} would fit on what is free",)
        lines = [f"{self.fitting_workers} of {count(self.needed_workers, 'worker')} fit now"]
        if self.scattered:
            free = listed([amount(name, value) for name, value in self.scattered])
            lines[0] += f"; free on the {count(self.suitable_nodes, 'suitable node')}, in pieces: {free}"
        if self.unsuitable:
            out = listed([f"{number} {why}" for why, number in self.unsuitable])
            lines.append(f"{count(self.suitable_nodes, 'node')} can hold a worker; of the others: {out}")
        if self.possible_workers < self.needed_workers:
            lines.append(f"the nodes that are there hold {self.possible_workers} at most, even with nothing on them")
        if self.nearest is not None:
            lines.append(self.nearest.text())
        return tuple(lines)


def quota_levels(snapshot: Snapshot, *, queue: str, need: Ints) -> tuple[QuotaLevel, ...]:
    """Return the limits that `need` more units meet, from the queue up to its root; what has no limit is left out.

    Args:
        snapshot: The world.
        queue: Whose quota.
        need: Units of each of the cluster's `resources`.
    """
    tree, usage = snapshot.queues, snapshot.usage
    levels = []
    for row in tree.path(tree.row_of[queue]):
        below = [other for other in range(len(tree.queues)) if row in tree.path(other)]
        used = usage.by_leaf[below].sum(axis=0)
        for column in np.flatnonzero(need):
            available = usage.available(row, int(column))
            if available < INFINITE >> 1:
                levels.append(
                    QuotaLevel(
                        queue=tree.queues[row].name,
                        resource=tree.resources[column],
                        used=_amount(int(used[column])),
                        limit=_amount(int(used[column]) + available),
                        guarantee=_amount(int(tree.entitlement[row][column])),
                        need=_amount(int(need[column])),
                    )
                )
    return tuple(levels)


def fit_of(snapshot: Snapshot, gang: CompiledGang, *, workers: int) -> Fit:
    """Return how a gang of `workers` stands against the nodes."""
    cluster = snapshot.cluster
    free, empty = cluster.view(), cluster.empty()
    slots, could = free.slots(gang), empty.slots(gang)
    suits = could > 0
    fitting = min(most_workers(free, gang), workers)
    return Fit(
        needed_workers=workers,
        fitting_workers=fitting,
        possible_workers=min(most_workers(empty, gang), workers),
        suitable_nodes=int(suits.sum()),
        unsuitable=_unsuitable(cluster, gang, suits),
        scattered=_free_on(cluster, gang, suits),
        nearest=None if fitting >= workers else _nearest(snapshot, gang, suits & (slots == 0)),
    )


def _unsuitable(cluster: ClusterIndex, gang: CompiledGang, suits: Bools) -> tuple[tuple[str, int], ...]:
    reasons: dict[str, int] = {}
    wanted = set(gang.gang.labels)
    for row in np.flatnonzero(~suits):
        node = cluster.nodes[row]
        lacking = sorted(wanted - set(node.labels))
        if lacking:
            why = f"without {lacking[0][0]}={lacking[0][1]}"
        elif not node.schedulable:
            why = "drained or lost"
        else:
            why = "too small for a worker"
        reasons[why] = reasons.get(why, 0) + 1
    return tuple(sorted(reasons.items(), key=lambda item: -item[1]))


def _free_on(cluster: ClusterIndex, gang: CompiledGang, rows: Bools) -> Amounts:
    cells = cluster.cells[rows]
    amounts = []
    if gang.gpu_units:
        amounts.append(("GPU", float(cells[:, : cluster.num_devices].sum()) / UNIT))
    names = {column: name for name, column in cluster.scalar_column.items()}
    amounts += [(names[column], _amount(int(cells[:, column].sum()))) for column, _ in gang.scalars]
    return tuple(amounts)


def _nearest(snapshot: Snapshot, gang: CompiledGang, rows: Bools) -> NodeGap | None:
    """Return the node that lacks the smallest part of a worker."""
    cluster = snapshot.cluster
    candidates = np.flatnonzero(rows)
    if not len(candidates):
        return None
    lacks = _lacks(cluster, gang)[candidates]
    asked = np.array([max(units, 1) for units in _asked(gang)])
    best = int(candidates[int((lacks / asked).max(axis=1).argmin())])
    names = {column: name for name, column in cluster.scalar_column.items()}
    resources = ["GPU", *(names[column] for column, _ in gang.scalars)]
    missing = _lacks(cluster, gang)[best]
    free = [asked_units - short for asked_units, short in zip(_asked(gang), missing.tolist(), strict=True)]
    node = cluster.nodes[best].name
    return NodeGap(
        node=node,
        free=tuple((name, _amount(units)) for name, units in zip(resources, free, strict=True) if units),
        missing=tuple((name, _amount(units)) for name, units in zip(resources, missing.tolist(), strict=True) if units),
        held_by=_holders(snapshot, best),
        is_used_outside=bool(cluster.outside[best].any()),
    )


def _asked(gang: CompiledGang) -> list[int]:
    """Units of one worker: GPUs, then each scalar."""
    return [gang.gpu_units, *(units for _, units in gang.scalars)]


def _lacks(cluster: ClusterIndex, gang: CompiledGang) -> Ints:
    """Units that each node lacks for one worker, by `_asked`."""
    devices = cluster.cells[:, : cluster.num_devices]
    free = devices.max(axis=1, initial=0) if gang.fraction else (devices == UNIT).sum(axis=1) * UNIT
    columns = [free, *(cluster.cells[:, column] for column, _ in gang.scalars)]
    lacks: Ints = np.maximum(np.array(_asked(gang)) - np.stack(columns, axis=1), 0)
    return lacks


def _holders(snapshot: Snapshot, node: int) -> tuple[str, ...]:
    """Gangs that hold cells of a node, the largest part first."""
    width = snapshot.cluster.capacity.shape[1]
    row, cell, amounts, _ = snapshot.running.entries()
    here = (amounts > 0) & (cell // width == node)
    part = amounts[here] / np.maximum(snapshot.cluster.capacity[node][cell[here] % width], 1)
    held = np.bincount(row[here], weights=part, minlength=len(snapshot.running))
    order = [int(each) for each in np.argsort(-held, kind="stable") if held[each] > 0]
    return tuple(snapshot.running.ids[each] for each in order)


def _amount(units: int) -> float:
    return units / UNIT
