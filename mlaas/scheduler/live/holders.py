"""What holders of gangs ask: their turn, what their lease wants of them, and to give it back.

They are told what the store knows. A lease that is over stays over: its id names one attempt, and what comes late
from an old attempt meets a lease that nobody holds.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from mlaas.errors import Conflict, NotFound
from mlaas.scheduler.live.lifecycle import GaveBack, HandedOver, State
from mlaas.scheduler.live.types import LeaseSignal, Outcome, Signal, Ticket, lease_id_of, workload_of
from mlaas.scheduler.types import Placement

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlaas.scheduler.live.entries import Live
    from mlaas.scheduler.live.roster import Roster
    from mlaas.scheduler.live.writer import Writer
    from mlaas.store.workloads import WorkloadRecord, WorkloadRepository

_ENDS = {
    Outcome.FINISHED: (State.SUCCEEDED,),
    Outcome.FAILED: (State.FAILED, State.PENDING),
    Outcome.YIELDED: (State.PENDING,),
}
"""Where a workload stands after an outcome; giving back twice finds it there."""


class Holders:
    """The verbs of whoever holds a gang, or waits for one."""

    def __init__(
        self, roster: Roster, writer: Writer, store: WorkloadRepository, wake: Callable[[], None], *, poll_s: float
    ) -> None:
        self._roster = roster
        self._writer = writer
        self._store = store
        self._wake = wake
        self._poll_s = poll_s

    async def ticket(self, request: str, *, tenant: str, holder: str) -> Ticket:
        """Return where a workload stands once it is placed, or after `POLL_S`.

        A lease id comes from the command that holds it, which need not know its tenant; a workload id may come from
        anybody.

        Raises:
            Conflict: `lease_over`.
            NotFound: there is no such workload, or it is another tenant's.
        """
        workload_id, attempt = workload_of(request)
        live = self._roster.lives.get(workload_id)
        if live is None or (not attempt and live.record.tenant != tenant):
            raise await self._gone(workload_id, tenant)
        if attempt and live.record.attempt != attempt:
            raise _over(request, live.committed)
        await self._until(live, lambda: _is_placed(live.committed) or State(live.committed.state).is_final)
        if State(live.committed.state).is_final or (attempt and not State(live.committed.state).holds_gang):
            raise _over(request, live.committed)
        ticket = _ticket(live)
        if ticket.lease_id is not None and live.record.holder != holder and live.state.holds_gang:
            self._roster.touch(live, replace(live.record, holder=holder, holder_seen_at=self._roster.clock.now()))
            await self._writer.commit()
        return ticket

    async def watch(self, lease_id: str, *, after: int) -> LeaseSignal:
        """Return the signal of a lease once its number is above `after`, or after `POLL_S`.

        Raises:
            NotFound: there never was such a lease.
        """
        live = self._roster.lives.get(workload_of(lease_id)[0])
        if live is not None:
            await self._until(live, lambda: _signal(live, lease_id, self._left_s(live)).number > after)
        return await self.signal(lease_id)

    async def signal(self, lease_id: str) -> LeaseSignal:
        """Return what a lease wants now. Its holder lives.

        Raises:
            NotFound: there never was such a lease.
        """
        workload_id, attempt = workload_of(lease_id)
        live = self._roster.lives.get(workload_id)
        if live is not None and 0 < attempt <= live.record.attempt:
            if _holds(live, lease_id):
                live.seen_s = self._roster.clock.monotonic_s()
            return _signal(live, lease_id, self._left_s(live))
        record = await asyncio.to_thread(self._store.get, workload_id)
        if not 0 < attempt <= record.attempt:
            raise NotFound("lease_not_found", f"there never was a lease {lease_id}")
        return LeaseSignal(lease_id=lease_id, number=2, signal=Signal.OVER, reason=record.reason)

    def report(self, lease_id: str, *, done: float | None, left_s: float | None) -> None:
        """Correct what is believed of a run by what it says itself.

        Raises:
            Conflict: `lease_over`.
            InvalidRequest: neither or no such number is given.
        """
        live = self._held(lease_id)
        live.seen_s = self._roster.clock.monotonic_s()
        if live.id in self._roster.ledger.running.row_of:
            self._roster.advance()
            self._roster.ledger.report(live.id, left_s=left_s, done=done)
            self._roster.has_changed = True

    async def hand_over(self, lease_id: str, *, job: str | None) -> None:
        """Leave the placement groups of a lease to its holder, who makes them in a Ray job.

        Raises:
            Conflict: `lease_over`.
            PlatformError: the store does not answer; call again.
        """
        self._roster.take(self._held(lease_id), HandedOver(job))
        await self._writer.commit()
        self._wake()

    async def give_back(self, lease_id: str, outcome: Outcome, *, message: str) -> WorkloadRecord:
        """End a lease, durably.

        Raises:
            Conflict: `lease_over`, it ended otherwise before.
            PlatformError: the store does not answer; call again.
        """
        workload_id, attempt = workload_of(lease_id)
        live = self._roster.lives.get(workload_id)
        if live is not None and _holds(live, lease_id):
            self._roster.take(live, GaveBack(outcome, message))
        await self._writer.commit()
        self._wake()
        record = live.committed if live is not None else await asyncio.to_thread(self._store.get, workload_id)
        if not _agrees(record, attempt, outcome):
            raise _over(lease_id, record)
        return record

    def _held(self, lease_id: str) -> Live:
        live = self._roster.lives.get(workload_of(lease_id)[0])
        if live is None or not _holds(live, lease_id):
            raise Conflict("lease_over", f"lease {lease_id} is over; what it held is not its holder's any more")
        return live

    async def _until(self, live: Live, is_so: Callable[[], bool]) -> None:
        """Wait until the store knows something of a workload, for `POLL_S` at most. Who waits lives."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + self._poll_s
        live.seen_s = self._roster.clock.monotonic_s()
        while not is_so() and (left_s := ends_s - loop.time()) > 0.0:
            changed: asyncio.Future[None] = loop.create_future()
            live.watchers.add(changed)
            try:
                await asyncio.wait_for(changed, left_s)
            except TimeoutError:
                pass
            finally:
                live.watchers.discard(changed)
        live.seen_s = self._roster.clock.monotonic_s()

    async def _gone(self, workload_id: str, tenant: str) -> Conflict | NotFound:
        record = await asyncio.to_thread(self._store.get, workload_id)
        if record.tenant != tenant:
            return NotFound("workload_not_found", f"no workload has the id {workload_id}; `mlaas queue` lists them")
        return _over(workload_id, record)

    def _left_s(self, live: Live) -> float | None:
        return None if live.due_s is None else max(0.0, live.due_s - self._roster.clock.monotonic_s())


