"""What the routes need of a scheduler and of a store of packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlaas.scheduler.explanations.explain import Explanation
    from mlaas.scheduler.explanations.plan import Plan
    from mlaas.scheduler.explanations.view import ClusterView
    from mlaas.scheduler.live.lifecycle import State
    from mlaas.scheduler.requests.queue_changes import AppliedQueues
    from mlaas.scheduler.requests.queues import QueuesDocument
    from mlaas.scheduler.requests.spec import WorkloadSpec
    from mlaas.store.workloads import QueuesRecord, WorkloadEvent, WorkloadRecord


class SchedulerPort(Protocol):
    """The verbs of the scheduler that users call; `mlaas.scheduler.live.service.SchedulerService` has them.

    Each raises `PlatformError` when the scheduler or its store does not answer, and `NotFound` for a workload that does
    not exist or is another tenant's. `tenant=None` is whoever may see all.
    """

    async def submit(
        self, spec: WorkloadSpec, *, tenant: str, submission_id: str | None = None
    ) -> Sequence[WorkloadRecord]:
        """Accept a workload, or each index of an array."""
        ...

    async def cancel(self, workload_id: str, *, tenant: str | None) -> WorkloadRecord:
        """Cancel a workload in any state."""
        ...

    async def get(self, workload_id: str, *, tenant: str | None = None) -> WorkloadRecord:
        """Return a workload."""
        ...

    async def list(
        self, *, tenant: str | None = None, states: Sequence[State] = (), limit: int = 100, in_turn: bool = False
    ) -> Sequence[WorkloadRecord]:
        """Return workloads, newest first, or those that have not ended in their turn."""
        ...

    async def events(self, workload_id: str, *, tenant: str | None = None, after: int = 0) -> Sequence[WorkloadEvent]:
        """Return the first `MOST_EVENTS` that have happened to a workload after a number, oldest first."""
        ...

    async def explain(self, workload_id: str, *, tenant: str | None = None) -> Explanation:
        """Return why a workload is where it is."""
        ...

    async def plan(self, spec: WorkloadSpec, *, tenant: str) -> Plan:
        """Return what would become of a workload if it were submitted now."""
        ...

    async def top(self) -> ClusterView:
        """Return the cluster as it is used now."""
        ...

    async def apply_queues(self, document: QueuesDocument, *, is_dry_run: bool, by: str) -> AppliedQueues:
        """Put queues in force, or only return what would change."""
        ...


class QueueSource(Protocol):
    """Where the queues in force are kept; `mlaas.store.workloads.WorkloadRepository` is one. Blocks."""

    def latest_queues(self) -> QueuesRecord | None:
        """Return the queues in force; None: none were ever applied."""
        ...


class PackageStore(Protocol):
    """Where the archives of working directories are kept, each under the digest of its content. Blocks."""

    def has(self, digest: str) -> bool:
        """Return whether an archive is there."""
        ...

    def put(self, archive: bytes) -> str:
        """Keep an archive and return its digest; one that is there already is left as it is."""
        ...
