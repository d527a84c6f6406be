"""What is kept in memory of each workload, and of what is to be written and done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlaas.scheduler.live.lifecycle import Effect, State

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from mlaas.scheduler.requests.spec import WorkloadSpec
    from mlaas.scheduler.types import Placement, Workload
    from mlaas.store.workloads import WorkloadEvent, WorkloadRecord

QUEUED = "in the queue: behind others that want the same capacity, or about to be placed"
"""Why a workload waits of which the last decision has said nothing else."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A placement that is booked in the ledger and not begun: something still yields there."""

    placement: Placement
    reason: str
    waited_s: float


@dataclass(slots=True, eq=False)
class Lease:
    """What an attempt holds on the cluster, from its placement until all of it is removed."""

    id: str
    placement: Placement
    is_started: bool = False
    begun_s: float = 0.0
    """On the monotonic clock, once it is started."""


@dataclass(slots=True, eq=False)
class Live:
    """A workload that has not ended, or that still holds something."""

    record: WorkloadRecord
    committed: WorkloadRecord
    """As the store has it: what others are told."""
    spec: WorkloadSpec
    workload: Workload
    plan: Plan | None = None
    lease: Lease | None = None
    due_s: float | None = None
    """On the monotonic clock: when it has to have yielded, or when its back-off ends."""
    seen_s: float = 0.0
    """On the monotonic clock: the last word of its holder."""
    refusals: int = 0
    """Placements that the cluster has refused in a row."""
    waits_for: set[str] = field(default_factory=set)
    watchers: set[asyncio.Future[None]] = field(default_factory=set)

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    @property
    def state(self) -> State:
        """Its state."""
        return State(self.record.state)


@dataclass(frozen=True, slots=True)
class Order:
    """Something to do on the cluster."""

    live: Live | None
    """None: the lease is nobody's, and ends."""
    lease_id: str
    effect: Effect


@dataclass(slots=True)
class Batch:
    """What is to be stored together, and what is to be done after that."""

    changed: dict[str, Live] = field(default_factory=dict)
    noted: dict[str, Live] = field(default_factory=dict)
    """Only their reason has changed: stored along, and not worth a write of its own."""
    events: list[WorkloadEvent] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.changed or self.events or self.orders)

    def merge(self, later: Batch) -> Batch:
        """Return both as one."""
        return Batch(
            self.changed | later.changed,
            self.noted | later.noted,
            self.events + later.events,
            self.orders + later.orders,
        )


def waiting_reason(dependencies: Iterable[str]) -> str:
    """Return why a workload is held back."""
    return f"held back until these have succeeded: {', '.join(sorted(dependencies))}"
