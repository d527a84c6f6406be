"""Workloads that wait and workloads that run, as columns.

A table is an index that its owner (the live scheduler, the simulator) keeps up to date by `add` and `remove`, each in
constant time, so that a snapshot of ten thousand workloads costs nothing to take. A decision only reads it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from mlaas.scheduler.estimates import Belief, outlook
from mlaas.scheduler.holdings import Holdings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mlaas.scheduler.cluster import Allocation, Bools, Ints
    from mlaas.scheduler.estimates import Floats
    from mlaas.scheduler.types import Workload

DEFAULT_MIN_RUNTIME_S = 300.0
"""A gang is left in peace this long once placed, if it says nothing else: with a restart of a minute, a fifth is the
most that restarts cost.
"""
RESTARTS_PER_MIN_RUNTIME = 5.0
"""A gang whose restart costs more is left in peace this many restarts long."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a workload has had so far."""

    attained_s: float = 0.0
    """Time it ran at full size, restarts not counted: what its checkpoint holds."""
    waited_s: float = 0.0
    """Time it spent in the queue before its present wait or run."""
    restart_owed_s: float = 0.0
    """What its next start spends before it goes on: 0 at the first start."""


@dataclass(frozen=True, slots=True)
class Entry:
    """All that a table knows of one workload."""

    workload: Workload
    sequence: int
    belief: Belief
    progress: Progress
    """Before its present wait or run."""
    since_s: float
    """Start of its present wait or run."""


