"""One shard of the ledger: windows in memory, money in the store before it is granted."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from mlaas.errors import Conflict, MlaasError, PlatformError
from mlaas.router.limits.books import BudgetBook, WindowBook
from mlaas.router.limits.leases import Lease, Pool
from mlaas.router.limits.types import WINDOW_S, PoolId, Reply, Report
from mlaas.store.ledger import BudgetLease


class LeaseStore(Protocol):
    """Where leases on budgets are kept. `mlaas.store.ledger.BudgetLeaseRepository` is one; it says what each does."""

    def open_shard(self, shard: str) -> int:
        """Become the writer of a shard."""

    def list(self, *, key_id: str, period: str) -> Sequence[BudgetLease]:
        """Return the leases on one budget."""

    def put(self, leases: Sequence[BudgetLease], *, shard: str, epoch: int) -> None:
        """Store leases, all of them or none."""


class Ledger:
    """One shard.

    Args:
        shard: its name in the store.
        store: keeps leases on money.
        is_successor: another process has served the shard before this one.
        span_s: length of the window of requests and tokens.
        clock: monotonic.
    """

    def __init__(
        self,
        shard: str,
        store: LeaseStore,
        *,
        is_successor: bool = False,
        span_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shard = shard
        self._store = store
        self._clock = clock
        self._windows = WindowBook(now_s=clock(), is_successor=is_successor, span_s=span_s)
        self._budgets = BudgetBook()
        self._epoch: int | None = None
        self._queue: list[tuple[Report, asyncio.Future[Reply]]] = []
        self._committing: asyncio.Task[None] | None = None

    async def exchange_windows(self, report: Report) -> Reply:
        """Take a report on requests, tokens and concurrency, and answer it. The store is not asked."""
        return self._windows.exchange(report, now_s=self._clock())

    async def exchange_budgets(self, report: Report) -> Reply:
        """Take a report on budgets, store it and what it is granted, and answer it; reports that meet share a write.

        Raises:
            PlatformError: the store cannot be reached, or another process has served the shard; nothing was granted.
        """
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._queue.append((report, reply))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all())
        return await reply

    async def _commit_all(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue, []
                try:
                    replies = await asyncio.to_thread(self._commit, [report for report, _ in batch])
                except MlaasError as error:
                    failure = error if isinstance(error, PlatformError) else PlatformError(error.code, error.message)
                    _resolve(batch, failure)
                except Exception as error:
                    _resolve(batch, PlatformError("ledger_failed", f"the ledger failed: {error!r}"))
                    raise
                else:
                    _resolve(batch, replies)
        finally:
            self._committing = None

    def _commit(self, reports: list[Report]) -> list[Reply]:
        """Load, decide, store: what the store does not take was never decided. One at a time."""
        try:
            if self._epoch is None:
                self._epoch = self._store.open_shard(self._shard)
            for pool_id in self._budgets.missing(reports):
                rows = self._store.list(key_id=pool_id.key_id, period=pool_id.period)
                self._budgets.load(pool_id, {row.replica_id: _lease(row) for row in rows})
            changed, replies = self._budgets.decide(reports, now_s=self._clock())
            rows = [row for pool_id, pool in changed.items() for row in self._changed_rows(pool_id, pool)]
            if rows:
                self._store.put(rows, shard=self._shard, epoch=self._epoch)
        except Conflict:
            # Another process has served the shard meanwhile: begin again from what it stored.
            self._epoch, self._budgets = None, BudgetBook()
            raise
        self._budgets.apply(changed)
        return replies

    def _changed_rows(self, pool_id: PoolId, pool: Pool) -> list[BudgetLease]:
        before: Mapping[str, Lease] = self._budgets.leases(pool_id)
        rows = (_row(pool_id, replica_id, lease) for replica_id, lease in pool.leases.items())
        stored = {_row(pool_id, replica_id, lease) for replica_id, lease in before.items()}
        return [row for row in rows if row not in stored]


@lru_cache(maxsize=4096)
def shard_of(key_id: str, *, num_shards: int) -> int:
    """Return which shard serves a key: the same in every process."""
    return zlib.crc32(key_id.encode()) % num_shards


def _resolve(batch: list[tuple[Report, asyncio.Future[Reply]]], outcome: Sequence[Reply] | PlatformError) -> None:
    for number, (_report, reply) in enumerate(batch):
        if reply.done():
            continue
        if isinstance(outcome, PlatformError):
            reply.set_exception(outcome)
        else:
            reply.set_result(outcome[number])


def _lease(row: BudgetLease) -> Lease:
    """Return a lease as it was stored; what it does not say of the replica's use, the next claim will."""
    return Lease(granted=row.granted_nanos, returned=row.returned_nanos, spent=row.spent_nanos, used=row.spent_nanos)


def _row(pool_id: PoolId, replica_id: str, lease: Lease) -> BudgetLease:
    return BudgetLease(
        key_id=pool_id.key_id,
        period=pool_id.period,
        replica_id=replica_id,
        granted_nanos=lease.granted,
        returned_nanos=lease.returned,
        spent_nanos=lease.spent,
    )
