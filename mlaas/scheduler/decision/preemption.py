"""Who shrinks or yields so that a gang can start.

Elastic gangs shrink before any gang yields. Then capacity goes from the least valuable up: borrowed before
guaranteed, lower priority before higher, lower rank before higher, and among equals the gang whose restart wastes the
least. Taken is the shortest run of that order that makes room, less everyone in it who turns out not to be needed:
the most valuable gang that has to yield is the least valuable it can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.cluster import Free
from mlaas.scheduler.decision.placement import fewest_turns, find_nodes, most_workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlaas.scheduler.cluster import Bools, CompiledGang, Ints
    from mlaas.scheduler.decision.quota import Usage
    from mlaas.scheduler.estimates import Floats
    from mlaas.scheduler.tables import RunningTable


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """A gang that wants room, and from whom it may take it."""

    gang: CompiledGang
    workers: int
    queue: int
    need: Ints
    """Units of the resources that quotas know."""
    eligible: Bools
    """Running rows that may be asked."""


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """Room made for a gang."""

    nodes: tuple[tuple[int, int], ...]
    shrunk: tuple[tuple[int, int], ...]
    """(elastic row, workers that it keeps)."""
    yielding: tuple[int, ...]
    """Rows that give back everything."""


@dataclass(frozen=True, slots=True, eq=False)
class _Units:
    """What can be taken, in the order it is taken.

    Unit u frees the cells with `unit == u`, all of row `rows[u]`, but for those of its first `keeps[u]` workers.
    """

    rows: Ints
    shrinks: Bools
    unit: Ints
    """Unit of each held cell; past the last unit where it is not to be had."""
    cell: Ints
    amount: Ints
    worker: Ints
    refunds: Ints
    """Units of the resources that quotas know, for each unit."""
    keeps: Ints


def preference(running: RunningTable, *, borrowed: Bools, ranks: Floats) -> Ints:
    """Return the rows in the order in which they are asked to yield."""
    lost = running.floats_of("restart_s") * running.floats_of("share")
    coarse = np.round(2.0 * ranks)
    return np.lexsort((running.ints_of("sequence"), lost, coarse, running.ints_of("priority"), ~borrowed))


def make_room(
    claim: Claim, free: Free, usage: Usage | None, running: RunningTable, *, order: Ints, needs: Ints, min_workers: Ints
) -> Room | None:
    """Return the least valuable running work whose capacity lets a gang start, or None when there is not enough of it.

    Args:
        claim: The gang, and whom it may ask.
        free: Free cells of the plan.
        usage: Quota usage of the plan; None when no quota binds.
        running: What runs.
        order: All rows, the first to be asked first (`preference`).
        needs: Units that each row holds of the resources that quotas know (rows x resources).
        min_workers: Smallest size of each row's gang.
    """
    units = _units(claim, running, order=order, needs=needs, min_workers=min_workers)
    if not len(units.rows):
        return None

    def enough(taken: Bools) -> bool:
        if not _quota_fits(claim, usage, running, units, taken):
            return False
        return most_workers(_freed(free, units, taken), claim.gang) >= claim.workers

    turns = np.arange(len(units.rows))
    if not enough(turns >= 0):
        return None
    everything = _freed(free, units, turns >= 0)
    at_least = fewest_turns(units.unit, units.cell, everything, claim.gang, workers=claim.workers)
    taken = turns < _fewest(max(at_least, 1), len(turns), lambda number: enough(turns < number))
    nodes = find_nodes(_freed(free, units, taken), claim.gang, workers=claim.workers)
    if nodes is None:
        return None
    there_only = taken & _lies_on(units, [row for row, _ in nodes], width=free.cells.shape[1])
    if enough(there_only):
        taken = there_only
    yielding, shrinks = _least(units, running, taken, enough)
    nodes = find_nodes(_freed(free, units, taken), claim.gang, workers=claim.workers)
    if nodes is None:
        return None
    shrunk = sorted((int(units.rows[unit]), int(units.keeps[unit])) for unit in shrinks)
    return Room(tuple(nodes), tuple(shrunk), tuple(sorted(yielding)))


def _least(
    units: _Units, running: RunningTable, taken: Bools, enough: Callable[[Bools], bool]
) -> tuple[set[int], list[int]]:
    """Leave out of `taken` whatever is not needed; return the rows that yield, and the units that shrink."""
    for number in np.flatnonzero(taken)[::-1]:
        taken[number] = False
        if not enough(taken):
            taken[number] = True
    yielding = {int(row) for row in units.rows[taken & ~units.shrinks]}
    shrinks = [int(unit) for unit in np.flatnonzero(taken & units.shrinks) if int(units.rows[unit]) not in yielding]
    for unit in shrinks:
        _keep_most(units, unit, running, lambda: enough(taken))
    return yielding, shrinks


def _keep_most(units: _Units, unit: int, running: RunningTable, is_enough: Callable[[], bool]) -> None:
    """Let an elastic gang that shrinks keep as many workers as it can."""
    workers, least = int(running.ints_of("workers")[units.rows[unit]]), int(units.keeps[unit])
    refund = units.refunds[unit].copy()

    def enough(fewer: int) -> bool:
        units.keeps[unit] = workers - fewer
        units.refunds[unit] = refund * fewer // (workers - least)
        return is_enough()

    enough(_fewest(1, workers - least, enough))


def _fewest(least: int, most: int, is_enough: Callable[[int], bool]) -> int:
    """Return the smallest of these that is enough, trying the least first: the most is, and all above one that is."""
    low, middle, high = least, least, most
    while low < high:
        if is_enough(middle):
            high = middle
        else:
            low = middle + 1
        middle = (low + high) // 2
    return low


def _units(claim: Claim, running: RunningTable, *, order: Ints, needs: Ints, min_workers: Ints) -> _Units:
    asked = order[claim.eligible[order]]
    workers = running.ints_of("workers")
    elastic = asked[workers[asked] > min_workers[asked]]
    count = len(elastic) + len(asked)
    nowhere = count
    shrink_unit = np.full(len(running), nowhere)
    shrink_unit[elastic] = np.arange(len(elastic))
    yield_unit = np.full(len(running), nowhere)
    yield_unit[asked] = len(elastic) + np.arange(len(asked))
    row, cell, amount, worker = running.entries()
    extra = (shrink_unit[row] < nowhere) & (worker >= min_workers[row])
    unit = np.where(extra, shrink_unit[row], yield_unit[row])
    live = (amount > 0) & (unit < nowhere)
    part = ((workers - min_workers) / np.maximum(workers, 1))[:, None]
    shrink_refund = np.rint(needs * part).astype(np.int64)
    rest = needs.copy()
    rest[elastic] -= shrink_refund[elastic]
    return _Units(
        rows=np.concatenate([elastic, asked]),
        shrinks=np.arange(count) < len(elastic),
        unit=unit[live],
        cell=cell[live],
        amount=amount[live],
        worker=worker[live],
        refunds=np.concatenate([shrink_refund[elastic], rest[asked]]),
        keeps=np.concatenate([min_workers[elastic], np.zeros(len(asked), dtype=np.int64)]),
    )


def _lies_on(units: _Units, nodes: list[int], *, width: int) -> Bools:
    """Return which units free a cell of these nodes."""
    inside = np.isin(units.cell // width, nodes)
    lies: Bools = np.bincount(units.unit[inside], minlength=len(units.rows)) > 0
    return lies


def _freed(free: Free, units: _Units, taken: Bools) -> Free:
    given = taken[units.unit] & (units.worker >= units.keeps[units.unit])
    back = np.bincount(units.cell[given], weights=units.amount[given], minlength=free.flat.size).astype(np.int64)
    return Free(free.cells + back.reshape(free.cells.shape), free.num_devices)


def _quota_fits(claim: Claim, usage: Usage | None, running: RunningTable, units: _Units, taken: Bools) -> bool:
    if usage is None:
        return True
    by_leaf = usage.by_leaf.copy()
    np.subtract.at(by_leaf, running.ints_of("queue")[units.rows[taken]], units.refunds[taken])
    return usage.tree.usage(by_leaf).fits(claim.queue, claim.need)
