"""The replicas' workloads, asked for and held through the verbs that every holder of a gang uses."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mlaas.errors import Conflict, MlaasError, NotFound
from mlaas.scheduler.arbitration.ports import ReplicaLease
from mlaas.scheduler.live.lifecycle import State
from mlaas.scheduler.live.types import Outcome, Signal
from mlaas.scheduler.requests.queues import SERVING_CLASS, SERVING_TENANT
from mlaas.scheduler.requests.spec import WorkloadSpec
from mlaas.scheduler.types import Gang, Kind, WaitCode

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mlaas.scheduler.arbitration.types import Share
    from mlaas.scheduler.explanations.explain import Explanation
    from mlaas.scheduler.live.types import LeaseSignal, Ticket
    from mlaas.store.workloads import WorkloadRecord

HOLDER = "arbitration"
YIELD_GRACE_S = 60.0
"""An engine drains for half a minute; its process is gone soon after."""
MOST_REPLICAS = 10_000
RETRY_S = 1.0

_OBSTACLES = (WaitCode.QUOTA, WaitCode.IMPOSSIBLE)
_LIVE = tuple(state for state in State if not state.is_final)

logger = logging.getLogger(__name__)


class Verbs(Protocol):
    """What is asked of the scheduler: a part of `live.service.SchedulerService`, and of its clients."""

    async def submit(
        self, spec: WorkloadSpec, *, tenant: str, submission_id: str | None = None
    ) -> tuple[WorkloadRecord, ...]:
        """Accept a workload."""
        ...

    async def cancel(self, workload_id: str, *, tenant: str | None) -> WorkloadRecord:
        """End a workload."""
        ...

    async def list(
        self, *, tenant: str | None = None, states: Collection[str] = (), limit: int = 100
    ) -> Sequence[WorkloadRecord]:
        """Return workloads."""
        ...

    async def attach(
        self, request: str | WorkloadSpec, *, tenant: str, holder: str, submission_id: str | None = None
    ) -> Ticket:
        """Ask for a gang."""
        ...

    async def explain(self, workload_id: str, *, tenant: str | None = None) -> Explanation:
        """Return why a workload is where it is."""
        ...

    async def watch(self, lease_id: str, *, after: int = 0) -> LeaseSignal:
        """Return the next signal of a lease."""
        ...

    async def hand_over(self, lease_id: str) -> None:
        """Remove the placement group and keep the booking."""
        ...

    async def give_back(self, lease_id: str, outcome: Outcome, *, message: str = "") -> WorkloadRecord:
        """End a lease."""
        ...


@dataclass(slots=True)
class _Hold:
    """A replica's place in the queue, or its machine."""

    task: asyncio.Task[None] | None = None
    lease_id: str | None = None
    node: str | None = None
    is_yielding: bool = False


