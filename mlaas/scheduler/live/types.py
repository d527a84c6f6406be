"""What holders of gangs are told, and what they tell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlaas.scheduler.types import Gang, Placement

POLL_S = 10.0
"""How long `attach` and `watch` wait before they answer that nothing has changed. Each call is a heartbeat too."""
HOLDER_TIMEOUT_S = 30.0
"""A holder that is silent for so long has died: three polls, or three beats of `HEARTBEAT_S`."""
HEARTBEAT_S = 10.0
"""How often a holder says that it lives."""
MOST_IN_A_ROW = 500
"""Workloads of an array that are changed before the event loop gets its turn again: a few hundredths of a second."""


class Signal(StrEnum):
    """What a lease asks of its holder."""

    GO_ON = "go-on"
    YIELD = "yield"
    """Checkpoint and give back, within `within_s` seconds."""
    OVER = "over"
    """It is not the holder's any more: killed at its deadline, cancelled, or lost with a node."""


class Outcome(StrEnum):
    """How a holder ends its lease."""

    FINISHED = "finished"
    FAILED = "failed"
    YIELDED = "yielded"
    """It has checkpointed, and wants to go on later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSignal:
    """What a lease asks of its holder now."""

    lease_id: str
    number: int
    """Grows with each signal of this lease, from 0; `watch(after=number)` answers once there is a later one."""
    signal: Signal
    reason: str = ""
    within_s: float | None = None
    """Until the kill, when it is told to yield. A duration, so that clocks of machines need not agree."""
    num_workers: int | None = None
    """Size at which it goes on at once after it has yielded: another one, or the same on other nodes, as the reason
    says. None: it waits for its turn again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Where someone who asked for a gang stands."""

    workload_id: str
    gang: Gang
    lease_id: str | None
    """Fencing token of all that its holder does from now on; None: it waits, and asks again with `workload_id`."""
    placement: Placement | None
    reason: str
    """Why it waits, or why it was placed."""
    yield_grace_s: float
    """Time from the signal to yield to the kill."""
    attempt: int = 0
    """From 1; above 1 it has run before, and its checkpoint says how far."""

    @property
    def group_name(self) -> str | None:
        """Name of its placement group."""
        return None if self.lease_id is None else group_name(self.lease_id)


def group_name(lease_id: str) -> str:
    """Return the name of a lease's placement group."""
    return f"{GROUP_PREFIX}{lease_id}"


GROUP_PREFIX = "mlaas-"
"""Placement groups of this name are the scheduler's; one that no lease knows is removed."""


def lease_id_of(workload_id: str, attempt: int) -> str:
    """Return the name of an attempt."""
    return f"{workload_id}.{attempt}"


def workload_of(lease_id: str) -> tuple[str, int]:
    """Return the workload and the attempt that a lease id names; a workload's own id names attempt 0.

    An id has no dot (`requests.spec`), so this is never ambiguous.
    """
    workload_id, _, attempt = lease_id.partition(".")
    return workload_id, int(attempt) if attempt.isdecimal() else 0
