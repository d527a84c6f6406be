"""The ledger of limits without Ray: its shards live in the process that asks."""

from __future__ import annotations

from sqlalchemy import Engine

from mlaas.router.limits.ledger import Ledger
from mlaas.router.limits.types import Reply, Report
from mlaas.store.ledger import BudgetLeaseRepository


class LocalLedger:
    """Both shards, over a store."""

    num_shards = 2

    def __init__(self, store: Engine) -> None:
        leases = BudgetLeaseRepository(store)
        self._shards = [Ledger(str(number), leases) for number in range(self.num_shards)]

    async def exchange_windows(self, shard: int, report: Report) -> Reply:
        return await self._shards[shard].exchange_windows(report)

    async def exchange_budgets(self, shard: int, report: Report) -> Reply:
        return await self._shards[shard].exchange_budgets(report)