class SchedulerLeases:
    """`ports.Leases` on the scheduler. A task for each replica waits for its machine, and then holds it."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs
        self._holds: dict[str, _Hold] = {}

    async def list(self) -> Sequence[ReplicaLease]:
        """Return the replicas that wait for a machine or hold one, and keep holding them.

        Raises:
            PlatformError: the scheduler does not answer.
        """
        records = await self._verbs.list(tenant=SERVING_TENANT, states=_LIVE, limit=MOST_REPLICAS)
        records = [record for record in records if record.kind == Kind.SERVE]
        live = {record.id for record in records}
        for workload_id in self._holds.keys() - live:
            self._drop(workload_id)
        return [self._lease(record) for record in records]

    async def submit(self, share: Share, *, is_floor: bool) -> None:
        """Ask for a machine for one replica.

        Raises:
            AdmissionError: it can never be placed, with the reason.
            PlatformError: the scheduler does not answer.
        """
        spec = WorkloadSpec(
            gang=Gang(worker=share.worker),
            kind=Kind.SERVE,
            name=f"{share.name}-v{share.version}",
            queue=share.queue,
            priority_class=SERVING_CLASS,
            preemptible=not is_floor,
            yield_grace_s=YIELD_GRACE_S,
        )
        await self._verbs.submit(
            spec, tenant=SERVING_TENANT, submission_id=f"serve-{share.name}-{secrets.token_hex(4)}"
        )

    async def obstacle(self, lease: ReplicaLease) -> str | None:
        """Return what a replica that waits will go on waiting for unless somebody does something; None: its turn.

        Raises:
            PlatformError: the scheduler does not answer.
        """
        try:
            told = await self._verbs.explain(lease.workload_id, tenant=SERVING_TENANT)
        except NotFound:
            return None
        if told.queued is None or told.queued.wait is None or told.queued.wait.code not in _OBSTACLES:
            return None
        remedies = "; or ".join(remedy.text for remedy in told.queued.remedies)
        return told.queued.wait.reason + (f"; what would start it now: {remedies}" if remedies else "")

    async def give_back(self, lease: ReplicaLease) -> None:
        """Free the machine, or leave the queue. One that was told to yield waits for its next turn.

        Raises:
            PlatformError: the scheduler does not answer.
        """
        hold = self._holds.get(lease.workload_id, _Hold())
        if hold.lease_id is None:
            await self._verbs.cancel(lease.workload_id, tenant=SERVING_TENANT)
        else:
            outcome = Outcome.YIELDED if lease.is_yielding else Outcome.FINISHED
            try:
                await self._verbs.give_back(hold.lease_id, outcome)
            except Conflict as error:
                logger.info("%s: %s", error.code, error)
        self._drop(lease.workload_id)

    async def close(self) -> None:
        """Stop holding; who takes over in time finds everything as it is."""
        for workload_id in list(self._holds):
            self._drop(workload_id)

    def _lease(self, record: WorkloadRecord) -> ReplicaLease:
        hold = self._holds.setdefault(record.id, _Hold())
        if hold.task is None or hold.task.done():
            hold.lease_id = hold.node = None
            hold.is_yielding = False
            hold.task = asyncio.create_task(self._keep(record.id, hold))
        deployment, _, version = record.name.rpartition("-v")
        return ReplicaLease(
            workload_id=record.id,
            deployment=deployment,
            version=int(version),
            is_floor=not record.spec.get("preemptible", True),
            sequence=record.sequence,
            node=hold.node or _node_of(record),
            is_yielding=hold.is_yielding,
        )

    def _drop(self, workload_id: str) -> None:
        hold = self._holds.pop(workload_id, None)
        if hold is not None and hold.task is not None:
            hold.task.cancel()

    async def _keep(self, workload_id: str, hold: _Hold) -> None:
        """Wait for the machine, take it from its placement group, and hold it until the lease is over."""
        ticket = None
        number = 0
        while True:
            try:
                if ticket is None or ticket.lease_id is None or ticket.placement is None:
                    ticket = await self._verbs.attach(workload_id, tenant=SERVING_TENANT, holder=HOLDER)
                elif hold.node is None:
                    await self._verbs.hand_over(ticket.lease_id)
                    hold.lease_id, hold.node = ticket.lease_id, ticket.placement.workers[0][0]
                else:
                    signal = await self._verbs.watch(ticket.lease_id, after=number)
                    number = signal.number
                    hold.is_yielding = signal.signal is Signal.YIELD
                    if signal.signal is Signal.OVER:
                        return
            except (Conflict, NotFound):
                return
            except MlaasError as error:
                logger.warning("%s: cannot hold %s, trying again: %s", error.code, workload_id, error)
                await asyncio.sleep(RETRY_S)


def _node_of(record: WorkloadRecord) -> str | None:
    """Return the node of a replica that runs: whoever takes over knows it before it holds the lease itself."""
    is_placed = record.state in {State.RUNNING, State.YIELDING} and record.placement
    return record.placement[0][0] if is_placed and record.placement else None
