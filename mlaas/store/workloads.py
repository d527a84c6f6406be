"""Workloads of the global scheduler: queue, leases, history and events."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class WorkloadRecord:
    """One workload, as it stands."""

    id: str
    tenant: str
    queue: str
    kind: str
    name: str
    spec: dict[str, Any]
    """What was asked for, as JSON (`mlaas.scheduler.requests.spec`)."""
    priority: int
    """Number of the priority class when it was submitted."""
    state: str
    """`mlaas.scheduler.live.lifecycle.State`."""
    reason: str
    """Why it is in this state, for people."""
    submitted_at: datetime
    sequence: int
    """Order of submission, given by the store."""
    parent_id: str | None = None
    """Of one index of an array: the id that was submitted."""
    array_index: int | None = None
    attempt: int = 0
    """Starts so far; `<id>.<attempt>` names the present or last lease."""
    num_failures: int = 0
    """Attempts that ended by their own fault."""
    num_preemptions: int = 0
    not_before_at: datetime | None = None
    """End of its back-off."""
    started_at: datetime | None = None
    """Of the present or last attempt."""
    ended_at: datetime | None = None
    yield_by_at: datetime | None = None
    """Deadline of the signal to yield, while it is yielding."""
    placement: list[list[Any]] | None = None
    """Of the present attempt: `[[node, workers], ...]`."""
    holder: str | None = None
    """Who holds the gang when it is not a command of ours: Ray job and process."""
    holder_seen_at: datetime | None = None
    attained_s: float = 0.0
    """Time it ran at full size up to its present attempt."""
    waited_s: float = 0.0
    restart_owed_s: float = 0.0
    exit_code: int | None = None
    version: int = 0
    """Grows with each change; a write that expects another version is refused."""


@dataclass(frozen=True, kw_only=True)
class WorkloadEvent:
    """Something that happened to a workload."""

    workload_id: str
    at: datetime
    kind: str
    """`submitted`, `placed`, `running`, `told-to-yield`, `resized`, `requeued`, `killed`, `succeeded`, ..."""
    text: str
    detail: dict[str, Any] = field(default_factory=dict)
