"""Where a gang fits: whole or not at all, within its topology, leaving the least fragmentation behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.cluster import UNIT
from mlaas.scheduler.types import Strategy

if TYPE_CHECKING:
    from mlaas.scheduler.cluster import Bools, CompiledGang, Free, Ints

_NO_NODE = np.int64(2**60)
_NEVER = 2**60


def find_nodes(free: Free, gang: CompiledGang, *, workers: int) -> list[tuple[int, int]] | None:
    """Return (node, workers) for a gang of `workers`, or None when it does not fit whole.

    One worker goes where the fewest whole GPUs stay behind, so that free nodes stay free for wide gangs; more workers
    go on as few nodes as possible, or as many, by the gang's strategy. With a topology the smallest domain that holds
    the gang gets it. With measured speeds it goes where its slowest worker is fastest.
    """
    slots = free.slots(gang)
    if gang.speeds is None:
        return _find(free, gang, slots, workers)
    for speed in np.unique(gang.speeds[slots > 0])[::-1]:
        nodes = _find(free, gang, np.where(gang.speeds >= speed, slots, 0), workers)
        if nodes is not None:
            return nodes
    return None


def _find(free: Free, gang: CompiledGang, slots: Ints, workers: int) -> list[tuple[int, int]] | None:
    if gang.domains is not None:
        return _in_one_domain(free, gang, slots, workers)
    return _on_nodes(free, gang, slots, workers)


def most_workers(free: Free, gang: CompiledGang) -> int:
    """Return the size of the largest gang of this kind of worker that fits."""
    slots = free.slots(gang)
    if gang.domains is not None:
        inside = gang.domains >= 0
        if not inside.any():
            return 0
        totals = np.bincount(gang.domains[inside], weights=_held(gang, slots)[inside])
        if gang.gang.strategy is not Strategy.STRICT_PACK:
            return int(totals.max())
        slots = np.where(inside, slots, 0)
    held = _held(gang, slots)
    return int(held.max() if gang.gang.strategy is Strategy.STRICT_PACK else held.sum()) if len(held) else 0


def fewest_turns(turn: Ints, cell: Ints, empty: Free, gang: CompiledGang, *, workers: int) -> int:
    """Return how many turns of giving back it takes at least until a gang fits; by its GPUs alone, so often exact.

    Args:
        turn: Of each held cell, the turn in which it is given back.
        cell: Held cells, flat.
        empty: What is free after all turns; the gang fits on it.
        gang: What wants to start.
        workers: Its size.
    """
    if not gang.devices:
        return 0
    given = np.zeros(empty.flat.size, dtype=np.int64)
    np.maximum.at(given, cell, turn + 1)
    whole = np.where(empty.cells == UNIT, given.reshape(empty.cells.shape), _NEVER)[:, : empty.num_devices]
    whole[~gang.mask] = _NEVER
    whole.sort(axis=1)
    slots = whole[:, gang.devices - 1 :: gang.devices]
    if gang.domains is None:
        return int(np.partition(slots.reshape(-1), workers - 1)[workers - 1])
    domain = np.repeat(gang.domains, slots.shape[1])
    order = np.lexsort((slots.reshape(-1), domain))
    first = np.searchsorted(domain[order], np.arange(domain.max() + 1))
    last = first + workers - 1
    last = last[last < np.append(first[1:], len(order))]
    return int(slots.reshape(-1)[order[last]].min())


def _held(gang: CompiledGang, slots: Ints) -> Ints:
    """Slots, bounded by the gang's size so that sums stay small."""
    return np.minimum(slots, gang.gang.max_workers)


def _in_one_domain(free: Free, gang: CompiledGang, slots: Ints, workers: int) -> list[tuple[int, int]] | None:
    assert gang.domains is not None
    inside = gang.domains >= 0
    if not inside.any():
        return None
    totals = np.bincount(gang.domains[inside], weights=np.minimum(slots[inside], workers))
    for domain in np.argsort(np.where(totals >= workers, totals, np.inf), kind="stable"):
        if totals[domain] < workers:
            return None
        found = _on_nodes(free, gang, np.where(gang.domains == domain, slots, 0), workers)
        if found is not None:
            return found
    return None


def _on_nodes(free: Free, gang: CompiledGang, slots: Ints, workers: int) -> list[tuple[int, int]] | None:
    strategy = gang.gang.strategy
    if workers == 1 or strategy is Strategy.STRICT_PACK:
        return _on_one_node(free, gang, slots >= workers, workers)
    if int(np.minimum(slots, workers).sum()) < workers:
        return None
    if strategy in (Strategy.SPREAD, Strategy.STRICT_SPREAD):
        return _spread(slots, workers)
    return _packed(free, slots, workers)


def _on_one_node(free: Free, gang: CompiledGang, fits: Bools, workers: int) -> list[tuple[int, int]] | None:
    left = free.whole
    if gang.fraction:
        devices = free.cells[:, : free.num_devices]
        shared = ((devices >= gang.fraction) & (devices < free.cells.dtype.type(10_000))).any(axis=1)
        left = left + np.where(shared, 0, _NO_NODE >> 1)
    cost = np.where(fits, left, _NO_NODE)
    row = int(cost.argmin()) if len(cost) else -1
    return [(row, workers)] if row >= 0 and fits[row] else None


def _packed(free: Free, slots: Ints, workers: int) -> list[tuple[int, int]]:
    """Largest nodes first; the last part goes to the node that it fills best."""
    chosen = []
    order = np.lexsort((free.whole, -slots))
    for position, row in enumerate(order):
        if slots[row] >= workers:
            rest = order[position:]
            enough = rest[slots[rest] >= workers]
            best = enough[int(np.lexsort((free.whole[enough], slots[enough]))[0])]
            chosen.append((int(best), workers))
            return chosen
        chosen.append((int(row), int(slots[row])))
        workers -= int(slots[row])
    return chosen


def _spread(slots: Ints, workers: int) -> list[tuple[int, int]]:
    """Level by level, so that no node gets a second worker while another suitable one has none."""
    counts = np.zeros_like(slots)
    while workers:
        open_rows = np.flatnonzero(counts < slots)
        level = open_rows[np.argsort(-slots[open_rows], kind="stable")][:workers]
        counts[level] += 1
        workers -= len(level)
    return [(int(row), int(counts[row])) for row in np.flatnonzero(counts)]
