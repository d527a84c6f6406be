"""The scheduler as a service: what users and holders of gangs may ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlaas.scheduler.live.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mlaas.scheduler.live.ports import ClusterPort
    from mlaas.scheduler.live.types import LeaseSignal, Outcome, Ticket
    from mlaas.scheduler.ordering import SchedulingPolicy
    from mlaas.scheduler.requests.spec import WorkloadSpec
    from mlaas.store.workloads import WorkloadEvent, WorkloadRecord, WorkloadRepository


class SchedulerService:
    """One scheduler. `start`, then `run` until it returns; all verbs may be called meanwhile, on the same event loop.

    Every verb raises `PlatformError` with `retry_after_s` while the store does not answer or the service is not up,
    and `Conflict` (`scheduler_superseded`) once another scheduler leads.
    """

    def __init__(
        self, cluster: ClusterPort, store: WorkloadRepository, *, policy: SchedulingPolicy, clock: Clock | None = None
    ) -> None: ...

    async def start(self) -> None:
        """Become the leader, and take up what the store and the cluster say.

        Raises:
            PlatformError: store or cluster do not answer; call again.
        """

    async def run(self) -> None:
        """Observe, decide and apply until `stop`.

        Raises:
            Conflict: another scheduler leads; this one has ended and has changed nothing since.
        """

    async def stop(self) -> None:
        """End `run` once what it has under way is done. What runs on the cluster goes on."""

    async def submit(
        self, spec: WorkloadSpec, *, tenant: str, submission_id: str | None = None
    ) -> tuple[WorkloadRecord, ...]:
        """Accept a workload, durably, and return it; of an array, one for each index.

        Args:
            spec: What is asked for.
            tenant: Who asks.
            submission_id: Becomes its id; submitting the same again returns what is there. None: an id is made.

        Raises:
            AdmissionError: it could never run, or depends on what is unknown or has failed.
            Conflict: the id is taken by something else.
            PlatformError: the store does not answer; nothing was accepted.
        """

    async def cancel(self, workload_id: str, *, tenant: str | None) -> WorkloadRecord:
        """End a workload in whatever state it is; one that has ended is returned as it is. An array's id: the array.

        Raises:
            NotFound: there is none, or it is another tenant's. `tenant=None` may do all.
            PlatformError: the store does not answer; the workload ends nevertheless.
        """

    async def get(self, workload_id: str, *, tenant: str | None = None) -> WorkloadRecord:
        """Return a workload as the store has it.

        Raises:
            NotFound: there is none, or it is another tenant's.
        """

    async def list(
        self, *, tenant: str | None = None, states: Collection[str] = (), limit: int = 100
    ) -> Sequence[WorkloadRecord]:
        """Return workloads, the newest first."""

    async def events(self, workload_id: str, *, tenant: str | None = None, after: int = 0) -> Sequence[WorkloadEvent]:
        """Return what happened to a workload.

        Raises:
            NotFound: there is none, or it is another tenant's.
        """

    async def attach(
        self, request: str | WorkloadSpec, *, tenant: str, holder: str, submission_id: str | None = None
    ) -> Ticket:
        """Ask for a gang, or for one's turn; answers within `POLL_S`, with a ticket that may say "wait".

        Args:
            request: A spec without a command: a new workload. A workload id: the same again, until it is placed. A
                lease id: the gang of a command that the scheduler started.
            tenant: Who asks.
            holder: Who will hold it, for people: Ray job and process.
            submission_id: Of a spec: makes the call safe to repeat.

        Raises:
            AdmissionError: the spec could never run.
            Conflict: `lease_over`, the lease or workload has ended.
            NotFound: there is none, or it is another tenant's.
        """

    async def watch(self, lease_id: str, *, after: int = 0) -> LeaseSignal:
        """Return the signal of a lease once its number is above `after`, at the latest after `POLL_S`. A heartbeat.

        Raises:
            NotFound: there never was such a lease.
        """

    async def heartbeat(self, lease_id: str) -> LeaseSignal:
        """Say that the holder lives; return the present signal.

        Raises:
            NotFound: there never was such a lease.
        """

    async def report(self, lease_id: str, *, done: float | None = None, left_s: float | None = None) -> None:
        """Say how far a run is: the part that is done, from 0 to 1, or the seconds left at the present size.

        Raises:
            Conflict: `lease_over`.
        """

    async def hand_over(self, lease_id: str) -> None:
        """Remove the placement group and keep the booking: the holder makes its own groups on the same nodes.

        Raises:
            Conflict: `lease_over`.
        """

    async def give_back(self, lease_id: str, outcome: Outcome, *, message: str = "") -> WorkloadRecord:
        """End a lease; return the workload as it stands then. Safe to repeat.

        Raises:
            Conflict: `lease_over`, it was taken back before, so this outcome does not count.
            PlatformError: the store does not answer; call again.
        """
