"""Nodes as arrays of resource cells, and gangs compiled against them.

Each node is a row. Its first columns are its GPUs, one cell for each device, because a fraction of a GPU lies on one
device: two halves free on two devices do not hold a worker of 0.8. The other columns are its CPUs, memory and custom
resources. A cell holds units: 10,000 to one GPU or CPU.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlaas.scheduler.types import ACCELERATOR_LABEL, Gang, Node, Placement, Resources, Strategy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

UNIT = 10_000
"""Units of one GPU or CPU. Source: Ray's FixedPoint resource arithmetic."""
UNBOUNDED = np.int64(2**40)
"""Slots of a node for a worker that needs nothing."""


def units(amount: float) -> int:
    """Return an amount in units, exact to 1/10,000."""
    return round(amount * UNIT)


@dataclass(frozen=True, slots=True, eq=False)
class CompiledGang:
    """A gang's demand in cells of one cluster."""

    gang: Gang
    devices: int
    """Whole GPUs of each worker; 0 with a fraction."""
    fraction: int
    """Units of one GPU of each worker; 0 with whole GPUs."""
    scalars: tuple[tuple[int, int], ...]
    """(column, units) of each worker."""
    demand: Ints
    """Units of each of the cluster's `resources` that a worker takes."""
    mask: Bools
    """Nodes whose labels and devices suit, drained ones left out."""
    domains: Ints | None
    """Topology domain of each node, -1 where the label is missing; None without a topology."""
    share: float
    """Largest part of any one resource of the cluster that a worker takes: its dominant share."""
    speeds: Floats | None
    """Relative speed of a worker on each node; None where all are the same."""

    @property
    def gpu_units(self) -> int:
        """GPU units of each worker."""
        return self.devices * UNIT + self.fraction

    def speed_on(self, nodes: Iterable[tuple[int, int]]) -> float:
        """Return the speed of a gang on these nodes, that of its slowest worker."""
        return 1.0 if self.speeds is None else min(float(self.speeds[row]) for row, _ in nodes)

    @property
    def num_devices(self) -> int:
        """Devices that each worker holds a part of."""
        return 1 if self.fraction else self.devices

    @property
    def cells_per_worker(self) -> int:
        """Cells that each worker holds a part of."""
        return self.num_devices + len(self.scalars)


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """The cells that a placed gang holds."""

    nodes: tuple[tuple[int, int], ...]
    """(row of the node, number of workers)."""
    cells: Ints
    amounts: Ints
    workers: Ints
    """Which worker of the gang, from 0, holds each cell."""

    @property
    def num_workers(self) -> int:
        """Size of the gang."""
        return sum(count for _, count in self.nodes)


