"""All workloads that have not ended, as the store, the ledger and the cluster have them.

Each change goes through `take`: the lifecycle says what an event leads to, and the ledger, the holdings, the timers
and whoever depends on the workload follow. What is to be stored, and what is to be done on the cluster afterwards,
gathers in a batch that the writer drains.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.decision.fairness import decayed, held_shares
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.live.entries import QUEUED, Batch, Lease, Live, Order, Plan, waiting_reason
from mlaas.scheduler.live.holdings import Holdings
from mlaas.scheduler.live.lifecycle import DependencyEnded, Effect, Moment, State, step
from mlaas.scheduler.live.types import lease_id_of
from mlaas.scheduler.requests.queues import QueuesDocument
from mlaas.scheduler.tables import Progress
from mlaas.store.workloads import QueueUsage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlaas.scheduler.live.clock import Clock
    from mlaas.scheduler.live.lifecycle import Event
    from mlaas.scheduler.types import Placement
    from mlaas.store.workloads import WorkloadRecord

MOST_ENDED = 20_000
"""Ends that are remembered for who is submitted meanwhile; older ones are looked up in the store."""


class Roster:
    """The workloads in memory. Not safe for threads; its owner is one event loop."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._wall_s, self._monotonic_s = clock.wall_s(), clock.monotonic_s()
        self.ledger = Ledger((), QueuesDocument().queues, now_s=self._wall_s)
        self.holdings = Holdings()
        self.lives: dict[str, Live] = {}
        self.arrays: dict[str, set[str]] = {}
        """Ids of each array's indexes that have not ended."""
        self.attached: dict[str, Live] = {}
        """Those without a command: a process asks and holds for itself."""
        self.leased: dict[str, Live] = {}
        """By lease id, those that hold something on the cluster."""
        self.released: OrderedDict[str, float] = OrderedDict()
        """When leases let go, on the monotonic clock; a look at the cluster from before may still show them."""
        self.planned: dict[str, Live] = {}
        self.timed: dict[str, Live] = {}
        self.ended: OrderedDict[str, State] = OrderedDict()
        self.has_changed = True
        """Whether the next decision may differ from the last one."""
        self._batch = Batch()
        self._dependents: dict[str, set[str]] = {}

    def advance(self) -> None:
        """Let the ledger's time pass: from the wall clock at the start on, by the clock that does not jump."""
        self.ledger.advance(self._wall_s + self.clock.monotonic_s() - self._monotonic_s)

    def usage(self) -> QueueUsage:
        """Return what queues have had until now."""
        self.advance()
        shares = zip(self.ledger.tree.row_of, self.ledger.average_share.tolist(), strict=True)
        return QueueUsage(average_share=dict(shares), at=self.clock.now())

    def recall(self, usage: QueueUsage) -> None:
        """Go on from what queues had had; what runs now has run since then, for a change would have been stored."""
        self.advance()
        ledger = self.ledger
        past = np.array([usage.average_share.get(queue.name, 0.0) for queue in ledger.queues])
        queue, share = ledger.running.ints_of("queue"), ledger.running.floats_of("share")
        since_s = max(0.0, self.clock.wall_s() - usage.at.timestamp())
        held = held_shares(queue, share, num_queues=len(past))
        ledger.average_share = decayed(past, held, elapsed_s=since_s)

    def adopt(self, live: Live) -> None:
        """Take in a workload that the store has."""
        self.lives[live.id] = live
        live.seen_s = self.clock.monotonic_s()
        if live.spec.command is None:
            self.attached[live.id] = live
        if live.record.parent_id is not None:
            self.arrays.setdefault(live.record.parent_id, set()).add(live.id)

    def submission(self, submission_id: str) -> list[WorkloadRecord]:
        """Return what was submitted under an id and has not ended: one workload, or indexes of an array."""
        ids = {submission_id, *self.arrays.get(submission_id, ())} & self.lives.keys()
        return [self.lives[workload_id].committed for workload_id in ids]

    def wait_for(self, live: Live, dependencies: Iterable[str]) -> None:
        """Hold a workload back until others have succeeded; queue it when there are none."""
        for dependency in dependencies:
            state = self.ended.get(dependency)
            if state is None:
                live.waits_for.add(dependency)
                self._dependents.setdefault(dependency, set()).add(live.id)
            elif state is not State.SUCCEEDED:
                self.take(live, DependencyEnded(f"{dependency}, which it depends on, has ended as {state.value}"))
                return
        if not live.waits_for:
            self.queue(live)

    def queue(self, live: Live, *, unrecorded_wait_s: float = 0.0) -> None:
        """Let a workload take part in decisions."""
        record = live.record
        progress = Progress(record.attained_s, record.waited_s + unrecorded_wait_s, record.restart_owed_s)
        self.ledger.submit(live.workload, progress=progress, sequence=record.sequence)
        self.wait_until(live, None)
        self.has_changed = True

    def take(self, live: Live, event: Event) -> bool:
        """Let an event happen to a workload, and to all that depend on it; False when it came too late."""
        self.advance()
        happened = False
        todo: list[tuple[Live, Event]] = [(live, event)]
        while todo:
            subject, now = todo.pop()
            before = subject.state
            if not self._step(subject, now):
                continue
            happened = True
            if subject.state is not before:
                self._follow(subject)
            if subject.state.is_final:
                todo += self._free_dependents(subject)
        return happened

    def note(self, live: Live, reason: str) -> None:
        """Say why a workload waits."""
        if live.record.reason != reason and live.state is State.PENDING:
            live.record = replace(live.record, reason=reason)
            self._batch.noted[live.id] = live

    def order(self, lease_id: str, effect: Effect, *, live: Live | None = None) -> None:
        """Do something on the cluster after the next write, which proves that this scheduler leads."""
        self._batch.orders.append(Order(live, lease_id, effect))

    def touch(self, live: Live, record: WorkloadRecord) -> None:
        """Store a record that has changed without an event."""
        live.record = record
        self._batch.changed[live.id] = live

    def release(self, live: Live) -> None:
        """Record that nothing of a lease is left on the cluster."""
        if live.lease is not None:
            self.holdings.give(live.lease.id)
            self.leased.pop(live.lease.id, None)
            self.released[live.lease.id] = self.clock.monotonic_s()
            live.lease = None
        self.forget(live)

    def forget(self, live: Live) -> None:
        """Drop a workload that has ended, is stored so, and holds nothing."""
        if State(live.committed.state).is_final and live.lease is None and live.id in self.lives:
            del self.lives[live.id]
            self.timed.pop(live.id, None)
            self.attached.pop(live.id, None)
            siblings = self.arrays.get(live.record.parent_id or "", set())
            siblings.discard(live.id)
            if not siblings:
                self.arrays.pop(live.record.parent_id or "", None)

    def unplan(self, live: Live) -> None:
        """Undo a booking that has not begun: the workload waits on, or does so once it has yielded."""
        if live.plan is not None:
            live.record = replace(live.record, waited_s=live.plan.waited_s)
        self._unplan(live)
        self.unbook(live)
        if live.state is State.PENDING:
            self.queue(live)

    def plan(self, live: Live, plan: Plan) -> None:
        """Book a placement, to be carried out once it fits beside what still yields."""
        live.plan = plan
        self.planned[live.id] = live

    def drain(self) -> Batch:
        """Return what is to be stored and done, and start a new batch."""
        batch, self._batch = self._batch, Batch()
        return batch

    def put_back(self, batch: Batch) -> None:
        """Take back a batch that could not be stored, before what has come since."""
        self._batch = batch.merge(self._batch)

    def stored(self, live: Live, record: WorkloadRecord) -> None:
        """Record that the store has a workload so."""
        live.committed = record
        self.renumber(live, record.version)
        for watcher in live.watchers:
            if not watcher.done():
                watcher.set_result(None)
        live.watchers.clear()
        self.forget(live)

    def renumber(self, live: Live, version: int) -> None:
        """Record the version that the store has of a workload."""
        live.record = replace(live.record, version=version)

    def gained_s(self, live: Live) -> float:
        """Return what the present attempt adds to the workload's time at full size."""
        lease = live.lease
        if lease is None or not lease.is_started:
            return 0.0
        ran_s = self.clock.monotonic_s() - lease.begun_s - live.record.restart_owed_s
        return max(0.0, ran_s) * lease.placement.num_workers / live.spec.gang.max_workers

    def _step(self, live: Live, event: Event) -> bool:
        moment = Moment(self.clock.now(), self.gained_s(live), is_booked=live.plan is not None)
        result = step(live.record, live.spec, event, moment)
        if result.record is live.record and not result.effects:
            return False
        live.record = result.record
        self._batch.changed[live.id] = live
        self._batch.events += result.events
        lease_id = lease_id_of(live.id, live.record.attempt)
        self._batch.orders += [Order(live, lease_id, effect) for effect in result.effects]
        return True

    def _follow(self, live: Live) -> None:
        """Bring ledger, holdings and timers in line with a workload's new state."""
        now_s = self.clock.monotonic_s()
        match live.state:
            case State.STARTING:
                self._hold(live)
            case State.RUNNING:
                self.begin(live, begun_s=now_s)
            case State.YIELDING:
                self.wait_until(live, now_s + live.spec.yield_grace_s)
            case State.PENDING:
                self._requeue(live)
            case _:
                self._end(live)

    def _hold(self, live: Live) -> None:
        assert live.plan is not None
        self.hold(live, live.plan.placement)
        self._unplan(live)

    def hold(self, live: Live, placement: Placement) -> None:
        """Record that a workload's present attempt holds a placement."""
        live.lease = Lease(lease_id_of(live.id, live.record.attempt), placement)
        self.leased[live.lease.id] = live
        self.holdings.take(live.lease.id, live.spec.gang, placement)
        live.seen_s = self.clock.monotonic_s()

    def begin(self, live: Live, *, begun_s: float) -> None:
        """Count a gang's time from now on."""
        assert live.lease is not None
        live.lease.is_started, live.lease.begun_s, live.refusals = True, begun_s, 0
        live.seen_s = self.clock.monotonic_s()
        if live.id in self.ledger.running.row_of:
            self.ledger.begin(live.id)

    def _requeue(self, live: Live) -> None:
        self.wait_until(live, None)
        until = live.record.not_before_at
        if live.plan is not None and until is None:
            return
        self._unplan(live)
        self.unbook(live)
        if until is None:
            self.queue(live)
        else:
            wait_s = max(0.0, until.timestamp() - self.clock.wall_s())
            self.wait_until(live, self.clock.monotonic_s() + wait_s)

    def _end(self, live: Live) -> None:
        self.wait_until(live, None)
        self.unbook(live)
        self._unplan(live)
        if live.state is State.SUCCEEDED:
            self.ledger.history.observe(
                tenant=live.record.tenant,
                name=live.record.name,
                estimate_s=live.spec.estimate_s,
                runtime_s=live.record.attained_s,
            )
        self.ended[live.id] = live.state
        if len(self.ended) > MOST_ENDED:
            self.ended.popitem(last=False)
        for dependency in live.waits_for:
            self._dependents.get(dependency, set()).discard(live.id)

    def _unplan(self, live: Live) -> None:
        live.plan = None
        self.planned.pop(live.id, None)

    def unbook(self, live: Live) -> None:
        """Take a workload out of decisions."""
        if live.id in self.ledger.running.row_of or live.id in self.ledger.pending.row_of:
            self.ledger.remove(live.id)
            self.has_changed = True

    def wait_until(self, live: Live, due_s: float | None) -> None:
        """Set when a workload has to have yielded, or may be queued again; None: no such time."""
        live.due_s = due_s
        if due_s is None:
            self.timed.pop(live.id, None)
        else:
            self.timed[live.id] = live

    def _free_dependents(self, live: Live) -> list[tuple[Live, Event]]:
        """Queue who waited for nothing else; return who will wait in vain."""
        in_vain: list[tuple[Live, Event]] = []
        for dependent_id in sorted(self._dependents.pop(live.id, ())):
            dependent = self.lives.get(dependent_id)
            if dependent is None or dependent.state is not State.PENDING:
                continue
            dependent.waits_for.discard(live.id)
            if live.state is not State.SUCCEEDED:
                reason = f"{live.id}, which it depends on, has ended as {live.state.value}: {live.record.reason}"
                in_vain.append((dependent, DependencyEnded(reason)))
            elif dependent.waits_for:
                self.note(dependent, waiting_reason(dependent.waits_for))
            else:
                self.queue(dependent)
                self.note(dependent, QUEUED)
        return in_vain
