"""The queues in force: loaded at the start, replaced while everything runs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from mlaas.errors import Conflict, PlatformError
from mlaas.scheduler.explanations.remedies import Choices
from mlaas.scheduler.requests.queue_changes import AppliedQueues, diff
from mlaas.scheduler.requests.queues_file import encode_queues, parse_queues
from mlaas.scheduler.validation import check_queues, guarantees_beyond
from mlaas.scheduler.wording import listed

if TYPE_CHECKING:
    from collections.abc import Collection

    from mlaas.scheduler.live.roster import Roster
    from mlaas.scheduler.live.submission import Submissions
    from mlaas.scheduler.live.writer import Writer
    from mlaas.scheduler.requests.queues import QueuesDocument
    from mlaas.store.workloads import WorkloadRepository


class QueueRules:
    """Puts queues in force for submissions and decisions together."""

    def __init__(self, roster: Roster, submissions: Submissions, writer: Writer, store: WorkloadRepository) -> None:
        self._roster = roster
        self._submissions = submissions
        self._writer = writer
        self._store = store

    async def load(self) -> None:
        """Put in force what was applied last.

        Raises:
            PlatformError: the store does not answer.
        """
        record = await asyncio.to_thread(self._store.latest_queues)
        if record is not None:
            self._use(parse_queues(record.document, origin="the queues that were applied last"))

    async def apply(self, document: QueuesDocument, *, is_dry_run: bool, by: str) -> AppliedQueues:
        """Put queues in force, or only return what would change.

        Guarantees beyond what the cluster has are a warning: nodes come and go.

        Raises:
            ConfigError: they contradict each other.
            Conflict: a queue that is gone, or takes no workloads any more, still has some.
            PlatformError: the store does not answer; nothing is changed.
        """
        before = self._submissions.queues
        check_queues(document.queues)
        leaves = set(document.leaves())
        used = {live.record.queue for live in self._roster.lives.values() if not live.state.is_final} - leaves
        if used:
            raise Conflict("queue_in_use", _in_use(used))
        beyond = guarantees_beyond(document.queues, self._roster.ledger.cluster.nodes)
        warnings = tuple(f"{fault.text} now; until more nodes come, not all of it can be given" for fault in beyond)
        applied = AppliedQueues(changes=diff(before, document), warnings=warnings)
        if is_dry_run or not applied.changes:
            return applied
        self._use(document)
        try:
            now = self._roster.clock.now()
            await asyncio.to_thread(
                self._store.put_queues, encode_queues(document), at=now, by=by, epoch=self._writer.epoch
            )
        except (Conflict, PlatformError):
            # Of what was accepted meanwhile nothing is stored either, unless the store is back by now.
            with suppress(Conflict):
                self._use(before)
            raise
        return applied

    def choices(self, tenant: str) -> Choices:
        """Return what a tenant may ask for."""
        document = self._submissions.queues
        return Choices(queues=document.queues_for(tenant), classes=document.classes_for(tenant))

    def _use(self, document: QueuesDocument) -> None:
        self._roster.ledger.set_queues(document.queues)
        self._submissions.queues = document
        self._roster.has_changed = True


def _in_use(queues: Collection[str]) -> str:
    return f"workloads wait or run in {listed(sorted(queues))}; keep that in the file until they have ended"
