"""Who moves to other nodes so that a gang fits on what is idle.

Idle GPUs that are scattered over nodes hold no gang that wants a whole node. Cheap gangs lying there go on elsewhere,
when there is room for all of them and their restarts cost little against the run that starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.cluster import UNIT, Free
from mlaas.scheduler.decision.placement import find_nodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlaas.scheduler.cluster import Allocation, Bools, CompiledGang, Ints
    from mlaas.scheduler.estimates import Floats
    from mlaas.scheduler.tables import RunningTable

MOST_COST = 0.03
"""Restarts of what moves may cost this part of the GPU time that the gang is expected to use."""
MOST_NODES = 8
"""Nodes that are tried for each worker, those with the least to move first."""


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """What moves where, and the nodes that the gang then starts on."""

    nodes: tuple[tuple[int, int], ...]
    moves: tuple[tuple[int, Allocation], ...]
    """(running row, what it holds then)."""


def may_make_way(free: Free, gang: CompiledGang, *, workers: int) -> bool:
    """Whether moves could let a gang start at all: cheap, and never wrong when it says no."""
    return bool(gang.devices and gang.domains is None and free.whole.sum() >= workers * gang.devices)


def make_way(
    free: Free, gang: CompiledGang, running: RunningTable, *, workers: int, gangs: Sequence[CompiledGang],
    movable: Bools, cost: Floats, budget: float,
) -> Way | None:  # fmt: skip
    """Return the moves that let a gang that `may_make_way` start on idle capacity, or None.

    Args:
        free: Free cells of the plan, which are not enough as they lie.
        gang: What wants to start.
        running: What runs.
        workers: Size of the gang.
        gangs: All gangs that the cluster knows.
        movable: Running rows that may be moved.
        cost: What moving each row costs.
        budget: The most that the moves may cost together.
    """
    search = _Search(free.copy(), gang, running, gangs, movable, cost)
    slots = np.minimum(free.slots(gang), workers)
    nodes: dict[int, int] = {}
    for node in np.argsort(-slots, kind="stable").tolist():
        count = min(int(slots[node]), workers - sum(nodes.values()))
        if not count:
            break
        search.free.take(search.free.allocate(gang, [(node, count)]))
        nodes[node] = count
    for _ in range(workers - sum(nodes.values())):
        node = search.clear(budget, taken=nodes)
        if node is None:
            return None
        nodes[node] = 1
    return Way(tuple(nodes.items()), tuple(search.moves))


class _Search:
    def __init__(
        self, free: Free, gang: CompiledGang, running: RunningTable, gangs: Sequence[CompiledGang], movable: Bools,
        cost: Floats,
    ) -> None:  # fmt: skip
        self.free, self.gang, self.running, self.gangs = free, gang, running, gangs
        self.cost = cost
        self.node = running.ints_of("node")
        self.movable = movable & (self.node >= 0)
        self.moves: list[tuple[int, Allocation]] = []
        self.spent = 0.0

    def clear(self, budget: float, *, taken: dict[int, int]) -> int | None:
        """Clear a node for one worker, and take its place there; return the node."""
        rows = np.flatnonzero(self.movable & self.gang.mask[self.node])
        on = self.node[rows]
        devices = np.bincount(on, weights=self._devices(rows), minlength=len(self.free.whole))
        missing = self.gang.devices - self.free.whole
        open_nodes = np.flatnonzero((missing > 0) & (devices >= missing))
        open_nodes = open_nodes[np.argsort(missing[open_nodes], kind="stable")]
        for node in [node for node in open_nodes.tolist() if node not in taken][:MOST_NODES]:
            leaving = self._leaving(node, rows[on == node])
            price = float(self.cost[leaving].sum())
            if leaving and self.spent + price <= budget and self._rehouse(node, leaving):
                self.spent += price
                self.movable[leaving] = False
                return node
        return None

    def _devices(self, rows: Ints) -> Ints:
        """Most devices that each row's leaving can make whole."""
        per_worker = np.array([-(-gang.gpu_units // UNIT) for gang in self.gangs], dtype=np.int64)
        devices: Ints = per_worker[self.running.ints_of("gang")[rows]] * self.running.ints_of("workers")[rows]
        return devices

    def _leaving(self, node: int, rows: Ints) -> list[int]:
        """Cheapest rows of a node without which a worker fits there; none when it never does."""
        width = self.free.cells.shape[1]
        cells = self.free.cells[node].copy()
        leaving: list[int] = []
        for row in rows[np.argsort(self.cost[rows], kind="stable")].tolist():
            held = self.running.allocations[self.running.ids[row]]
            np.add.at(cells, held.cells - node * width, held.amounts)
            leaving.append(row)
            if self._worker_fits(cells):
                break
        else:
            return []
        for row in leaving[-2::-1]:
            held = self.running.allocations[self.running.ids[row]]
            np.subtract.at(cells, held.cells - node * width, held.amounts)
            if self._worker_fits(cells):
                leaving.remove(row)
            else:
                np.add.at(cells, held.cells - node * width, held.amounts)
        return leaving

    def _worker_fits(self, cells: Ints) -> bool:
        whole = int((cells[: self.free.num_devices] == UNIT).sum())
        return whole >= self.gang.devices and all(cells[column] >= amount for column, amount in self.gang.scalars)

    def _rehouse(self, node: int, leaving: list[int]) -> bool:
        """Give each leaving row a place elsewhere, and the worker its place here; change nothing when one has none."""
        if not self._may_rehouse(node, leaving):
            return False
        free = self.free.copy()
        for row in leaving:
            free.give(self.running.allocations[self.running.ids[row]])
        free.take(free.allocate(self.gang, [(node, 1)]))
        rest = free.cells[node].copy()
        free.cells[node] = 0
        free.whole[node] = 0
        found = []
        for row in sorted(leaving, key=lambda row: -float(self.running.floats_of("share")[row])):
            gang = self.gangs[self.running.ints_of("gang")[row]]
            nodes = find_nodes(free, gang, workers=int(self.running.ints_of("workers")[row]))
            if nodes is None:
                return False
            allocation = free.allocate(gang, nodes)
            free.take(allocation)
            found.append((row, allocation))
        free.cells[node] = rest
        self.free = Free(free.cells, free.num_devices)
        self.moves += found
        return True

    def _may_rehouse(self, node: int, leaving: list[int]) -> bool:
        """Whether other nodes have devices for a worker of each leaving row: cheap, never wrong when it says no."""
        elsewhere = self.free.whole.copy()
        elsewhere[node] = 0
        most = int(elsewhere.max())
        return all(self.gangs[number].devices <= most for number in self.running.ints_of("gang")[leaving].tolist())
