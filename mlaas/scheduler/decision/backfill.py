"""The reservation of the first workload that cannot start, and what may pass it without delaying it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.cluster import Free
from mlaas.scheduler.decision.placement import find_nodes, most_workers

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
    ended_at = position[held.row] if len(order) else held.row

    def after(ended: int) -> Free:
        gone = ended_at < ended
        back = np.bincount(held.cell[gone], weights=held.amount[gone], minlength=free.flat.size).astype(np.int64)
        return Free(free.cells + back.reshape(free.cells.shape), free.num_devices)

    low, high = 0, len(order)
    if most_workers(after(high), gang) < workers:
        return None
    while low < high:
        middle = (low + high) // 2
        if most_workers(after(middle), gang) >= workers:
            high = middle
        else:
            low = middle + 1
    then = after(low)
    nodes = find_nodes(then, gang, workers=workers)
    if nodes is None:
        return None
    then.take(then.allocate(gang, nodes))
    spare = Free(np.minimum(then.cells, free.cells), free.num_devices)
    return Reservation(float(held.ends_s[order[low - 1]]) if low else 0.0, tuple(nodes), spare)
