"""Writes what has changed, many changes in one transaction, and lets the cluster be changed only after that.

Whoever needs to know that something is stored awaits `commit`; all who do so at one time share one transaction.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlaas.errors import Conflict, PlatformError
from mlaas.scheduler.live.types import MOST_IN_A_ROW

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlaas.scheduler.live.entries import Batch, Order
    from mlaas.scheduler.live.roster import Roster
    from mlaas.store.workloads import WorkloadEvent, WorkloadRecord, WorkloadRepository

RETRY_AFTER_S = 2.0
"""After a failed write nobody tries again for so long; callers are told to come back then."""
NOTES_EVERY_S = 1.0
"""Reasons of what waits are stored along with other changes, and by themselves this often."""
SUPERSEDED = "scheduler_superseded"


@dataclass(slots=True, eq=False)
class _Submission:
    records: Sequence[WorkloadRecord]
    events: Sequence[WorkloadEvent]
    then: Callable[[Sequence[WorkloadRecord]], None]
    """Called in the same breath as the write is known to be done."""
    outcome: asyncio.Future[Sequence[WorkloadRecord]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Writer:
    """The one way into the store for a scheduler that leads."""

    def __init__(self, store: WorkloadRepository, roster: Roster, carry_out: Callable[[Sequence[Order]], None]) -> None:
        self._store = store
        self._roster = roster
        self._carry_out = carry_out
        self._lock = asyncio.Lock()
        self._submissions: list[_Submission] = []
        self._down_until_s = -math.inf
        self._noted_s = -math.inf
        self.epoch = 0
        self.superseded: Conflict | None = None
        self.has_gap = False
        """A write has failed, so it is not known whether the store has what it was given; `heal` looks."""

    @property
    def is_up(self) -> bool:
        """Whether the last write was done, or is long enough ago to try again."""
        return self.superseded is None and self._roster.clock.monotonic_s() >= self._down_until_s

    async def lead(self) -> None:
        """Become the only writer.

        Raises:
            PlatformError: the store does not answer.
        """
        self.epoch = await asyncio.to_thread(self._store.lead)

    async def insert(
        self,
        records: Sequence[WorkloadRecord],
        events: Sequence[WorkloadEvent],
        *,
        then: Callable[[Sequence[WorkloadRecord]], None],
    ) -> Sequence[WorkloadRecord]:
        """Store new workloads and return them with their sequence.

        Raises:
            Conflict: an id is taken, or another scheduler leads.
            PlatformError: the store does not answer; nothing is stored.
        """
        submission = _Submission(records, events, then)
        self._submissions.append(submission)
        await self.commit()
        return await submission.outcome

    async def commit(self, *, proves_leadership: bool = False) -> None:
        """Store all that has changed until now.

        Args:
            proves_leadership: Write even if nothing has changed: what follows must not be done by a scheduler that was
                superseded.

        Raises:
            Conflict: another scheduler leads.
            PlatformError: the store does not answer; the changes are kept, and written later.
        """
        # A caller that goes away must not take a half-known write with it.
        await asyncio.shield(asyncio.ensure_future(self._flush(proves_leadership=proves_leadership)))

    async def _flush(self, *, proves_leadership: bool) -> None:
        async with self._lock:
            submissions, self._submissions = self._submissions, []
            try:
                self._check()
                if submissions:
                    await self._insert(submissions)
                batch = self._roster.drain()
                if batch or proves_leadership or self._is_note_due(batch):
                    await self._update(batch)
                else:
                    self._roster.put_back(batch)
            except (Conflict, PlatformError) as error:
                self._note_failure(error)
                for submission in submissions:
                    if not submission.outcome.done():
                        submission.outcome.set_exception(error)
                        submission.outcome.exception()  # its caller gets the same error from `commit`
                raise

    def _is_note_due(self, batch: Batch) -> bool:
        return bool(batch.noted) and self._roster.clock.monotonic_s() >= self._noted_s + NOTES_EVERY_S

    def _check(self) -> None:
        if self.superseded is not None:
            raise self.superseded
        left_s = self._down_until_s - self._roster.clock.monotonic_s()
        if left_s > 0.0:
            message = "the store does not answer; running work goes on, and nothing new is accepted until it is back"
            raise PlatformError("store_unavailable", message, retry_after_s=left_s)

    def _note_failure(self, error: Conflict | PlatformError) -> None:
        if isinstance(error, Conflict) and error.code == SUPERSEDED:
            self.superseded = error
        elif isinstance(error, PlatformError):
            self.has_gap = True
            now_s = self._roster.clock.monotonic_s()
            if now_s >= self._down_until_s:
                self._down_until_s = now_s + RETRY_AFTER_S
            error.retry_after_s = error.retry_after_s or RETRY_AFTER_S

    async def _insert(self, submissions: Sequence[_Submission]) -> None:
        """Store submissions in one transaction; where an id of one is taken, each in its own."""
        try:
            await self._insert_all(submissions)
        except Conflict as error:
            if error.code == SUPERSEDED:
                raise
            if len(submissions) == 1:
                submissions[0].outcome.set_exception(error)
                return
            for submission in submissions:
                await self._insert([submission])

    async def _insert_all(self, submissions: Sequence[_Submission]) -> None:
        records = [record for submission in submissions for record in submission.records]
        events = [event for submission in submissions for event in submission.events]
        stored = await asyncio.to_thread(self._store.insert, records, events, epoch=self.epoch)
        first = 0
        for submission in submissions:
            mine = stored[first : first + len(submission.records)]
            first += len(submission.records)
            submission.then(mine)
            submission.outcome.set_result(mine)

    async def _update(self, batch: Batch) -> None:
        lives = list({**batch.noted, **batch.changed}.values())
        written = [live.record for live in lives]
        try:
            stored = await asyncio.to_thread(
                self._store.update, written, batch.events, epoch=self.epoch, usage=self._roster.usage()
            )
        except (Conflict, PlatformError) as error:
            self._roster.put_back(batch)
            if isinstance(error, Conflict) and error.code != SUPERSEDED:
                await self._reread(batch)
                raise PlatformError("store_behind", f"{error.message}; written again", retry_after_s=1.0) from error
            raise
        self._noted_s = self._roster.clock.monotonic_s()
        for number, (live, record) in enumerate(zip(lives, stored, strict=True), 1):
            self._roster.stored(live, record)
            if number % MOST_IN_A_ROW == 0:
                await asyncio.sleep(0.0)
        self._carry_out(batch.orders)

    async def _reread(self, batch: Batch) -> None:
        """Take over the versions of the store: a write whose answer was lost had been done."""
        for live in {**batch.noted, **batch.changed}.values():
            found = await asyncio.to_thread(self._store.get, live.id)
            self._roster.renumber(live, found.version)
