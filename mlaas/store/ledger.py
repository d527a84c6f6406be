"""What gateway replicas were granted of budgets, and what they spent: totals that only grow, in nano-dollars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Engine, insert, select, update

from mlaas.errors import Conflict
from mlaas.store.engine import transaction, upsert
from mlaas.store.tables import budget_leases, ledger_shards


@dataclass(frozen=True, kw_only=True)
class BudgetLease:
    """One replica's share of one budget in one period."""

    key_id: str
    period: str
    """`2026-11-23` or `2026-11`."""
    replica_id: str
    granted_nanos: int
    returned_nanos: int
    spent_nanos: int


class BudgetLeaseRepository:
    """The leases on budgets.

    Only one process writes those of a shard: who has called `open_shard` last. One that was thought dead and lives on
    is refused, and has to open the shard and read its leases again; so no money is granted twice.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def open_shard(self, shard: str) -> int:
        """Become the writer of a shard and return the epoch that proves it.

        Raises:
            PlatformError: the store cannot be reached.
        """
        of_shard = ledger_shards.c.shard == shard
        with transaction(self._engine) as connection:
            renewed = update(ledger_shards).where(of_shard).values(epoch=ledger_shards.c.epoch + 1)
            epoch = connection.execute(renewed.returning(ledger_shards.c.epoch)).scalar_one_or_none()
            if epoch is None:
                epoch = 1
                connection.execute(insert(ledger_shards).values(shard=shard, epoch=epoch))
        return epoch

    def list(self, *, key_id: str, period: str) -> Sequence[BudgetLease]:
        """Return the leases on one budget.

        Raises:
            PlatformError: the store cannot be reached.
        """
        statement = select(budget_leases).where(budget_leases.c.key_id == key_id, budget_leases.c.period == period)
        with transaction(self._engine) as connection:
            rows = connection.execute(statement.order_by(budget_leases.c.replica_id)).all()
        return [BudgetLease(**row._mapping) for row in rows]

    def put(self, leases: Sequence[BudgetLease], *, shard: str, epoch: int) -> None:
        """Store leases in place of those of the same replicas, all of them or none.

        Raises:
            Conflict: another process has become the shard's writer.
            PlatformError: the store cannot be reached.
        """
        fence = update(ledger_shards).where(ledger_shards.c.shard == shard, ledger_shards.c.epoch == epoch)
        with transaction(self._engine) as connection:
            # A write, not a read: it holds the row until the end, so that no other writer comes between.
            if connection.execute(fence.values(epoch=epoch)).rowcount != 1:
                message = f"shard {shard} of the ledger has another writer than epoch {epoch}; open it again"
                raise Conflict("ledger_superseded", message)
            for lease in leases:
                upsert(connection, budget_leases, asdict(lease))
