"""Cheap gangs are moved when that empties a node: an idle node is one that the autoscaler takes away. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.decision.placement import find_nodes
from mlaas.scheduler.tables import is_protected
from mlaas.scheduler.types import Move

if TYPE_CHECKING:
    from mlaas.scheduler.autoscaling.types import Growth
    from mlaas.scheduler.cluster import Free
    from mlaas.scheduler.snapshot import Snapshot

MOST_RESTART_S = 360.0
"""A node is emptied when the restarts of its gangs together take less: a tenth of the first hour that it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consolidation:
    """A node to empty, and the gangs to move away from it."""

    node: str
    moves: tuple[Move, ...]
    saves_usd_per_hour: float
    reason: str


def decide_consolidation(snapshot: Snapshot, growth: Growth) -> Consolidation | None:
    """Return the dearest node that can be emptied now, or None. While anybody waits nothing is moved.

    Only nodes that an autoscaler brought are closed. Every gang on such a node lies on it whole, may yield, and has had
    its minimum runtime; and all of them fit on what is free elsewhere.
    """
    if len(snapshot.pending):
        return None
    cluster = snapshot.cluster
    prices = [0.0 if (each := growth.type_of(node)) is None else each.price_usd_per_hour for node in cluster.nodes]
    gangs = _gangs_by_node(snapshot)
    movable = ~is_protected(snapshot.running, snapshot.now_s)
    restart_s = snapshot.running.floats_of("restart_s")
    found = []
    for row, node in enumerate(cluster.nodes):
        rows = gangs.get(row, [])
        cost_s = float(restart_s[rows].sum())
        if not prices[row] or not rows or not node.schedulable or cluster.outside[row].any():
            continue
        whole = all(len(snapshot.running.allocations[snapshot.running.ids[each]].nodes) == 1 for each in rows)
        if whole and movable[rows].all() and cost_s <= MOST_RESTART_S:
            found.append((-prices[row], cost_s, row))
    for _, cost_s, row in sorted(found):
        name = cluster.nodes[row].name
        reason = f"{cost_s:.0f} s of restarts empty node {name}, which costs {prices[row]:.2f} USD an hour"
        moves = _moves(snapshot, row, gangs[row], reason)
        if moves is not None:
            return Consolidation(node=name, moves=moves, saves_usd_per_hour=prices[row], reason=reason)
    return None


def _gangs_by_node(snapshot: Snapshot) -> dict[int, list[int]]:
    """Return the running rows on each node, the largest first."""
    found: dict[int, list[int]] = {}
    order = np.argsort(-snapshot.running.floats_of("share"), kind="stable")
    for row in order.tolist():
        for node, _ in snapshot.running.allocations[snapshot.running.ids[row]].nodes:
            found.setdefault(node, []).append(row)
    return found


def _moves(snapshot: Snapshot, node: int, rows: list[int], reason: str) -> tuple[Move, ...] | None:
    """Return where the gangs of a node go; None when there is no room for all of them elsewhere."""
    free: Free = snapshot.cluster.free()
    free.cells[node] = 0
    free.whole[node] = 0
    moves = []
    for row in rows:
        gang = snapshot.cluster.gangs[snapshot.running.ints_of("gang")[row]]
        nodes = find_nodes(free, gang, workers=int(snapshot.running.ints_of("workers")[row]))
        if nodes is None:
            return None
        allocation = free.allocate(gang, nodes)
        free.take(allocation)
        name = snapshot.cluster.nodes[node].name
        moves.append(Move(snapshot.running.ids[row], snapshot.cluster.placement(allocation), name, reason))
    return tuple(moves)