class _Columns:
    """Rows side by side in growing arrays. Removing moves the last row into the hole."""

    floats: tuple[str, ...] = (
        "waited_s", "estimate_s", "log_median", "sigma", "believed_from_s", "attained_s", "share", "deadline_s",
        "restart_s",
    )  # fmt: skip
    ints: tuple[str, ...] = (
        "sequence",
        "gang",
        "queue",
        "priority",
        "workers",
        "min_workers",
        "max_workers",
        "preemptible",
        "preempts",
    )

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.workloads: list[Workload] = []
        self.row_of: dict[str, int] = {}
        self._hold_columns(np.zeros((len(self.floats), 64)), np.zeros((len(self.ints), 64), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ids)

    def floats_of(self, name: str) -> Floats:
        """Return a column of floats, a value per row."""
        column: Floats = self._arrays[name][: len(self.ids)]  # type: ignore[assignment]  # one dict holds both kinds
        return column

    def ints_of(self, name: str) -> Ints:
        """Return a column of integers, a value per row."""
        column: Ints = self._arrays[name][: len(self.ids)]  # type: ignore[assignment]  # one dict holds both kinds
        return column

    def copy(self) -> Self:
        """Return an independent copy."""
        other = copy.copy(self)
        other.ids, other.workloads, other.row_of = self.ids.copy(), self.workloads.copy(), self.row_of.copy()
        other._hold_columns(self._floats.copy(), self._ints.copy())
        return other

    def _hold_columns(self, floats: Floats, ints: Ints) -> None:
        """Keep columns in these blocks, columns x rows: one block of a kind makes a row one strided copy."""
        self._floats, self._ints = floats, ints
        self._arrays: dict[str, NDArray[np.float64] | NDArray[np.int64]] = {
            **dict(zip(self.floats, floats, strict=True)),
            **dict(zip(self.ints, ints, strict=True)),
        }

    def _entry(self, row: int, *, since: str, owed: str) -> Entry:
        def value(name: str) -> float:
            return float(self._arrays[name][row])

        return Entry(
            self.workloads[row],
            int(self._arrays["sequence"][row]),
            Belief(value("log_median"), value("sigma"), value("believed_from_s")),
            Progress(value("attained_s"), value("waited_s"), value(owed)),
            value(since),
        )

    def set_column(self, name: str, values: NDArray[np.float64] | NDArray[np.int64]) -> None:
        """Replace a column, a value per row."""
        self._arrays[name][: len(self.ids)] = values

    def _append(self, workload: Workload, values: dict[str, float]) -> int:
        row = len(self.ids)
        if row == self._ints.shape[1]:
            blocks = (self._floats, self._ints)
            self._hold_columns(*(np.concatenate([block, np.zeros_like(block)], axis=1) for block in blocks))
        self.ids.append(workload.id)
        self.workloads.append(workload)
        self.row_of[workload.id] = row
        self._floats[:, row] = [values[name] for name in self.floats]
        self._ints[:, row] = [values[name] for name in self.ints]
        return row

    def _drop(self, workload_id: str) -> tuple[int, int]:
        """Remove a row; return it, and the row that moved into it."""
        row, last = self.row_of.pop(workload_id), len(self.ids) - 1
        if row != last:
            moved = self.ids[last]
            self.ids[row], self.workloads[row] = moved, self.workloads[last]
            self.row_of[moved] = row
            self._floats[:, row] = self._floats[:, last]
            self._ints[:, row] = self._ints[:, last]
        self.ids.pop()
        self.workloads.pop()
        return row, last


def _values(
    workload: Workload, *, sequence: int, gang: int, queue: int, share: float, belief: Belief, progress: Progress
) -> dict[str, float]:
    estimate = workload.estimate_s
    return {
        "sequence": sequence,
        "gang": gang,
        "queue": queue,
        "priority": workload.priority,
        "min_workers": workload.gang.min_workers,
        "max_workers": workload.gang.max_workers,
        "preemptible": workload.preemptible,
        "preempts": workload.preempts,
        "estimate_s": np.exp(belief.log_median) if estimate is None else estimate,
        "log_median": belief.log_median,
        "sigma": belief.sigma,
        "believed_from_s": belief.from_s,
        "attained_s": progress.attained_s,
        "waited_s": progress.waited_s,
        "share": share,
        "deadline_s": np.inf if workload.deadline_s is None else workload.deadline_s,
    }


class PendingTable(_Columns):
    """Workloads that wait. `workers` and the dominant `share` are of the gang's smallest size."""

    floats = (*_Columns.floats, "rate", "remaining_s", "queued_s", "min_runtime_s")

    def __init__(self) -> None:
        super().__init__()
        self._new: list[str] = []
        """Rows without `rate` and `remaining_s` yet: those are found for all together, once somebody asks."""

    def add(
        self, workload: Workload, *, sequence: int, gang: int, queue: int, share: float, belief: Belief, progress:
        Progress, now_s: float,
    ) -> None:  # fmt: skip
        """Queue a workload. `sequence` orders workloads that are otherwise equal, the first accepted first."""
        values = _values(
            workload, sequence=sequence, gang=gang, queue=queue, share=share, belief=belief, progress=progress
        )
        values["rate"] = values["remaining_s"] = 0.0
        values["restart_s"] = progress.restart_owed_s
        values["queued_s"] = now_s
        values["min_runtime_s"] = min_runtime_s(workload)
        values["workers"] = workload.gang.min_workers
        self._append(workload, values)
        self._new.append(workload.id)

    def copy(self) -> Self:
        """Return an independent copy."""
        self._look_out()
        other = super().copy()
        other._new = []
        return other

    def floats_of(self, name: str) -> Floats:
        """Return a column of floats, a value per row."""
        if self._new and name in {"rate", "remaining_s"}:
            self._look_out()
        return super().floats_of(name)

    def _look_out(self) -> None:
        """Find what is expected of the new rows."""
        rows = np.array([self.row_of[it] for it in self._new if it in self.row_of], dtype=np.int64)
        self._new.clear()
        since_s = np.maximum(self.floats_of("attained_s") - self.floats_of("believed_from_s"), 0.0)
        expected = outlook(self.floats_of("log_median")[rows], self.floats_of("sigma")[rows], since_s[rows])
        owed_s = self.floats_of("restart_s")[rows]
        self._arrays["rate"][rows] = 1.0 / (1.0 / expected.rate + owed_s)
        self._arrays["remaining_s"][rows] = expected.remaining_s + owed_s

    def waits_s(self, now_s: float) -> Floats:
        """Return how long each workload has waited, over all its waits."""
        waits: Floats = self.floats_of("waited_s") + (now_s - self.floats_of("queued_s"))
        return waits

    def entry(self, row: int) -> Entry:
        """Return what is known of a row."""
        return self._entry(row, since="queued_s", owed="restart_s")

    def remove(self, workload_id: str) -> None:
        """Take a workload out of the queue."""
        self._drop(workload_id)


class RunningTable(_Columns):
    """Workloads that run, and the cells that they hold. `share` and `workers` are of their present size.

    `node` is the one on which a gang lies whole, -1 where it lies on several.
    """

    floats = (*_Columns.floats, "started_s", "restart_owed_s", "productive_from_s", "protected_until_s", "speed")
    ints = (*_Columns.ints, "node")

    def __init__(self) -> None:
        super().__init__()
        self.allocations: dict[str, Allocation] = {}
        self._cells = Holdings(3)
        self._parts = Holdings(2)

    def add(
        self, workload: Workload, allocation: Allocation, *, sequence: int, gang: int, queue: int, share: float,
        belief: Belief, progress: Progress, now_s: float, relative_speed: float = 1.0,
    ) -> None:  # fmt: skip
        """Record a gang that was placed at `now_s`, on nodes where it runs at `relative_speed`."""
        values = _values(
            workload, sequence=sequence, gang=gang, queue=queue, share=share, belief=belief, progress=progress
        )
        workers = allocation.num_workers
        values["workers"] = workers
        values["node"] = _only_node(allocation)
        values["speed"] = relative_speed * workers / workload.gang.max_workers
        values["restart_s"] = workload.restart_cost_s
        values["started_s"] = now_s
        values["restart_owed_s"] = progress.restart_owed_s
        values["productive_from_s"] = now_s + progress.restart_owed_s
        values["protected_until_s"] = now_s + min_runtime_s(workload)
        row = self._append(workload, values)
        self._cells.add(workload.id, row, (allocation.cells, allocation.amounts, allocation.workers))
        self._parts.add(workload.id, row, _workers_on_nodes(allocation))
        self.allocations[workload.id] = allocation

    def copy(self) -> Self:
        """Return an independent copy."""
        other = super().copy()
        other.allocations = self.allocations.copy()
        other._cells, other._parts = self._cells.copy(), self._parts.copy()
        return other

    def entry(self, row: int) -> Entry:
        """Return what is known of a row."""
        return self._entry(row, since="started_s", owed="restart_owed_s")

    def remove(self, workload_id: str) -> Allocation:
        """Take out a gang that ended or yielded; return the cells that it held."""
        row, last = self._drop(workload_id)
        for held in (self._cells, self._parts):
            held.remove(workload_id)
            if row != last:
                held.renumber(self.ids[row], row)
        return self.allocations.pop(workload_id)

    def begin(self, workload_id: str, *, restart_owed_s: float, now_s: float) -> None:
        """Count a placed gang's run from now on."""
        row = self.row_of[workload_id]
        self._arrays["started_s"][row] = now_s
        self._arrays["restart_owed_s"][row] = restart_owed_s
        self._arrays["started_s"][row] = now_s
        self._arrays["productive_from_s"][row] = now_s + restart_owed_s
        self._arrays["protected_until_s"][row] = now_s + min_runtime_s(self.workloads[row])

    def believe(self, workload_id: str, belief: Belief) -> None:
        """Replace what is believed of a gang's runtime."""
        row = self.row_of[workload_id]
        for name, value in (
            ("log_median", belief.log_median), ("sigma", belief.sigma), ("believed_from_s", belief.from_s),
        ):  # fmt: skip
            self._arrays[name][row] = value

    def relocate(self, allocations: Mapping[str, Allocation]) -> None:
        """Replace the cells of every gang by as many others: the index of the nodes has changed."""
        for workload_id, allocation in allocations.items():
            self._cells.replace(workload_id, (allocation.cells, allocation.amounts, allocation.workers))
            self._parts.replace(workload_id, _workers_on_nodes(allocation))
            self._arrays["node"][self.row_of[workload_id]] = _only_node(allocation)
            self.allocations[workload_id] = allocation

    def entries(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Return (row of the gang, cell, amount, its worker) for each cell held; vacant entries have amount 0."""
        row, cell, amount, worker = self._cells.columns()
        return row, cell, amount, worker

    def parts(self) -> tuple[Ints, Ints, Ints]:
        """Return (row of the gang, node, number of its workers there); vacant entries have no workers."""
        row, node, workers = self._parts.columns()
        return row, node, workers

    def attained_s_of(self, row: int, now_s: float) -> float:
        """Return what a gang's checkpoint would hold now: `attained_s` of one row."""
        ran_s = max(now_s - float(self._arrays["productive_from_s"][row]), 0.0) * float(self._arrays["speed"][row])
        return float(self._arrays["attained_s"][row]) + ran_s

    def waits_s(self, now_s: float) -> Floats:
        """Return how long each gang had waited, over all its waits; `now_s` does not matter once it runs."""
        return self.floats_of("waited_s")

    def attained_s(self, now_s: float) -> Floats:
        """Return what each gang's checkpoint would hold now: its time at full size, restarts not counted."""
        ran = np.maximum(now_s - self.floats_of("productive_from_s"), 0.0) * self.floats_of("speed")
        attained: Floats = self.floats_of("attained_s") + ran
        return attained


def _only_node(allocation: Allocation) -> int:
    return allocation.nodes[0][0] if len(allocation.nodes) == 1 else -1


def _workers_on_nodes(allocation: Allocation) -> tuple[Ints, Ints]:
    nodes, workers = np.array(allocation.nodes, dtype=np.int64).reshape(-1, 2).T
    return nodes, workers


def min_runtime_s(workload: Workload) -> float:
    """Return how long a placed gang is left in peace."""
    if workload.min_runtime_s is not None:
        return workload.min_runtime_s
    return max(DEFAULT_MIN_RUNTIME_S, RESTARTS_PER_MIN_RUNTIME * workload.restart_cost_s)


def is_protected(running: RunningTable, now_s: float) -> Bools:
    """Return which gangs may not be asked to yield: within their minimum runtime, or not preemptible."""
    protected: Bools = (running.ints_of("preemptible") == 0) | (running.floats_of("protected_until_s") > now_s)
    return protected