class ClusterIndex:
    """Nodes and their free cells. Whoever owns it calls `take` and `give`; a decision works on `free()`, a copy."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)
        self.row_of = {node.name: row for row, node in enumerate(self.nodes)}
        amounts = [node.capacity.amounts() for node in self.nodes]
        self.num_devices = max((int(amount.get("GPU", 0.0)) for amount in amounts), default=0)
        names = sorted({name for amount in amounts for name in amount} - {"GPU"})
        self.scalar_column = {name: self.num_devices + column for column, name in enumerate(names)}
        self.resources = ("GPU", *names)
        self.capacity = np.zeros((len(self.nodes), self.num_devices + len(names)), dtype=np.int64)
        for row, amount in enumerate(amounts):
            self.capacity[row, : int(amount.get("GPU", 0.0))] = UNIT
            for name in amount.keys() - {"GPU"}:
                self.capacity[row, self.scalar_column[name]] = units(amount[name])
        self._free = Free(self.capacity.copy(), self.num_devices)
        self.outside = np.zeros_like(self.capacity)
        self.totals: Ints = self.capacity.sum(axis=0)
        self.gpu_units = int(self.totals[: self.num_devices].sum())
        self.gangs: list[CompiledGang] = []
        self.demands: Ints = np.zeros((0, len(self.resources)), dtype=np.int64)
        """Of each gang, what a worker takes."""
        self.devices: Ints = np.zeros(0, dtype=np.int64)
        """Of each gang, how many devices a worker holds a part of."""
        self._gang_ids: dict[Gang, int] = {}

    def copy(self) -> ClusterIndex:
        """Return an independent copy."""
        other = copy.copy(self)
        other._free, other.outside = self._free.copy(), self.outside.copy()
        other.gangs, other._gang_ids = self.gangs.copy(), self._gang_ids.copy()
        return other

    @property
    def cells(self) -> Ints:
        """Free units, nodes x cells."""
        return self._free.cells

    def view(self) -> Free:
        """Return the free cells themselves, to choose from and not to take from."""
        return self._free

    def free(self) -> Free:
        """Return a copy of the free cells to plan on."""
        return self._free.copy()

    def empty(self) -> Free:
        """Return the cells of the cluster with nothing on it."""
        return Free(self.capacity.copy(), self.num_devices)

    def take(self, allocation: Allocation) -> None:
        """Mark cells as held."""
        self._free.take(allocation)

    def give(self, allocation: Allocation) -> None:
        """Mark cells as free again."""
        self._free.give(allocation)

    def take_if_free(self, allocation: Allocation, gang: CompiledGang) -> bool:
        """Mark cells as held, if the allocation is of whole workers, on cells that are free; return whether it is."""
        if len(allocation.cells) != allocation.num_workers * gang.cells_per_worker:
            return False
        self._free.take(allocation)
        if self._free.flat[allocation.cells].min(initial=0) < 0:
            self._free.give(allocation)
            return False
        return True

    def occupy(self, outside: Mapping[str, Resources]) -> None:
        """Replace what runs on nodes without a gang: it takes what is free there, never what a gang holds."""
        there = np.zeros_like(self.outside)
        before = self.cells + self.outside
        for name, used in outside.items():
            row = self.row_of.get(name)
            if row is not None:
                there[row] = self._occupied(before[row], used.amounts())
        self.set_outside(there)

    def set_outside(self, cells: Ints) -> None:
        """Replace the cells that are used without a gang, nodes x cells; no gang may hold them."""
        self._free = Free(self.cells + self.outside - cells, self.num_devices)
        self.outside = cells

    def occupied(self) -> dict[str, Resources]:
        """Return what runs on nodes without a gang, as `occupy` was told, as far as it found room."""
        used = {}
        names = {column: name for name, column in self.scalar_column.items()}
        for row in np.flatnonzero(self.outside.any(axis=1)):
            amounts = {names[column]: int(self.outside[row, column]) / UNIT for column in names}
            used[self.nodes[row].name] = Resources(
                gpus=int(self.outside[row, : self.num_devices].sum()) / UNIT,
                cpus=amounts.pop("CPU", 0.0),
                memory_bytes=round(amounts.pop("memory", 0.0)),
                custom=tuple((name, amount) for name, amount in amounts.items() if amount),
            )
        return used

    def with_nodes(self, nodes: Sequence[Node]) -> ClusterIndex:
        """Return an index of these nodes, with nothing on it, that gives gangs the same numbers.

        A node that is gone or has become smaller stays as it was while a gang holds part of it, and takes nothing new.
        """
        there = {node.name: node for node in nodes}
        held = (self.capacity - self.cells - self.outside).any(axis=1)
        for row in np.flatnonzero(held):
            before = self.nodes[row]
            now = there.get(before.name)
            if now is None or not _covers(now.capacity, before.capacity):
                there[before.name] = replace(before, schedulable=False)
        index = ClusterIndex(tuple(there.values()))
        for compiled in self.gangs:
            index.compile(compiled.gang)
        return index

    def carried(self, allocations: Mapping[str, Allocation], before: ClusterIndex) -> dict[str, Allocation]:
        """Return allocations of an index that this one was made `with_nodes` of, on the same devices."""
        columns = np.arange(before.capacity.shape[1])
        for name, column in before.scalar_column.items():
            columns[column] = self.scalar_column.get(name, -1)
        rows = np.array([self.row_of.get(node.name, -1) for node in before.nodes], dtype=np.int64)
        cells = (rows[:, None] * self.capacity.shape[1] + columns).reshape(-1)
        return {
            name: replace(
                held, nodes=tuple((int(rows[node]), count) for node, count in held.nodes), cells=cells[held.cells]
            )
            for name, held in allocations.items()
        }

    def compile(self, gang: Gang) -> int:
        """Return the number of a gang's demand among those that this cluster knows."""
        known = self._gang_ids.get(gang)
        if known is None:
            known = self._gang_ids[gang] = len(self.gangs)
            self.gangs.append(self._compiled(gang))
            self.demands = np.vstack([self.demands, self.gangs[-1].demand])
            self.devices = np.append(self.devices, self.gangs[-1].num_devices)
        return known

    def placement(self, allocation: Allocation) -> Placement:
        """Return an allocation by the names of its nodes."""
        return Placement(tuple((self.nodes[row].name, count) for row, count in allocation.nodes))

    def _compiled(self, gang: Gang) -> CompiledGang:
        asked = gang.worker.amounts()
        gpu = units(asked.get("GPU", 0.0))
        wanted = set(gang.labels)
        mask = np.array([node.schedulable and wanted <= set(node.labels) for node in self.nodes], dtype=bool)
        scalars = []
        for name, amount in sorted(asked.items() - {("GPU", asked.get("GPU"))}):
            column = self.scalar_column.get(name)
            if column is None:
                mask &= False
            else:
                scalars.append((column, units(amount)))
        whole = gpu >= UNIT
        gpu -= gpu % UNIT if whole else 0
        parts = [amount / self.totals[column] for column, amount in scalars if self.totals[column]]
        if gpu and self.gpu_units:
            parts.append(gpu / self.gpu_units)
        return CompiledGang(
            gang=gang,
            devices=gpu // UNIT if whole else 0,
            fraction=0 if whole else gpu,
            scalars=tuple(scalars),
            demand=np.array([units(asked.get(name, 0.0)) for name in self.resources], dtype=np.int64),
            mask=mask,
            share=float(max(parts, default=0.0)),
            domains=None if gang.topology is None else self._domains(gang.topology),
            speeds=self._speeds(dict(gang.throughput)) if gang.throughput else None,
        )

    def _speeds(self, throughput: Mapping[str, float]) -> Floats:
        return np.array([throughput.get(dict(node.labels).get(ACCELERATOR_LABEL, ""), 1.0) for node in self.nodes])

    def _occupied(self, free: Ints, amounts: Mapping[str, float]) -> Ints:
        """Cells of one node for these amounts.

        Which devices are used is not known: whole ones from the right, since gangs take them from the left, and the
        rest where it fits best.
        """
        taken = np.zeros_like(free)
        for name in amounts.keys() & self.scalar_column.keys():
            column = self.scalar_column[name]
            taken[column] = min(units(amounts[name]), free[column])
        gpu = units(amounts.get("GPU", 0.0))
        left = free[: self.num_devices].copy()
        whole = np.flatnonzero(left == UNIT)[::-1][: gpu // UNIT]
        taken[whole], left[whole] = UNIT, 0
        gpu -= UNIT * len(whole)
        for device in np.lexsort((left, left < gpu)):
            part = min(gpu, int(left[device]))
            taken[device] += part
            gpu -= part
        return taken

    def _domains(self, label: str) -> Ints:
        values = [dict(node.labels).get(label) for node in self.nodes]
        order = {value: number for number, value in enumerate(sorted({value for value in values if value is not None}))}
        return np.array([-1 if value is None else order[value] for value in values], dtype=np.int64)


class Free:
    """Free cells that a plan takes from and gives back to."""

    def __init__(self, cells: Ints, num_devices: int, whole: Ints | None = None) -> None:
        self.cells = cells
        self.flat = cells.reshape(-1)
        self.num_devices = num_devices
        self.whole: Ints = _num_whole(cells[:, :num_devices]) if whole is None else whole
        """Devices of each node that are free whole."""

    def copy(self) -> Free:
        """Return an independent copy."""
        return Free(self.cells.copy(), self.num_devices, self.whole.copy())

    def slots(self, gang: CompiledGang) -> Ints:
        """Return how many workers of the gang each node holds."""
        if gang.devices:
            count = self.whole // gang.devices if gang.devices > 1 else self.whole.copy()
        elif gang.fraction:
            count = (self.cells[:, : self.num_devices] // gang.fraction).sum(axis=1)
        else:
            count = np.full(len(self.cells), UNBOUNDED)
        for column, amount in gang.scalars:
            np.minimum(count, self.cells[:, column] // amount, out=count)
        count[~gang.mask] = 0
        if gang.gang.strategy is Strategy.STRICT_SPREAD:
            np.minimum(count, 1, out=count)
        return count

    def allocate(self, gang: CompiledGang, nodes: Iterable[tuple[int, int]]) -> Allocation:
        """Choose cells for workers on nodes that hold them. Takes nothing yet."""
        chosen = tuple(nodes)
        width = self.cells.shape[1]
        cells: list[int] = []
        amounts: list[int] = []
        workers: list[int] = []
        worker = 0
        for row, count in chosen:
            base = row * width
            devices = self._devices(gang, row, count)
            per_worker = gang.num_devices
            for number in range(count):
                mine = devices[number * per_worker : (number + 1) * per_worker]
                cells += [base + device for device in mine]
                amounts += [gang.fraction or UNIT] * len(mine)
                cells += [base + column for column, _ in gang.scalars]
                amounts += [amount for _, amount in gang.scalars]
                workers += [worker] * (len(mine) + len(gang.scalars))
                worker += 1
        return Allocation(chosen, np.array(cells, np.int64), np.array(amounts, np.int64), np.array(workers, np.int64))

    def take(self, allocation: Allocation) -> None:
        """Mark cells as held in this plan."""
        np.subtract.at(self.flat, allocation.cells, allocation.amounts)
        self._recount(allocation)

    def give(self, allocation: Allocation, *, keep_workers: int = 0) -> None:
        """Mark cells as free in this plan, but for those of the first `keep_workers` workers."""
        cells, amounts = allocation.cells, allocation.amounts
        if keep_workers:
            back = allocation.workers >= keep_workers
            cells, amounts = cells[back], amounts[back]
        np.add.at(self.flat, cells, amounts)
        self._recount(allocation)

    def close(self, nodes: Bools) -> None:
        """Leave nothing of these nodes."""
        self.cells[nodes] = 0
        self.whole[nodes] = 0

    def narrow(self, bound: Free, allocation: Allocation) -> None:
        """Keep the cells of an allocation within those of `bound`."""
        cells = allocation.cells
        self.flat[cells] = np.minimum(self.flat[cells], bound.flat[cells])
        self._recount(allocation)

    def _recount(self, allocation: Allocation) -> None:
        for row, _ in allocation.nodes:
            self.whole[row] = np.count_nonzero(self.cells[row, : self.num_devices] == UNIT)

    def _devices(self, gang: CompiledGang, row: int, count: int) -> list[int]:
        """Devices of one node for `count` workers: whole ones from the left, fractions where the least stays over."""
        if gang.devices:
            whole = [device for device, left in enumerate(self.cells[row, : self.num_devices].tolist()) if left == UNIT]
            return whole[: count * gang.devices]
        if not gang.fraction:
            return []
        left = self.cells[row, : self.num_devices].copy()
        chosen = []
        for _ in range(count):
            device = int(np.argmin(np.where(left >= gang.fraction, left, UNBOUNDED)))
            left[device] -= gang.fraction
            chosen.append(device)
        return chosen


def _num_whole(devices: Ints) -> Ints:
    """Count the devices of each node that are free whole; numpy multiplies much faster than it sums short rows."""
    ones = np.ones(devices.shape[1], dtype=np.float32)
    whole: Ints = ((devices == UNIT).astype(np.float32) @ ones).astype(np.int64)
    return whole


def _covers(capacity: Resources, held: Resources) -> bool:
    now = capacity.amounts()
    return all(now.get(name, 0.0) >= amount for name, amount in held.amounts().items())
