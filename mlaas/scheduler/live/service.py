"""The scheduler as a service: what users and holders of gangs may ask of it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from mlaas.errors import NotFound, PlatformError
from mlaas.scheduler.autoscaling.service import Autoscaler
from mlaas.scheduler.explanations.explain import Explanation, Standing, explain
from mlaas.scheduler.explanations.plan import Plan, plan
from mlaas.scheduler.explanations.turn import ids_in_turn
from mlaas.scheduler.explanations.view import ClusterView, view
from mlaas.scheduler.live.arrays import array_record, first_to_explain
from mlaas.scheduler.live.clock import Clock
from mlaas.scheduler.live.holders import Holders
from mlaas.scheduler.live.lifecycle import Cancelled, CommandEnded, State
from mlaas.scheduler.live.loop import Loop
from mlaas.scheduler.live.queue_rules import QueueRules
from mlaas.scheduler.live.recovery import Recovery
from mlaas.scheduler.live.roster import Roster
from mlaas.scheduler.live.submission import Submissions, workload_of
from mlaas.scheduler.live.types import MOST_IN_A_ROW, POLL_S
from mlaas.scheduler.live.types import workload_of as lease_owner
from mlaas.scheduler.requests.document import decode_spec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from mlaas.scheduler.decision.ordering import SchedulingPolicy
    from mlaas.scheduler.estimates import Belief
    from mlaas.scheduler.live.entries import Live
    from mlaas.scheduler.live.ports import ClusterPort, CommandState
    from mlaas.scheduler.live.types import LeaseSignal, Outcome, Ticket
    from mlaas.scheduler.requests.queue_changes import AppliedQueues
    from mlaas.scheduler.requests.queues import QueuesDocument
    from mlaas.scheduler.requests.spec import WorkloadSpec
    from mlaas.scheduler.snapshot import Snapshot
    from mlaas.store.workloads import WorkloadEvent, WorkloadRecord, WorkloadRepository


MOST_ASKING = 16
"""Callers that may wait for an explanation or a plan: on a full cluster one takes seconds, and callers give up."""
BUSY_S = 5.0
"""What those beyond are told to wait."""
MOST_EVENTS = 1_000
"""Events of one answer; the next begin after the last of them."""


class SchedulerService:
    """One scheduler. `start`, then `run` until it returns; all verbs may be called meanwhile, on the same event loop.

    Every verb raises `PlatformError` with `retry_after_s` while the store does not answer or the service is not up,
    and `Conflict` (`scheduler_superseded`) once another scheduler leads.
    """

    def __init__(
        self,
        cluster: ClusterPort,
        store: WorkloadRepository,
        *,
        policy: SchedulingPolicy,
        clock: Clock | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        self._store = store
        self._policy = policy
        self.roster = Roster(clock or Clock())
        self.loop = Loop(cluster, store, self.roster, policy)
        self._submissions = Submissions(self.roster, self.loop.writer, store)
        self._holders = Holders(self.roster, self.loop.writer, store, self.loop.wake, poll_s=poll_s)
        self._recovery = Recovery(self.roster, self._submissions, store)
        self._queues = QueueRules(self.roster, self._submissions, self.loop.writer, store)
        self._autoscaler = Autoscaler(
            cluster,
            policy,
            load_snapshot=self._snapshot,
            load_growth=lambda: self._submissions.queues.growth,
            book=self.loop.book,
        )
        self._is_up = False
        self._thinking = asyncio.Lock()
        """Held while a thread explains or plans, for seconds on a full cluster: one at a time, for threads share one
        interpreter with the loop, and each takes as much of it as the loop gets."""
        self._num_asking = 0

    async def start(self) -> None:
        """Become the leader, and take up what the store and the cluster say.

        Raises:
            PlatformError: store or cluster do not answer; make another service and start that.
        """
        await self.loop.writer.lead()
        await self._queues.load()
        await self._recovery.learn()
        sighting = await self.loop.look_first()
        await self._recovery.take_up(sighting)
        await self.loop.writer.commit(proves_leadership=True)
        self._is_up = True

    async def run(self) -> None:
        """Observe, decide and apply until `stop`.

        Raises:
            Conflict: another scheduler leads; this one has ended and has changed nothing since.
        """
        autoscaling = asyncio.ensure_future(self._autoscaler.run())
        try:
            await self.loop.run(heal=self._recovery.heal)
        finally:
            self._is_up = False
            autoscaling.cancel()
            await asyncio.gather(autoscaling, return_exceptions=True)

    async def stop(self) -> None:
        """End `run` after its present turn. What runs on the cluster goes on."""
        self.loop.stop()

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
        self._check_up()
        records = await self._submissions.submit(spec, tenant=tenant, submission_id=submission_id)
        self.loop.wake()
        return tuple(records)

    async def cancel(self, workload_id: str, *, tenant: str | None) -> WorkloadRecord:
        """End a workload in whatever state it is; one that has ended is returned as it is. An array's id: all of it.

        Raises:
            NotFound: there is none, or it is another tenant's. `tenant=None` may do all.
            PlatformError: the store does not answer; the workload ends nevertheless.
        """
        self._check_up()
        lives = [self.roster.lives[record.id] for record in self.roster.submission(workload_id)]
        for live in lives:
            _check_tenant(live.record, tenant, asked_for=workload_id)
        for number, live in enumerate(lives, 1):
            self.roster.take(live, Cancelled(tenant or "an operator"))
            if number % MOST_IN_A_ROW == 0:
                await asyncio.sleep(0.0)
        await self.loop.writer.commit()
        self.loop.wake()
        is_array = not lives or lives[0].id != workload_id
        return await self._read(workload_id, tenant) if is_array else lives[0].committed

    async def get(self, workload_id: str, *, tenant: str | None = None) -> WorkloadRecord:
        """Return a workload as the store has it; of an array's id, how its indexes stand together.

        Raises:
            NotFound: there is none, or it is another tenant's.
            PlatformError: it has ended, and the store does not answer.
        """
        live = self.roster.lives.get(workload_id)
        if live is None:
            return await self._read(workload_id, tenant)
        _check_tenant(live.committed, tenant, asked_for=workload_id)
        return live.committed

    async def list(
        self, *, tenant: str | None = None, states: Collection[str] = (), limit: int = 100, in_turn: bool = False
    ) -> Sequence[WorkloadRecord]:
        """Return workloads, the newest first.

        Args:
            tenant: Whose; None: everybody's.
            states: Only these; none given: all.
            limit: At most so many.
            in_turn: Only those that have not ended, as the scheduler looks at them: what holds nodes, then what waits
                in its turn, then what is held back.

        Raises:
            PlatformError: the store does not answer; or, in its turn, the service is not up.
        """
        if in_turn:
            self._check_up()
            ids = await asyncio.to_thread(ids_in_turn, self._copy(), self._policy)
            turn = {each: number for number, each in enumerate(ids)}
            unfinished = (live.committed for live in self.roster.lives.values())
            mine = (record for record in unfinished if tenant in (None, record.tenant))
            found = [record for record in mine if not states or record.state in states]
            return sorted(found, key=lambda record: (turn.get(record.id, len(turn)), record.sequence))[:limit]
        return await asyncio.to_thread(self._store.list, tenant=tenant, states=tuple(states), limit=limit)

    async def events(self, workload_id: str, *, tenant: str | None = None, after: int = 0) -> Sequence[WorkloadEvent]:
        """Return what happened to a workload, or to the indexes of an array: the first `MOST_EVENTS` after a number.

        Raises:
            NotFound: there is none, or it is another tenant's.
            PlatformError: the store does not answer.
        """
        await self.get(workload_id, tenant=tenant)
        return await asyncio.to_thread(self._store.events, workload_id, after=after, limit=MOST_EVENTS)

    async def explain(self, workload_id: str, *, tenant: str | None = None) -> Explanation:
        """Return why a workload is where it is, and what would start it; of an array, for the index that says most.

        Raises:
            NotFound: there is none, or it is another tenant's.
            PlatformError: it has ended and the store does not answer, or too many ask (`scheduler_busy`).
        """
        async with self._turn_to_think():
            records = await self._submission(workload_id, tenant)
            record = first_to_explain(records)
            live = self.roster.lives.get(record.id)
            spec = decode_spec(record.spec) if live is None else live.spec
            told = await asyncio.to_thread(
                explain,
                self._copy(),
                self._policy,
                workload_of(record, spec),
                standing=self._standing(record, live),
                belief=self._belief(record.tenant, spec),
                choices=self._queues.choices(record.tenant),
            )
        return told if record.id == workload_id else replace(told, array=array_record(records).reason)

    async def plan(self, spec: WorkloadSpec, *, tenant: str) -> Plan:
        """Return what would become of a workload if it were submitted now. Nothing changes.

        Raises:
            AdmissionError: it could never run, or is not allowed.
        """
        self._check_up()
        workloads = self._submissions.preview(spec, tenant=tenant)
        async with self._turn_to_think():
            return await asyncio.to_thread(
                plan,
                self._copy(),
                self._policy,
                workloads,
                belief=self._belief(tenant, spec),
                choices=self._queues.choices(tenant),
                may_grow=bool(self._submissions.queues.growth.node_types),
            )

    @asynccontextmanager
    async def _turn_to_think(self) -> AsyncIterator[None]:
        """Wait for the thread that explains and plans.

        Raises:
            PlatformError: so many wait for it that none of them would be answered in time.
        """
        if self._num_asking >= MOST_ASKING:
            message = f"{MOST_ASKING} others wait for an explanation or a plan; come back in a moment"
            raise PlatformError("scheduler_busy", message, retry_after_s=BUSY_S)
        self._num_asking += 1
        try:
            async with self._thinking:
                yield
        finally:
            self._num_asking -= 1

    async def top(self) -> ClusterView:
        """Return the cluster as it is used now."""
        self._check_up()
        due = ((live, self._on_ledger(live)) for live in self.roster.timed.values() if live.state is State.YIELDING)
        yield_by_s = {live.id: due_s for live, due_s in due if due_s is not None}
        return await asyncio.to_thread(view, self._copy(), self._policy, yield_by_s=yield_by_s)

    async def apply_queues(
        self, document: QueuesDocument, *, is_dry_run: bool, by: str = "an operator"
    ) -> AppliedQueues:
        """Put queues in force, or only return what would change; `by` is who asks, for the record.

        Raises:
            ConfigError: they contradict each other.
            Conflict: a queue that is gone still has workloads.
            PlatformError: the store does not answer; nothing is changed.
        """
        self._check_up()
        applied = await self._queues.apply(document, is_dry_run=is_dry_run, by=by)
        self.loop.wake()
        return applied

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
        self._check_up()
        if not isinstance(request, str):
            records = await self.submit(request, tenant=tenant, submission_id=submission_id)
            request = records[0].id
        return await self._holders.ticket(request, tenant=tenant, holder=holder)

    async def watch(self, lease_id: str, *, after: int = 0) -> LeaseSignal:
        """Return the signal of a lease once its number is above `after`, at the latest after `POLL_S`. A heartbeat.

        Raises:
            NotFound: there never was such a lease.
        """
        self._check_up()
        return await self._holders.watch(lease_id, after=after)

    async def heartbeat(self, lease_id: str) -> LeaseSignal:
        """Say that the holder lives; return the present signal.

        Raises:
            NotFound: there never was such a lease.
        """
        self._check_up()
        return await self._holders.signal(lease_id)

    async def report(self, lease_id: str, *, done: float | None = None, left_s: float | None = None) -> None:
        """Say how far a run is: the part that is done, above 0 up to 1, or the seconds left at the present size.

        Raises:
            Conflict: `lease_over`.
            InvalidRequest: neither is given, or it is no such number.
        """
        self._check_up()
        self._holders.report(lease_id, done=done, left_s=left_s)

    async def hand_over(self, lease_id: str, *, job: str | None = None) -> None:
        """Remove the placement group and keep the booking: the holder makes its own groups on the same nodes.

        Args:
            lease_id: The lease.
            job: The Ray job in which it makes them. What that has made on these nodes is removed when the lease is
                taken, unless another gang of the same job is there. None: nothing is removed.

        Raises:
            Conflict: `lease_over`.
            PlatformError: the store does not answer; call again.
        """
        self._check_up()
        await self._holders.hand_over(lease_id, job=job)

    async def give_back(self, lease_id: str, outcome: Outcome, *, message: str = "") -> WorkloadRecord:
        """End a lease; return the workload as it stands then. Safe to repeat.

        A command's driver that has finished or failed gives back its gang alone: its exit code says how it ended.

        Raises:
            Conflict: `lease_over`, it was taken back before, so this outcome does not count.
            PlatformError: the store does not answer; call again.
        """
        self._check_up()
        return await self._holders.give_back(lease_id, outcome, message=message)

    async def command_ended(self, command: CommandState) -> None:
        """Take in the end of a command at once; a look at the cluster would find it a moment later."""
        live = self.roster.lives.get(lease_owner(command.lease_id)[0])
        is_present = live is not None and live.lease is not None and live.lease.id == command.lease_id
        if live is not None and is_present and command.exit_code is not None:
            self.roster.take(live, CommandEnded(command.exit_code, command.last_line))
            self.loop.wake()

    def _check_up(self) -> None:
        if not self._is_up:
            message = "the scheduler is starting, or another one has taken over; come back in a moment"
            raise PlatformError("scheduler_not_up", message, retry_after_s=1.0)

    async def _read(self, workload_id: str, tenant: str | None) -> WorkloadRecord:
        records = await self._submission(workload_id, tenant)
        return records[0] if records[0].id == workload_id else array_record(records)

    async def _submission(self, workload_id: str, tenant: str | None) -> Sequence[WorkloadRecord]:
        """Return a workload, or the indexes of an array."""
        live = self.roster.lives.get(workload_id)
        found: Sequence[WorkloadRecord] = [live.committed] if live is not None else []
        found = found or await asyncio.to_thread(self._store.list_submission, workload_id)
        if not found:
            raise _not_found(workload_id)
        _check_tenant(found[0], tenant, asked_for=workload_id)
        return found

    def _standing(self, record: WorkloadRecord, live: Live | None) -> Standing:
        due_s = None if live is None else self._on_ledger(live)
        state = State(record.state)
        return Standing(
            state=state,
            reason=record.reason,
            waits_for=tuple(sorted(live.waits_for)) if live is not None else (),
            not_before_s=due_s if state is State.PENDING else None,
            yield_by_s=due_s if state is State.YIELDING else None,
        )

    def _snapshot(self) -> Snapshot | None:
        return self._copy() if self._is_up else None

    def _copy(self) -> Snapshot:
        """Return the world as a value of its own, for a thread beside the loop."""
        self.roster.advance()
        return self.roster.ledger.snapshot().copy()

    def _belief(self, tenant: str, spec: WorkloadSpec) -> Belief:
        return self.roster.ledger.history.believe(tenant=tenant, name=spec.name, estimate_s=spec.estimate_s)

    def _on_ledger(self, live: Live) -> float | None:
        """Return when a workload is due, on the clock of snapshots."""
        if live.due_s is None:
            return None
        return self.roster.ledger.now_s + live.due_s - self.roster.clock.monotonic_s()


def _check_tenant(record: WorkloadRecord, tenant: str | None, *, asked_for: str) -> None:
    """Refuse another tenant's workload as if there were none."""
    if tenant not in (None, record.tenant):
        raise _not_found(asked_for)


def _not_found(workload_id: str) -> NotFound:
    return NotFound("workload_not_found", f"no workload has the id {workload_id[:100]!r}; `mlaas queue` lists them")
