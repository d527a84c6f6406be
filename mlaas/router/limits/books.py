"""One shard of the ledger: the pools of its keys, and which replicas hold them.

Pure but for the state that an object keeps: times come in, and nothing here waits or calls.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from mlaas.router.limits.leases import Lease, Pool, exchange, forget, is_recalled
from mlaas.router.limits.types import LEASE_S, RATES, WINDOW_S, Grant, PoolId, Reply, Report

KEPT_BUDGETS = 10_000
"""How many budgets are kept in memory; the store has the others."""


@dataclass(frozen=True, slots=True)
class Contact:
    """A replica that was heard of: its last report, and when it came."""

    sequence: int
    heard_s: float
    session: str


class Replicas:
    """The gateway replicas that were heard of."""

    def __init__(self) -> None:
        self._contacts: dict[str, Contact] = {}

    def hear(self, report: Report, *, now_s: float) -> tuple[str, bool]:
        """Note that a replica reports; return its session, and whether the report is newer than its last one."""
        last = self._contacts.get(report.replica_id)
        is_continued = last is not None and now_s < last.heard_s + LEASE_S
        session = last.session if last is not None and is_continued else uuid.uuid4().hex
        sequence = 0 if last is None else last.sequence
        self._contacts[report.replica_id] = Contact(max(sequence, report.sequence), now_s, session)
        return session, report.sequence > sequence

    def live(self, now_s: float) -> set[str]:
        """Return those whose lease runs."""
        return {name for name, contact in self._contacts.items() if now_s < contact.heard_s + LEASE_S}

    def silent(self, now_s: float, *, for_s: float) -> list[str]:
        """Return those that were not heard of for this long."""
        return [name for name, contact in self._contacts.items() if now_s >= contact.heard_s + for_s]

    def drop(self, replica_id: str) -> None:
        """Forget a replica."""
        self._contacts.pop(replica_id, None)


class WindowBook:
    """Requests, tokens and concurrency: all in memory, told anew by the replicas when the process was replaced.

    Args:
        now_s: monotonic clock.
        is_successor: another process has served this shard before: listen for as long as its leases may run.
        span_s: length of the window.
    """

    def __init__(self, *, now_s: float, is_successor: bool, span_s: float = WINDOW_S) -> None:
        self._settled_s = now_s + LEASE_S if is_successor else now_s
        self._span_s = span_s
        self._pools: dict[PoolId, Pool] = {}
        self._lines: set[PoolId] = set()
        self._replicas = Replicas()

    def exchange(self, report: Report, *, now_s: float) -> Reply:
        """Take a replica's report and answer it. One that was overtaken by a later one is answered with nothing."""
        self._expire(now_s)
        session, is_new = self._replicas.hear(report, now_s=now_s)
        grants: list[Grant] = []
        if is_new:
            live = self._replicas.live(now_s)
            for claim in report.claims:
                pool, grant = exchange(
                    self._pools.get(claim.pool, Pool()),
                    claim,
                    replica_id=report.replica_id,
                    live=live,
                    now_s=now_s,
                    is_listening=now_s < self._settled_s,
                )
                self._put(claim.pool, _without_empty(pool, report.replica_id))
                grants.append(grant)
        recalls = tuple(
            pool_id for pool_id in self._lines if is_recalled(self._pools[pool_id], report.replica_id, now_s=now_s)
        )
        return Reply(session=session, grants=tuple(grants), recalls=recalls)

    def held(self, pool_id: PoolId) -> int:
        """Return how much of a pool replicas hold."""
        return self._pools.get(pool_id, Pool()).held

    def _expire(self, now_s: float) -> None:
        """Take back the slots of silent replicas, and, when all that they used has left the window, their rates."""
        for replica_id in self._replicas.silent(now_s, for_s=LEASE_S):
            self._forget(replica_id, is_rate=False)
        # Two leases: a unit may have been used at the last moment of one, and leaves its window up to 50 ms late.
        for replica_id in self._replicas.silent(now_s, for_s=self._span_s + 2 * LEASE_S):
            self._forget(replica_id, is_rate=True)
            self._replicas.drop(replica_id)

    def _forget(self, replica_id: str, *, is_rate: bool) -> None:
        held = [pool_id for pool_id, pool in self._pools.items() if replica_id in pool.leases]
        for pool_id in held:
            if (pool_id.resource in RATES) is is_rate:
                self._put(pool_id, forget(self._pools[pool_id], replica_id))

    def _put(self, pool_id: PoolId, pool: Pool) -> None:
        (self._lines.add if pool.line else self._lines.discard)(pool_id)
        if pool.leases or pool.line:
            self._pools[pool_id] = pool
        else:
            self._pools.pop(pool_id, None)


class BudgetBook:
    """Money. What it decides counts only when it is stored, so it keeps a decision apart until it is told."""

    def __init__(self) -> None:
        self._pools: dict[PoolId, Pool] = {}
        self._lines: set[PoolId] = set()
        self._replicas = Replicas()

    def missing(self, reports: list[Report]) -> list[PoolId]:
        """Return the pools that have to be loaded before the reports can be answered."""
        asked = dict.fromkeys(claim.pool for report in reports for claim in report.claims)
        return [pool_id for pool_id in asked if pool_id not in self._pools]

    def load(self, pool_id: PoolId, leases: Mapping[str, Lease]) -> None:
        """Take over what the store knows of a pool."""
        self._pools[pool_id] = Pool(leases=leases)

    def decide(self, reports: list[Report], *, now_s: float) -> tuple[dict[PoolId, Pool], list[Reply]]:
        """Answer reports in their order.

        Returns:
            The pools that change, and the replies, which are good once those pools are stored.
        """
        changed: dict[PoolId, Pool] = {}
        replies: list[Reply] = []
        for report in reports:
            session, is_new = self._replicas.hear(report, now_s=now_s)
            grants: list[Grant] = []
            if is_new:
                live = self._replicas.live(now_s)
                for claim in report.claims:
                    pool = changed.get(claim.pool, self._pools[claim.pool])
                    pool, grant = exchange(pool, claim, replica_id=report.replica_id, live=live, now_s=now_s)
                    changed[claim.pool] = pool
                    grants.append(grant)
            recalls = tuple(
                pool_id
                for pool_id in {*self._lines, *changed}
                if is_recalled(changed.get(pool_id, self._pools[pool_id]), report.replica_id, now_s=now_s)
            )
            replies.append(Reply(session=session, grants=tuple(grants), recalls=recalls))
        return changed, replies

    def apply(self, changed: Mapping[PoolId, Pool]) -> None:
        """Take over what was stored."""
        for pool_id, pool in changed.items():
            self._pools.pop(pool_id, None)  # So that the ones used last stay longest.
            self._pools[pool_id] = pool
            (self._lines.add if pool.line else self._lines.discard)(pool_id)
        while len(self._pools) > KEPT_BUDGETS:
            oldest = next(iter(self._pools))
            del self._pools[oldest]
            self._lines.discard(oldest)

    def leases(self, pool_id: PoolId) -> Mapping[str, Lease]:
        """Return the leases on a budget as they are stored."""
        return self._pools[pool_id].leases if pool_id in self._pools else {}


def _without_empty(pool: Pool, replica_id: str) -> Pool:
    """Return the pool without the replica's lease when there is nothing to remember of it."""
    lease = pool.leases[replica_id]
    return pool if lease.held or lease.used or replica_id in pool.line else forget(pool, replica_id)
