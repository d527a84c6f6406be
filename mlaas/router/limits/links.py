"""One gateway replica's connection to one shard of the ledger: what changed goes out, what is granted comes in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from mlaas.errors import MlaasError, PlatformError
from mlaas.router.limits.accounts import Account
from mlaas.router.limits.shares import BudgetShare, Share
from mlaas.router.limits.types import LEASE_S, TICK_S, PoolId, Reply, Report

POLL_S = 0.05
"""Time between two exchanges while somebody waits, here or elsewhere."""
CALL_TIMEOUT_S = 3.0
"""How long an exchange may take before the ledger counts as away."""

logger = logging.getLogger(__name__)

Send = Callable[[Report], Awaitable[Reply]]


class Link:
    """Exchanges with one shard about one kind of shares.

    Args:
        name: for the log.
        replica_id: unique to this process.
        send: delivers a report to the shard.
        accounts: the accounts of the shard that have something to tell, now.
        is_money: whether the link speaks of budgets, or of all the rest.
        clock: monotonic.
        on_reply: called after each exchange, when waiting requests may have got what they need.
    """

    def __init__(
        self,
        *,
        name: str,
        replica_id: str,
        send: Send,
        accounts: Callable[[], Iterable[Account]],
        is_money: bool,
        clock: Callable[[], float],
        on_reply: Callable[[], None],
    ) -> None:
        self.fence_s = float("-inf")
        self.failure: str | None = None
        self._name = name
        self._replica_id = replica_id
        self._send = send
        self._accounts = accounts
        self._is_money = is_money
        self._clock = clock
        self._on_reply = on_reply
        self._wanted = asyncio.Event()
        self._sequence = 0
        self._session = ""
        self._tick_s = float("-inf")
        self._heard_s = float("-inf")
        self._is_urgent = False

    def wake(self) -> None:
        """Exchange as soon as possible."""
        self._wanted.set()

    async def run(self) -> None:
        """Exchange for ever, at once when woken and each tick."""
        while True:
            try:
                async with asyncio.timeout(POLL_S if self._is_urgent else TICK_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            try:
                await self.exchange()
            except Exception as error:  # outermost loop of the service: a bug here must not end all limits
                logger.exception("%s: exchange failed", self._name)
                self._fail(error)
            if self.failure is not None:
                await asyncio.sleep(POLL_S)

    async def exchange(self) -> None:
        """Tell the shard what changed, and take over what it answers. A shard that does not answer is noted."""
        now_s = self._clock()
        shares = {share.pool: share for share in self._shares()}
        is_tick = now_s >= self._tick_s + TICK_S
        if is_tick:
            self._tick_s = now_s
        for share in shares.values():
            if is_tick:
                share.tick()
            share.shed(now_s)
        report = self._report(shares.values(), now_s=now_s)
        if report is None:
            return
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                reply = await self._send(report)
        except (PlatformError, TimeoutError) as error:
            self._take_back(report, shares)
            self._fail(error)
            return
        except BaseException:
            self._take_back(report, shares)
            raise
        self._apply(reply, shares, sent_s=now_s)

    def _shares(self) -> Iterable[Share]:
        for account in self._accounts():
            account.count_waiting(self._clock())
            for share in account.shares():
                if isinstance(share, BudgetShare) is self._is_money:
                    yield share

    def _report(self, shares: Iterable[Share], *, now_s: float) -> Report | None:
        claims = tuple(claim for share in shares if (claim := share.claim(now_s)) is not None)
        is_renewal = any(share.unsettled if self._is_money else share.granted != share.returned for share in shares)
        # An empty report finds out whether the ledger answers: the first one, so that it is up before a request waits
        # for it, and all that follow a failure.
        if not claims and not is_renewal and self._session and self.failure is None:
            return None
        self._sequence += 1
        return Report(replica_id=self._replica_id, sequence=self._sequence, claims=claims)

    def _take_back(self, report: Report, shares: dict[PoolId, Share]) -> None:
        for claim in report.claims:
            shares[claim.pool].unsend()

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            logger.warning("%s does not answer, trying again: %r", self._name, error)
        self.failure = error.message if isinstance(error, MlaasError) else f"the ledger does not answer ({error!r})"
        self._on_reply()

    def _apply(self, reply: Reply, shares: dict[PoolId, Share], *, sent_s: float) -> None:
        if self.failure is not None:
            logger.warning("%s answers again", self._name)
            self.failure = None
        for grant in reply.grants:
            shares[grant.pool].apply(grant, sent_s=sent_s)
        is_known = reply.session == self._session
        if not is_known:
            self._session = reply.session
            told = {grant.pool for grant in reply.grants}
            untold = [share for share in shares.values() if share.pool not in told]
            for share in untold:
                share.is_changed = True
            is_known = not any(share.granted != share.returned for share in untold)
            self.wake()
        # After the grants: a share whose lease had run out is smaller now. And a ledger that has yet to be told of a
        # share may give it to others.
        if is_known:
            self.fence_s = sent_s + LEASE_S
        self._is_urgent = bool(reply.recalls) or any(share.need for share in shares.values())
        for share in shares.values():
            share.recall(until_s=sent_s)
        # What was granted is used before it can be recalled: so replicas that all wait take turns.
        self._on_reply()
        for pool in reply.recalls:
            if pool in shares:
                shares[pool].recall(until_s=sent_s + 2 * TICK_S)