def _holds(live: Live, lease_id: str) -> bool:
    return live.state.holds_gang and lease_id_of(live.id, live.record.attempt) == lease_id


def _is_placed(record: WorkloadRecord) -> bool:
    """Whether its gang is there. A command's holder may ask before its start has been noted."""
    return record.state in (State.RUNNING, State.YIELDING)


def _ticket(live: Live) -> Ticket:
    record = live.committed
    is_placed = _is_placed(record)
    workers = tuple((str(node), int(count)) for node, count in record.placement or ())
    return Ticket(
        workload_id=record.id,
        gang=live.spec.gang,
        lease_id=lease_id_of(record.id, record.attempt) if is_placed else None,
        placement=Placement(workers) if is_placed else None,
        reason=record.reason,
        yield_grace_s=live.spec.yield_grace_s,
        attempt=record.attempt,
    )


def _signal(live: Live, lease_id: str, left_s: float | None) -> LeaseSignal:
    record = live.committed
    if lease_id_of(record.id, record.attempt) != lease_id or not State(record.state).holds_gang:
        return LeaseSignal(lease_id=lease_id, number=2, signal=Signal.OVER, reason=record.reason)
    if record.state != State.YIELDING:
        return LeaseSignal(lease_id=lease_id, number=0, signal=Signal.GO_ON)
    return LeaseSignal(
        lease_id=lease_id,
        number=1,
        signal=Signal.YIELD,
        reason=record.reason,
        within_s=left_s,
        num_workers=None if live.plan is None else live.plan.placement.num_workers,
    )


def _agrees(record: WorkloadRecord, attempt: int, outcome: Outcome) -> bool:
    """Whether a workload stands as it does after this outcome of this attempt."""
    if record.attempt != attempt:
        return record.attempt > attempt and outcome is not Outcome.FINISHED
    return record.state in _ENDS[outcome] or (record.handed_over and outcome is not Outcome.YIELDED)


def _over(lease_id: str, record: WorkloadRecord) -> Conflict:
    return Conflict("lease_over", f"{lease_id} is over; its workload is {record.state}: {record.reason}")
