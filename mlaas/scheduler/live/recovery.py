"""Takes up what the store says and the cluster shows: after a start, and after a store that was away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mlaas.errors import PlacementError
from mlaas.scheduler.live.entries import Live, waiting_reason
from mlaas.scheduler.live.executor import MOST_REFUSAL_S
from mlaas.scheduler.live.lifecycle import DependencyEnded, Effect, Lost, State
from mlaas.scheduler.live.submission import workload_of
from mlaas.scheduler.live.types import lease_id_of
from mlaas.scheduler.requests.document import decode_spec
from mlaas.scheduler.tables import Progress
from mlaas.scheduler.types import Placement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlaas.scheduler.live.roster import Roster
    from mlaas.scheduler.live.sightings import Sighting
    from mlaas.scheduler.live.submission import Submissions
    from mlaas.store.workloads import WorkloadRecord, WorkloadRepository

MOST_HISTORY = 5_000
"""Finished runs that estimates are learned from at a start."""


class Recovery:
    """Rebuilds the roster: adopts what runs, starts again what was being started, queues what is gone."""

    def __init__(self, roster: Roster, submissions: Submissions, store: WorkloadRepository) -> None:
        self._roster = roster
        self._submissions = submissions
        self._store = store

    async def learn(self) -> None:
        """Learn from the runs that have succeeded how long runs take.

        Raises:
            PlatformError: the store does not answer.
        """
        finished = await asyncio.to_thread(self._store.finished, limit=MOST_HISTORY)
        for record in reversed(finished):
            if record.state == State.SUCCEEDED:
                self._roster.ledger.history.observe(
                    tenant=record.tenant,
                    name=record.name,
                    estimate_s=decode_spec(record.spec).estimate_s,
                    runtime_s=record.attained_s,
                )

    async def take_up(self, sighting: Sighting) -> None:
        """Take in every workload that has not ended. The roster has seen this look at the cluster already.

        Raises:
            PlatformError: the store does not answer.
        """
        self._roster.advance()
        usage = await asyncio.to_thread(self._store.queue_usage)
        active = await asyncio.to_thread(self._store.active)
        for record in active:
            spec = decode_spec(record.spec)
            live = Live(record=record, committed=record, spec=spec, workload=workload_of(record, spec))
            self._roster.adopt(live)
            if live.state.holds_gang:
                self._hold(live, sighting)
        if usage is not None:
            self._roster.recall(usage)
        shown = {it.lease_id for it in sighting.observation.groups}
        shown |= {it.lease_id for it in sighting.observation.commands}
        for record in active:
            live = self._roster.lives[record.id]
            if live.state is State.PENDING and live.lease is None:
                self._end_last(live, shown)
                await self._wait(live)

    async def heal(self) -> None:
        """Take up submissions whose write was done and whose answer was lost.

        Raises:
            PlatformError: the store does not answer.
        """
        active: Sequence[WorkloadRecord] = await asyncio.to_thread(self._store.active)
        await self._submissions.adopt_strays(active)

    def _hold(self, live: Live, sighting: Sighting) -> None:
        """Take up a gang as it was recorded. What became of it since, the look at the cluster says."""
        roster, record = self._roster, live.record
        placement = _placement(record)
        roster.hold(live, placement)
        assert live.lease is not None
        ran_s = 0.0
        if live.state is not State.STARTING:
            begun_at = record.started_at or record.submitted_at
            ran_s = max(0.0, roster.clock.wall_s() - begun_at.timestamp())
            live.lease.is_started = True
            live.lease.begun_s = min(roster.clock.monotonic_s() - ran_s, sighting.begun_s - 1e-6)
        if live.state is State.YIELDING:
            left_s = live.spec.yield_grace_s
            if record.yield_by_at is not None:
                left_s = min(max(0.0, record.yield_by_at.timestamp() - roster.clock.wall_s()), left_s)
            roster.wait_until(live, roster.clock.monotonic_s() + left_s)
            roster.order(live.lease.id, Effect.ASK_TO_YIELD, live=live)
            return
        try:
            roster.ledger.restore(
                live.workload,
                placement,
                progress=Progress(record.attained_s, record.waited_s, record.restart_owed_s),
                started_s=roster.ledger.now_s - ran_s,
                sequence=record.sequence,
            )
        except PlacementError as error:
            roster.take(live, Lost(error.message))
            return
        if live.state is State.STARTING:
            roster.order(live.lease.id, Effect.START, live=live)

    def _end_last(self, live: Live, shown: set[str]) -> None:
        """End what is left of the last attempt before there is another one."""
        record = live.record
        if record.attempt and (lease_id_of(record.id, record.attempt) in shown or record.handed_over_job):
            self._roster.hold(live, _placement(record))
            self._roster.order(lease_id_of(record.id, record.attempt), Effect.END, live=live)

    async def _wait(self, live: Live) -> None:
        roster, record = self._roster, live.record
        if not record.attempt and live.spec.depends_on:
            dependencies = await self._submissions.resolve(live.spec.depends_on, tenant=record.tenant)
            if dependencies.failed:
                roster.take(live, DependencyEnded(f"it depends on {dependencies.failed}"))
                return
            if dependencies.open_ids:
                roster.wait_for(live, dependencies.open_ids)
                roster.note(live, waiting_reason(dependencies.open_ids))
                return
        if record.not_before_at is not None:
            most_s = max(live.spec.retries.max_backoff_s, MOST_REFUSAL_S)
            wait_s = min(max(0.0, record.not_before_at.timestamp() - roster.clock.wall_s()), most_s)
            roster.wait_until(live, roster.clock.monotonic_s() + wait_s)
            return
        since = record.ended_at or record.submitted_at
        waited_s = max(0.0, roster.clock.wall_s() - since.timestamp())
        roster.queue(live, unrecorded_wait_s=waited_s)


def _placement(record: WorkloadRecord) -> Placement:
    return Placement(tuple((str(node), int(workers)) for node, workers in record.placement or ()))
