"""The reservation of the first workload that cannot start, and what may pass it without delaying it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.cluster import Free
from mlaas.scheduler.decision.placement import fewest_turns, find_nodes, most_workers

if TYPE_CHECKING:
    from mlaas.scheduler.cluster import CompiledGang, Ints
    from mlaas.scheduler.estimates import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Cells held by gangs, flat: for each cell the gang's row, and for each row when it is expected to end."""

    row: Ints
    cell: Ints
    amount: Ints
    ends_s: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Leaving:
    """Cells that gangs give back as they end, `turn` by turn."""

    turn: Ints
    cell: Ints
    amount: Ints

    def split(self, turn: int) -> tuple[_Leaving, _Leaving]:
        """Return what is given back before a turn, and from it on."""
        first, last = np.flatnonzero(self.turn < turn), np.flatnonzero(self.turn >= turn)
        return self._of(first), self._of(last)

    def joined(self, free: Free) -> Free:
        """Return what is free once all of it has been given back."""
        back = np.bincount(self.cell, weights=self.amount, minlength=free.flat.size).astype(np.int64)
        return Free(free.cells + back.reshape(free.cells.shape), free.num_devices)

    def _of(self, entries: Ints) -> _Leaving:
        return _Leaving(self.turn[entries], self.cell[entries], self.amount[entries])


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """From `start_s` on the gang is expected to fit on `nodes`."""

    start_s: float
    nodes: tuple[tuple[int, int], ...]
    spare: Free
    """What is free now and will still be free beside the gang: the cells for workloads that go on past `start_s`."""


def reserve(free: Free, gang: CompiledGang, held: Held, *, workers: int) -> Reservation | None:
    """Return the earliest reservation for a gang, as running gangs end one after another; None when it never fits.

    Source: EASY backfill, Mu'alem and Feitelson 2001; here with real cells of real nodes.
    """
    order = np.argsort(held.ends_s, kind="stable")
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    rest = _Leaving(position[held.row] if len(order) else held.row, held.cell, held.amount)
    empty = rest.joined(free)
    if most_workers(empty, gang) < workers:
        return None
    low, high, then = fewest_turns(rest.turn, rest.cell, empty, gang, workers=workers), len(order), free
    middle = low
    while low < high:
        first, last = rest.split(middle)
        trial = first.joined(then)
        if most_workers(trial, gang) >= workers:
            high, rest = middle, first
        else:
            low, rest, then = middle + 1, last, trial
        middle = (low + high) // 2
    then = rest.joined(then)
    nodes = find_nodes(then, gang, workers=workers)
    if nodes is None:
        return None
    then.take(then.allocate(gang, nodes))
    spare = Free(np.minimum(then.cells, free.cells), free.num_devices)
    return Reservation(float(held.ends_s[order[low - 1]]) if low else 0.0, tuple(nodes), spare)
