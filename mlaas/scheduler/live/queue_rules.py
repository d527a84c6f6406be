"""The queues in force: loaded at the start, replaced while everything runs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from mlaas.errors import Conflict, PlatformError
from mlaas.scheduler.remedies import Choices
from mlaas.scheduler.requests.queue_changes import diff
from mlaas.scheduler.requests.queues_file import encode_queues, parse_queues
from mlaas.scheduler.validation import check_queues

if TYPE_CHECKING:
    from mlaas.scheduler.live.roster import Roster
    from mlaas.scheduler.live.submission import Submissions
    from mlaas.scheduler.live.writer import Writer
    from mlaas.scheduler.requests.queue_changes import QueueChange
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

    async def apply(self, document: QueuesDocument, *, is_dry_run: bool) -> tuple[QueueChange, ...]:
        """Put queues in force, or only return what would change.

        Raises:
            ConfigError: they contradict each other, or promise more than the cluster has.
            Conflict: a queue that is gone, or takes no workloads any more, still has some.
            PlatformError: the store does not answer; nothing is changed.
        """
        before = self._submissions.queues
        nodes = self._roster.ledger.cluster.nodes
        check_queues(document.queues, None if document.growth.node_types or not nodes else nodes)
        leaves = set(document.leaves())
        used = {live.record.queue for live in self._roster.lives.values() if not live.state.is_final} - leaves
        if used:
            raise Conflict("queue_in_use", f"workloads wait or run in {', '.join(sorted(used))}; drain them first")
        changes = diff(before, document)
        if is_dry_run or not changes:
            return changes
        self._use(document)
        try:
            now = self._roster.clock.now()
            await asyncio.to_thread(
                self._store.put_queues, encode_queues(document), at=now, by="mlaas apply", epoch=self._writer.epoch
            )
        except (Conflict, PlatformError):
            # Of what was accepted meanwhile nothing is stored either, unless the store is back by now.
            with suppress(Conflict):
                self._use(before)
            raise
        return changes

    def choices(self, tenant: str) -> Choices:
        """Return what a tenant may ask for."""
        document = self._submissions.queues
        access = dict(document.tenants)
        return Choices(
            queues=tuple(name for name in document.leaves() if tenant in access.get(name, (tenant,))),
            priorities=tuple((each.name, each.number) for each in document.priority_classes),
        )

    def _use(self, document: QueuesDocument) -> None:
        self._roster.ledger.set_queues(document.queues)
        self._submissions.queues = document
        self._roster.has_changed = True
