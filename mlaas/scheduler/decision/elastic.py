"""Elastic gangs take capacity that nobody waits for: at once when they start, and by growing later."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.decision.placement import find_nodes, most_workers
from mlaas.scheduler.types import Grow, Place, Placement, Strategy

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from mlaas.scheduler.cluster import CompiledGang, Free
    from mlaas.scheduler.decision.quota import Usage
    from mlaas.scheduler.snapshot import Snapshot
    from mlaas.scheduler.types import Action

_LOOSE = (Strategy.PACK, Strategy.SPREAD)
LEAST_GROWTH = 0.25
"""A resize costs a restart, so a gang grows by at least this part of its size, or not at all."""


def enlarge(snapshot: Snapshot, actions: list[Action], free: Free, usage: Usage) -> list[Action]:
    """Return the actions with elastic gangs that start now at the size that fits, and take that from `free`.

    Gangs that lie as a topology or a strict strategy asks start at their smallest size, and grow; so do those that
    share devices, since one more worker on a device could take the share that a later gang of this plan counts on.
    """
    return [_enlarged(snapshot, action, free, usage) if isinstance(action, Place) else action for action in actions]


def _enlarged(snapshot: Snapshot, action: Place, free: Free, usage: Usage) -> Place:
    pending = snapshot.pending
    row = pending.row_of[action.workload_id]
    gang, queue = snapshot.cluster.gangs[pending.ints_of("gang")[row]], int(pending.ints_of("queue")[row])
    if not gang.gang.is_elastic or gang.domains is not None or gang.gang.strategy not in _LOOSE or gang.fraction:
        return action
    at_most = min(most_workers(free, gang), gang.gang.max_workers - action.placement.num_workers)
    more = _affordable(usage, gang, queue, at_most=at_most)
    nodes = find_nodes(free, gang, workers=more) if more else None
    if nodes is None:
        return action
    free.take(free.allocate(gang, nodes))
    usage.charge(queue, more * gang.demand)
    return replace(action, placement=_joined(snapshot, action.placement, nodes))


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
    rows = np.flatnonzero(smaller & settled)
    rows = rows[np.lexsort((running.ints_of("sequence")[rows], running.floats_of("speed")[rows]))]
    idle = _Idle(free)
    grown = []
    for row in rows.tolist():
        number, size = int(running.ints_of("gang")[row]), int(running.ints_of("workers")[row])
        gang = snapshot.cluster.gangs[number]
        most = 0 if row in gone else idle.most_workers(gang)
        if not most:
            continue
        queue = int(running.ints_of("queue")[row])
        more = _affordable(usage, gang, queue, at_most=min(most, gang.gang.max_workers - size))
        nodes = idle.find_nodes(gang, workers=more) if more >= max(1, LEAST_GROWTH * size) else None
        if nodes is None or not _stays_together(snapshot, gang, row, nodes):
            continue
        free.take(free.allocate(gang, nodes))
        idle = _Idle(free)
        usage.charge(queue, more * gang.demand)
        placement = _joined(snapshot, snapshot.cluster.placement(running.allocations[running.ids[row]]), nodes)
        grown.append(Grow(running.ids[row], placement, f"{more} more workers on idle capacity"))
    return grown


class _Idle:
    """Free cells while nothing is taken from them: many gangs of few kinds ask the same."""

    def __init__(self, free: Free) -> None:
        self.most_workers = lru_cache(maxsize=None)(partial(most_workers, free))
        self.find_nodes = lru_cache(maxsize=None)(partial(find_nodes, free))


def _joined(snapshot: Snapshot, placement: Placement, nodes: list[tuple[int, int]]) -> Placement:
    """Return a placement with more workers on these nodes."""
    counts = dict(placement.workers)
    for node, count in nodes:
        name = snapshot.cluster.nodes[node].name
        counts[name] = counts.get(name, 0) + count
    return Placement(tuple(counts.items()))


def _affordable(usage: Usage, gang: CompiledGang, queue: int, *, at_most: int) -> int:
    """Most workers that fit in the queue's quota."""
    more = at_most
    while more > 0 and not usage.fits(queue, more * gang.demand):
        more -= 1
    return more


def _stays_together(snapshot: Snapshot, gang: CompiledGang, row: int, nodes: list[tuple[int, int]]) -> bool:
    """Whether the gang still lies as its strategy and topology ask, with workers on these nodes too."""
    if gang.domains is None and gang.gang.strategy in _LOOSE:
        return True
    now = {node for node, _ in snapshot.running.allocations[snapshot.running.ids[row]].nodes}
    then = now | {node for node, _ in nodes}
    if gang.gang.strategy is Strategy.STRICT_PACK:
        return len(then) == 1
    if gang.gang.strategy is Strategy.STRICT_SPREAD and now & {node for node, _ in nodes}:
        return False
    return gang.domains is None or len(set(gang.domains[list(then)].tolist())) == 1
