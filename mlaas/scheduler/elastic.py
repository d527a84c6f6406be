"""Elastic gangs grow into capacity that nobody waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.placement import find_nodes, most_workers
from mlaas.scheduler.types import Grow, Placement

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from mlaas.scheduler.cluster import CompiledGang, Free
    from mlaas.scheduler.quota import Usage
    from mlaas.scheduler.snapshot import Snapshot

LEAST_GROWTH = 0.25
"""A resize costs a restart, so a gang grows by at least this part of its size, or not at all."""


def grow(snapshot: Snapshot, free: Free, usage: Usage, *, gone: AbstractSet[int]) -> list[Grow]:
    """Return growth for elastic gangs, those furthest below their full size first, and take it from `free`.

    Args:
        snapshot: The world.
        free: Cells that are idle after all placements of this cycle.
        usage: Quota usage after them.
        gone: Running rows that shrink or yield in this cycle.
    """
    running = snapshot.running
    smaller = running.ints_of("workers") < running.ints_of("max_workers")
    settled = running.floats_of("protected_until_s") <= snapshot.now_s
    elastic = [int(row) for row in np.flatnonzero(smaller & settled) if int(row) not in gone]
    elastic.sort(key=lambda row: (running.floats_of("speed")[row], running.ints_of("sequence")[row]))
    grown = []
    for row in elastic:
        gang = snapshot.cluster.gangs[running.ints_of("gang")[row]]
        more = _affordable(snapshot, free, usage, gang, row)
        size = int(running.ints_of("workers")[row])
        nodes = find_nodes(free, gang, workers=more) if more >= max(1, LEAST_GROWTH * size) else None
        if nodes is None or not _stays_together(snapshot, gang, row, nodes):
            continue
        free.take(free.allocate(gang, nodes))
        usage.charge(int(running.ints_of("queue")[row]), more * gang.demand)
        names = snapshot.cluster.nodes
        counts = dict(snapshot.cluster.placement(running.allocations[running.ids[row]]).workers)
        for node, count in nodes:
            counts[names[node].name] = counts.get(names[node].name, 0) + count
        grown.append(Grow(running.ids[row], Placement(tuple(counts.items())), f"{more} more workers on idle capacity"))
    return grown


def _affordable(snapshot: Snapshot, free: Free, usage: Usage, gang: CompiledGang, row: int) -> int:
    """Most workers that fit on idle nodes and in the queue's quota."""
    running = snapshot.running
    more = min(gang.gang.max_workers - int(running.ints_of("workers")[row]), most_workers(free, gang))
    queue = int(running.ints_of("queue")[row])
    while more > 0 and not usage.fits(queue, more * gang.demand):
        more -= 1
    return more


def _stays_together(snapshot: Snapshot, gang: CompiledGang, row: int, nodes: list[tuple[int, int]]) -> bool:
    """Whether the gang still lies as its strategy and topology ask, with workers on these nodes too."""
    if gang.domains is None and gang.gang.strategy.value in ("PACK", "SPREAD"):
        return True
    now = {node for node, _ in snapshot.running.allocations[snapshot.running.ids[row]].nodes}
    then = now | {node for node, _ in nodes}
    if gang.gang.strategy.value == "STRICT_PACK":
        return len(then) == 1
    if gang.gang.strategy.value == "STRICT_SPREAD" and now & {node for node, _ in nodes}:
        return False
    return gang.domains is None or len(np.unique(gang.domains[list(then)])) == 1
