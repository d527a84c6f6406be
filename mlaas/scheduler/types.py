"""The vocabulary of the scheduler. Everything here is frozen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DEFAULT_QUEUE = "default"
ACCELERATOR_LABEL = "accelerator"


class Kind(StrEnum):
    """What a workload is for."""

    JOB = "job"
    TRAIN = "train"
    TUNE = "tune"
    SERVE = "serve"
    BATCH = "batch"


class Strategy(StrEnum):
    """How a gang's workers lie on nodes; Ray's own names."""

    PACK = "PACK"
    """On as few nodes as possible."""
    STRICT_PACK = "STRICT_PACK"
    """On one node."""
    SPREAD = "SPREAD"
    """On as many nodes as possible."""
    STRICT_SPREAD = "STRICT_SPREAD"
    """Each on a node of its own."""


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of each resource. `gpus` below 1 is a share of one device; above it is a whole number."""

    gpus: float = 0.0
    cpus: float = 0.0
    memory_bytes: int = 0
    custom: tuple[tuple[str, float], ...] = ()

    def amounts(self) -> dict[str, float]:
        """Return the amounts that are not zero, by Ray's resource name."""
        named = {"GPU": self.gpus, "CPU": self.cpus, "memory": float(self.memory_bytes), **dict(self.custom)}
        return {name: amount for name, amount in named.items() if amount}


@dataclass(frozen=True, slots=True)
class Gang:
    """Workers that run together or not at all."""

    worker: Resources
    """What each worker needs; a worker never spans nodes."""
    min_workers: int = 1
    max_workers: int = 1
    """Above `min_workers` the gang is elastic: it shrinks before it is killed, and grows into idle capacity."""
    strategy: Strategy = Strategy.PACK
    topology: str | None = None
    """A node label such as `rack` or `nvlink-domain`: all workers lie on nodes with the same value of it."""
    labels: tuple[tuple[str, str], ...] = ()
    """Node labels that each worker's node must carry, such as the accelerator type."""
    throughput: tuple[tuple[str, float], ...] = ()
    """Its measured speed by the value of a node's label `accelerator`; 1 where nothing was measured. Estimates are of
    speed 1. A gang is as fast as its slowest worker.

    Source: Narayanan et al., "Heterogeneity-aware cluster scheduling policies" (Gavel), OSDI 2020.
    """

    @property
    def is_elastic(self) -> bool:
        """Whether the gang may run at more than one size."""
        return self.max_workers > self.min_workers


@dataclass(frozen=True, slots=True)
class Workload:
    """What a tenant asks to run."""

    id: str
    gang: Gang
    submitted_s: float
    tenant: str = "default"
    queue: str = DEFAULT_QUEUE
    kind: Kind = Kind.JOB
    name: str = ""
    """Runs of one tenant under one name teach the scheduler how long such runs take."""
    priority: int = 0
    """Higher goes first, before any other consideration but aging."""
    preemptible: bool = True
    preempts: bool = True
    """Whether others may have to yield or move for it; else it waits until there is room."""
    estimate_s: float | None = None
    """Stated runtime at full size; None = learned from the tenant's history."""
    deadline_s: float | None = None
    """Time on the snapshot's clock by which it should have finished; None = no hurry."""
    min_runtime_s: float | None = None
    """Once placed, left in peace for this long; None = the policy's default."""
    restart_cost_s: float = 0.0
    """What its gang spends on checkpoint and restart each time it is preempted."""
    max_retries: int = 0
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster."""

    name: str
    capacity: Resources
    labels: tuple[tuple[str, str], ...] = ()
    schedulable: bool = True
    """False while it is drained: what runs there goes on, nothing new is placed."""
    host: str = ""
    """What people call the machine; no decision looks at it."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue, or with children a cohort. Limits bind only the resources they name.

    Source: Kueue's hierarchical cohorts (nominal quota, borrowing limit, lending limit), KEP-79.
    """

    name: str
    parent: str | None = None
    guarantee: tuple[tuple[str, float], ...] = ()
    """What it gets back from borrowers at any time, by resource name."""
    borrowing_limit: tuple[tuple[str, float], ...] = ()
    """How far above its guarantee it may go; a resource not named here is borrowed without limit."""
    lending_limit: tuple[tuple[str, float], ...] = ()
    """How much of its unused guarantee others may use; a resource not named here is lent whole."""
    weight: float = 1.0
    """Its part of what is shared out beyond guarantees, against its siblings."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a gang's workers lie."""

    workers: tuple[tuple[str, int], ...]
    """(node, number of workers), each node once."""

    @property
    def num_workers(self) -> int:
        """Size of the gang."""
        return sum(count for _, count in self.workers)


@dataclass(frozen=True, slots=True)
class Place:
    """Start a gang, once each workload named in `after` has yielded."""

    workload_id: str
    placement: Placement
    reason: str
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preempt:
    """Signal a gang to checkpoint and yield, and queue it again."""

    workload_id: str
    for_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Shrink:
    """Take workers from an elastic gang; `placement` is what it keeps."""

    workload_id: str
    placement: Placement
    for_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Grow:
    """Give idle capacity to an elastic gang; `placement` is what it has then."""

    workload_id: str
    placement: Placement
    reason: str


@dataclass(frozen=True, slots=True)
class Move:
    """Let a gang go on at its size on other nodes; `placement` is where."""

    workload_id: str
    placement: Placement
    for_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reserve:
    """Hold capacity for the first workload that cannot start: from `start_s` on it is expected to fit there."""

    workload_id: str
    start_s: float
    placement: Placement
    reason: str


class WaitCode(StrEnum):
    """Why a workload waits."""

    QUEUED = "queued"
    """Behind others that want the same capacity."""
    RESOURCES = "resources"
    """First in line; its gang does not fit on what is free, and no one has to yield to it."""
    QUOTA = "quota"
    """Its queue is at its limit, and has nothing left to borrow."""
    BACKFILL = "backfill"
    """It would fit now, and would delay the workload that holds the reservation."""
    IMPOSSIBLE = "impossible"
    """No set of schedulable nodes of this cluster can hold it, even when empty."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Leave a workload in its queue."""

    workload_id: str
    code: WaitCode
    reason: str


Action = Place | Preempt | Shrink | Grow | Move | Reserve


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, in this order. Who is in no action waits; `cycle.waits` says why."""

    actions: tuple[Action, ...]
    blocked: tuple[Wait, ...] = ()
    """The workloads that were looked at and passed over, with the reason; all the others are `QUEUED`."""

    def waits_for(self, workload_id: str) -> Wait:
        """Return why a workload that is not placed waits."""
        for wait in self.blocked:
            if wait.workload_id == workload_id:
                return wait
        return Wait(workload_id, WaitCode.QUEUED, "behind others that want the same capacity")
