"""All that a decision depends on, in one value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlaas.scheduler.cluster import ClusterIndex
    from mlaas.scheduler.decision.quota import QueueTree
    from mlaas.scheduler.estimates import Floats
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

    def copy(self) -> Snapshot:
        """Return an independent copy, which stays as it is when its owner goes on."""
        return replace(
            self,
            cluster=self.cluster.copy(),
            pending=self.pending.copy(),
            running=self.running.copy(),
            average_share=self.average_share.copy(),
        )
