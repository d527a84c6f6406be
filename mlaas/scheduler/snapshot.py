"""All that a decision depends on, in one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.cluster import UNIT

if TYPE_CHECKING:
    from mlaas.scheduler.cluster import ClusterIndex, CompiledGang, Ints
    from mlaas.scheduler.estimates import Floats
    from mlaas.scheduler.quota import QueueTree
    from mlaas.scheduler.tables import PendingTable, RunningTable


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The world at one moment. It points to its owner's indexes: decide before you change them."""

    now_s: float
    cluster: ClusterIndex
    queues: QueueTree
    pending: PendingTable
    running: RunningTable
    average_share: Floats
    """Decayed dominant share of each queue."""

    def need(self, gang: CompiledGang, workers: int) -> Ints:
        """Return what a gang takes of each resource that quotas know, in units."""
        need = np.zeros(len(self.queues.resources), dtype=np.int64)
        for column, name in enumerate(self.queues.resources):
            need[column] = workers * units_of(gang, self.cluster, name)
        return need


def units_of(gang: CompiledGang, cluster: ClusterIndex, resource: str) -> int:
    """Return the units of a resource that each worker takes."""
    if resource == "GPU":
        return gang.devices * UNIT + gang.fraction
    column = cluster.scalar_column.get(resource)
    return dict(gang.scalars).get(column, 0) if column is not None else 0
