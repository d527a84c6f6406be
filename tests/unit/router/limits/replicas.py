"""Gateway replicas and a ledger on one clock that the test turns, over links and processes that the test breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal

from mlaas.auth.types import KeyLimits, Principal
from mlaas.errors import Conflict, LimitExceeded, PlatformError
from mlaas.router.limits.ledger import Ledger
from mlaas.router.limits.meter import Meter, Reservation
from mlaas.router.limits.types import Reply, Report
from mlaas.store.ledger import BudgetLease

NOON_S = 1_795_348_800.0
"""2026-11-22, 12:00 UTC."""


class Clock:
    """Stands still unless it is turned."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return NOON_S + self.now_s


class MemoryStore:
    """Leases in a dictionary, with an outage to switch."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], BudgetLease] = {}
        self.epoch = 0
        self.is_out = False

    def open_shard(self, shard: str) -> int:
        self._check()
        self.epoch += 1
        return self.epoch

    def list(self, *, key_id: str, period: str) -> Sequence[BudgetLease]:
        self._check()
        return [row for row in self.rows.values() if (row.key_id, row.period) == (key_id, period)]

    def put(self, leases: Sequence[BudgetLease], *, shard: str, epoch: int) -> None:
        self._check()
        if epoch != self.epoch:
            raise Conflict("ledger_superseded", "another writer")
        self.rows |= {(lease.key_id, lease.period, lease.replica_id): lease for lease in leases}

    def _check(self) -> None:
        if self.is_out:
            raise PlatformError("store_unavailable", "the store is out")


class Cluster:
    """The ledger's process, and the network between it and the replicas."""

    num_shards = 1

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.store = MemoryStore()
        self.ledger: Ledger | None = Ledger("0", self.store, clock=clock)

    def kill_ledger(self) -> None:
        self.ledger = None

    def restart_ledger(self) -> None:
        self.ledger = Ledger("0", self.store, is_successor=True, clock=self.clock)

    async def exchange_windows(self, shard: int, report: Report) -> Reply:
        return await self._ledger().exchange_windows(report)

    async def exchange_budgets(self, shard: int, report: Report) -> Reply:
        return await self._ledger().exchange_budgets(report)

    def _ledger(self) -> Ledger:
        if self.ledger is None:
            raise PlatformError("ledger_unreachable", "the ledger is down")
        return self.ledger


class Network:
    """One replica's way to the cluster: it may lose messages, or answers after they took effect.

    Attributes:
        heard_s: when the ledger last heard of the replica's windows.
        is_known: the ledger that runs now was told of all that the replica held when it began.
    """

    num_shards = 1

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.loses_reports = False
        self.loses_replies = False
        self.heard_s = float("-inf")
        self.is_known = True
        self._session = ""

    async def exchange_windows(self, shard: int, report: Report) -> Reply:
        self._lose(is_lost=self.loses_reports)
        reply = await self.cluster.exchange_windows(shard, report)
        self.heard_s = self.cluster.clock()
        # Whoever has heard that the ledger knows nothing of it tells it all the next time.
        self.is_known |= reply.session == self._session
        self._lose(is_lost=self.loses_replies)
        self._session = reply.session
        return reply

    async def exchange_budgets(self, shard: int, report: Report) -> Reply:
        self._lose(is_lost=self.loses_reports)
        reply = await self.cluster.exchange_budgets(shard, report)
        self._lose(is_lost=self.loses_replies)
        return reply

    def _lose(self, *, is_lost: bool) -> None:
        if is_lost:
            raise PlatformError("ledger_unreachable", "the network lost it")


class Replica:
    """A meter that exchanges only when it is told to, and callers that never wait for real."""

    def __init__(self, cluster: Cluster) -> None:
        self.network = Network(cluster)
        self.meter = Meter(self.network, clock=cluster.clock, wall_clock=cluster.clock.wall)

    async def reserve(
        self,
        limits: KeyLimits,
        *,
        tokens: int = 0,
        cost_usd: Decimal = Decimal(0),
        fixed_usd: Decimal | None = None,
        usd_per_output_token: Decimal | None = None,
        num_exchanges: int = 3,
        wait_s: float = 0.0,
    ) -> Reservation | LimitExceeded | PlatformError | None:
        """Ask, exchange as often as said, and return the outcome; None when the request would wait on, and left.

        The clock is turned by `wait_s` before the last exchange.
        """
        asking = asyncio.ensure_future(
            self.meter.reserve(
                Principal(key_id="key-1", tenant="t", role="user", limits=limits),
                input_tokens=tokens,
                output_tokens=0,
                cost_usd=cost_usd,
                fixed_usd=fixed_usd,
                usd_per_output_token=usd_per_output_token,
            )
        )
        await asyncio.sleep(0)
        for left in reversed(range(num_exchanges)):
            if asking.done():
                break
            if left == 0:
                self.network.cluster.clock.now_s += wait_s
            await self.meter.exchange()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if not asking.done():
            asking.cancel()
        outcome = (await asyncio.gather(asking, return_exceptions=True))[0]
        if isinstance(outcome, asyncio.CancelledError):
            return None
        if isinstance(outcome, BaseException) and not isinstance(outcome, LimitExceeded | PlatformError):
            raise outcome
        return outcome
