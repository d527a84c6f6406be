"""How long the history of workloads is kept."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mlaas.errors import Conflict, PlatformError
from mlaas.scheduler.live.recovery import MOST_HISTORY

if TYPE_CHECKING:
    from mlaas.scheduler.live.roster import Roster
    from mlaas.scheduler.live.writer import Writer
    from mlaas.store.workloads import WorkloadRepository

KEPT_S = 92 * 86_400.0
"""What ended longer ago is removed, with its events: the longest quarter of a year can still be reported whole. Until
then the same submission id is known again. What estimates are learned from at a start stays, however old."""
SWEEP_S = 3_600.0
MOST_AT_ONCE = 1_000
"""Workloads removed in one transaction: the scheduler's own writes wait for it."""

logger = logging.getLogger(__name__)


class Retention:
    """Removes old history, a little at a time. What has not ended is never touched."""

    def __init__(self, roster: Roster, writer: Writer, store: WorkloadRepository) -> None:
        self._roster = roster
        self._writer = writer
        self._store = store

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            try:
                while await self.sweep() == MOST_AT_ONCE:
                    pass
            except (Conflict, PlatformError) as error:
                logger.warning("old history stays for now: %s: %s", error.code, error)
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> int:
        """Remove up to `MOST_AT_ONCE` old workloads; return how many.

        Raises:
            Conflict: another scheduler leads.
            PlatformError: the store does not answer.
        """
        # By the ledger's time, which no jump of the clock carries forward.
        self._roster.advance()
        before = datetime.fromtimestamp(self._roster.ledger.now_s - KEPT_S, UTC)
        return await asyncio.to_thread(
            self._store.purge, before=before, keep=MOST_HISTORY, most=MOST_AT_ONCE, epoch=self._writer.epoch
        )
