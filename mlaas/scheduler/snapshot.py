"""All that a decision depends on, in one value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.decision.fairness import fair_shares

if TYPE_CHECKING:
    from mlaas.scheduler.cluster import ClusterIndex
    from mlaas.scheduler.decision.quota import QueueTree, Usage
    from mlaas.scheduler.estimates import Floats
    from mlaas.scheduler.tables import PendingTable, RunningTable


@dataclass(frozen=True)
class Snapshot:
    """The world at one moment. It points to its owner's indexes: decide before you change them."""

    now_s: float
    cluster: ClusterIndex
    queues: QueueTree
    pending: PendingTable
    running: RunningTable
    average_share: Floats
    """Decayed dominant share of each queue."""

    @cached_property
    def usage(self) -> Usage:
        """What the queues use: to read; a plan charges a copy."""
        table, demands = self.running, self.cluster.demands
        shape = len(self.queues.queues), len(demands)
        pair = table.ints_of("queue") * len(demands) + table.ints_of("gang")
        workers = np.bincount(pair, weights=table.ints_of("workers"), minlength=shape[0] * shape[1])
        return self.queues.usage(workers.astype(np.int64).reshape(shape) @ demands)

    @cached_property
    def due(self) -> Floats:
        """The part of the cluster that each queue is due."""
        active = np.zeros(len(self.queues.queues), dtype=bool)
        for table in (self.pending, self.running):
            active[table.ints_of("queue")] = True
        return fair_shares(self.queues, active)

    def copy(self) -> Snapshot:
        """Return an independent copy, which stays as it is when its owner goes on."""
        return replace(
            self,
            cluster=self.cluster.copy(),
            pending=self.pending.copy(),
            running=self.running.copy(),
            average_share=self.average_share.copy(),
        )
