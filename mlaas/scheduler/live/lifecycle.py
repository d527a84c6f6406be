"""The states of a workload."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a workload stands. The last three are final."""

    PENDING = "pending"
    """In the queue, or held back until its dependencies have succeeded or its back-off is over."""
    STARTING = "starting"
    """Its gang is being placed; it counts as running for all decisions."""
    RUNNING = "running"
    YIELDING = "yielding"
    """Told to checkpoint and give back what it holds, until a deadline."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing leads out of it."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)

    @property
    def holds_gang(self) -> bool:
        """Whether it holds cells of the cluster."""
        return self in (State.STARTING, State.RUNNING, State.YIELDING)
