"""A workload as its user states it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mlaas.scheduler.types import DEFAULT_QUEUE, Gang, Kind

DEFAULT_YIELD_GRACE_S = 60.0
"""Time from the signal to yield to the kill: enough to write a checkpoint of tens of gigabytes to a local disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A process that the scheduler starts once its gang is placed."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    working_dir: str | None = None
    """Digest of an uploaded working directory; None: the command needs no files of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """What follows when a command fails by itself. A preemption or a lost node is no failure of its own."""

    max_retries: int = 0
    backoff_s: float = 10.0
    """Before the first retry; it doubles with each further one."""
    max_backoff_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """What is asked for; who asks, and when, is not part of it."""

    gang: Gang
    kind: Kind = Kind.JOB
    name: str = ""
    """Runs of one tenant under one name teach the scheduler how long such runs take."""
    queue: str = DEFAULT_QUEUE
    priority_class: str = "normal"
    """A class of `queues.yaml`, which gives it a number."""
    preemptible: bool = True
    estimate_s: float | None = None
    """Stated runtime at full size; None: learned from history."""
    deadline_s: float | None = None
    """Seconds after submission by which it should have finished."""
    deadline_at: datetime | None = None
    """The same as a date; at most one of the two is given."""
    min_runtime_s: float | None = None
    restart_cost_s: float = 0.0
    yield_grace_s: float = DEFAULT_YIELD_GRACE_S
    retries: Retries = Retries()
    depends_on: tuple[str, ...] = ()
    """Ids of workloads that must have succeeded before."""
    array: tuple[int, ...] = ()
    """Indexes: one workload is made for each, `<id>-<index>`, with the index in `MLAAS_ARRAY_INDEX`."""
    command: Command | None = None
    """None: a running process asks for the gang for itself, and holds it (`mlaas.scheduler.leases`)."""
