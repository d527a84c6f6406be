"""What a gateway replica asks before a request and tells after it: the limits of keys, without waiting as a rule."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Protocol

from mlaas.auth.types import Principal
from mlaas.errors import MlaasError
from mlaas.router.limits.accounts import WAIT_S, Account, Ask, Reservation
from mlaas.router.limits.headers import encode_headers
from mlaas.router.limits.ledger import shard_of
from mlaas.router.limits.links import Link
from mlaas.router.limits.refusals import unavailable
from mlaas.router.limits.types import WINDOW_S, Reply, Report

__all__ = ["LedgerPort", "Meter", "Reservation"]


class LedgerPort(Protocol):
    """The ledger as a replica reaches it."""

    @property
    def num_shards(self) -> int:
        """How many shards there are."""

    async def exchange_windows(self, shard: int, report: Report) -> Reply:
        """Exchange with a shard about requests, tokens and concurrency.

        Raises:
            PlatformError: the shard does not answer.
        """

    async def exchange_budgets(self, shard: int, report: Report) -> Reply:
        """Exchange with a shard about money.

        Raises:
            PlatformError: the shard does not answer, or cannot reach the store.
        """


@dataclass(slots=True)
class _Shard:
    """The keys of one shard of the ledger.

    Attributes:
        busy: accounts with something to tell or to give back; a dict for its order.
        waiting: accounts in which requests wait.
    """

    windows: Link
    budgets: Link
    accounts: dict[str, Account] = field(default_factory=dict)
    busy: dict[Account, None] = field(default_factory=dict)
    waiting: dict[Account, None] = field(default_factory=dict)

    def is_fenced(self, account: Account, now_s: float) -> bool:
        """Tell whether what the account holds may have been given to others, because the ledger is away."""
        return now_s >= self.windows.fence_s and account.has_windows


class Meter:
    """Holds requests to the limits of their keys.

    Args:
        ledger: divides the limits among the replicas.
        clock: monotonic.
        wall_clock: seconds since 1970.
        span_s: length of the window of requests and tokens.
    """

    def __init__(
        self,
        ledger: LedgerPort,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        span_s: float = WINDOW_S,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._span_s = span_s
        self.replica_id = uuid.uuid4().hex
        self._shards = [self._build_shard(ledger, number) for number in range(ledger.num_shards)]

    async def run(self) -> None:
        """Exchange with the ledger, for ever."""
        async with asyncio.TaskGroup() as group:
            for shard in self._shards:
                group.create_task(shard.windows.run())
                group.create_task(shard.budgets.run())

    async def close(self) -> None:
        """Give back all that is not in use, and report the rest. Call it when `run` has ended."""
        for shard in self._shards:
            for account in shard.accounts.values():
                for share in account.shares():
                    share.recall(until_s=float("inf"))
            shard.busy.update(dict.fromkeys(shard.accounts.values()))
        await self.exchange()

    async def exchange(self) -> None:
        """Exchange with each shard once, as `run` does in its turn."""
        links = [link for shard in self._shards for link in (shard.windows, shard.budgets)]
        await asyncio.gather(*(link.exchange() for link in links))

    async def reserve(
        self,
        principal: Principal,
        *,
        input_tokens: int,
        output_tokens: int,
        cost_usd: Decimal,
        fixed_usd: Decimal | None = None,
        usd_per_output_token: Decimal | None = None,
    ) -> Reservation:
        """Reserve what a request may use; as a rule, at once.

        Args:
            principal: who asks, with the key's limits.
            input_tokens: counted against tokens per minute, until `settle` says how many there were.
            output_tokens: likewise.
            cost_usd: upper bound of what the request can cost.
            fixed_usd: the part of `cost_usd` that is due however short the answer is. None: all but `output_tokens`
                times their price.
            usd_per_output_token: what a shorter answer would save for each token. None: the answer cannot be capped.

        Returns:
            What to give to `settle`, in any case, also when the request fails or its caller leaves. When it has
            `max_output_tokens`, the request may generate no more than that.

        Raises:
            RateLimited: the key's requests, tokens or places are used up.
            BudgetExceeded: the key's budget does not pay the input and one token of output.
            PlatformError: the ledger, or the store for money, is away, and what is held here does not suffice.
        """
        if not principal.limits.is_metered:
            return Reservation()
        now_s = self._clock()
        shard, account = self._open(principal)
        ask = account.ask(
            tokens=input_tokens + output_tokens,
            output_tokens=output_tokens,
            cost_usd=cost_usd,
            fixed_usd=fixed_usd,
            usd_per_output_token=usd_per_output_token,
            now_s=now_s,
        )
        shard.busy[account] = None
        if not account.asks and not shard.is_fenced(account, now_s):
            reservation = account.take(ask, now_s=now_s)
            if reservation is not None:
                return reservation
            outcome = account.decide(ask, now_s=now_s, wall_s=self._wall_clock())
            if outcome is not None:
                return _unwrap(outcome)
        return await self._wait(shard, account, ask)

    def settle(self, reservation: Reservation, *, tokens: int, cost_usd: Decimal) -> None:
        """Say what a request used in the end; never waits. A second time changes nothing.

        Args:
            reservation: what `reserve` returned.
            tokens: of input and output.
            cost_usd: what the request cost.
        """
        account = reservation.account
        if account is None or not reservation.holds:
            return
        account.settle(reservation, tokens=tokens, cost_usd=cost_usd, now_s=self._clock())
        shard = self._shard(account.key_id)
        shard.busy[account] = None
        if account in shard.waiting:
            self._serve(shard, account)

    def headers(self, principal: Principal) -> list[tuple[bytes, bytes]]:
        """Return the `x-ratelimit-*` headers of an answer; none for a key without such limits."""
        if principal.limits.rpm is None and principal.limits.tpm is None:
            return []
        return encode_headers(self._open(principal)[1], now_s=self._clock())

    async def _wait(self, shard: _Shard, account: Account, ask: Ask) -> Reservation:
        """Wait in line until others settle or give back, or the ledger grants more; refuse when time is up."""
        if shard.is_fenced(account, self._clock()) and shard.windows.failure is not None:
            raise unavailable(shard.windows.failure)
        answer = ask.answer = asyncio.get_running_loop().create_future()
        account.asks.append(ask)
        shard.waiting[account] = None
        shard.windows.wake()
        shard.budgets.wake()
        try:
            await asyncio.wait([answer], timeout=WAIT_S)
        except asyncio.CancelledError:
            if answer.done() and answer.exception() is None:
                self.settle(answer.result(), tokens=0, cost_usd=Decimal(0))
            self._leave(shard, account, ask)
            raise
        if answer.done():
            return answer.result()
        self._leave(shard, account, ask)
        now_s, failure = self._clock(), shard.windows.failure or shard.budgets.failure
        if shard.is_fenced(account, now_s):
            raise unavailable(failure or "the ledger has not answered yet")
        return _unwrap(account.give_up(ask, now_s=now_s, wall_s=self._wall_clock(), failure=failure))

    def _serve(self, shard: _Shard, account: Account) -> None:
        """Answer the requests that wait, first come first served, as far as what is held suffices."""
        now_s, wall_s = self._clock(), self._wall_clock()
        is_fenced, failure = shard.is_fenced(account, now_s), shard.windows.failure
        while account.asks:
            ask = account.asks[0]
            outcome: Reservation | MlaasError | None
            if is_fenced:
                outcome = None if failure is None else unavailable(failure)
            elif account.has_to_yield(now_s):
                outcome = None
            else:
                outcome = account.decide(ask, now_s=now_s, wall_s=wall_s)
            if outcome is None:
                break
            account.asks.popleft()
            assert ask.answer is not None
            if isinstance(outcome, MlaasError):
                ask.answer.set_exception(outcome)
            else:
                ask.answer.set_result(outcome)
        if not account.asks:
            account.count_waiting(now_s)
            shard.waiting.pop(account, None)

    def _leave(self, shard: _Shard, account: Account, ask: Ask) -> None:
        if ask in account.asks:
            account.asks.remove(ask)
        self._serve(shard, account)

    def _open(self, principal: Principal) -> tuple[_Shard, Account]:
        shard = self._shard(principal.key_id)
        account = shard.accounts.get(principal.key_id)
        limits = principal.limits
        if account is None:
            account = Account(principal.key_id, limits, span_s=self._span_s, wall_s=self._wall_clock())
            shard.accounts[principal.key_id] = account
        # The key ring makes new limits at each refresh, so identity comes first and equality only after it.
        elif (account.limits is not limits and account.limits != limits) or self._wall_clock() >= account.renew_s:
            account.renew(limits, wall_s=self._wall_clock())
        else:
            account.limits = limits
        return shard, account

    def _shard(self, key_id: str) -> _Shard:
        return self._shards[shard_of(key_id, num_shards=len(self._shards))]

    def _build_shard(self, ledger: LedgerPort, number: int) -> _Shard:
        def busy() -> Iterable[Account]:
            return self._drop_quiet(shard)

        def serve() -> None:
            for account in list(shard.waiting):
                self._serve(shard, account)

        build = partial(Link, replica_id=self.replica_id, accounts=busy, clock=self._clock, on_reply=serve)
        shard = _Shard(
            windows=build(
                name=f"ledger {number} of windows", send=partial(ledger.exchange_windows, number), is_money=False
            ),
            budgets=build(
                name=f"ledger {number} of budgets", send=partial(ledger.exchange_budgets, number), is_money=True
            ),
        )
        return shard

    def _drop_quiet(self, shard: _Shard) -> list[Account]:
        """Return the accounts with something to do; forget those with nothing to remember."""
        now_s, wall_s = self._clock(), self._wall_clock()
        for account in [each for each in shard.busy if each.is_quiet(now_s=now_s, wall_s=wall_s)]:
            del shard.busy[account]
            if account.is_disposable:
                del shard.accounts[account.key_id]
        return list(shard.busy)


def _unwrap(outcome: Reservation | MlaasError) -> Reservation:
    if isinstance(outcome, MlaasError):
        raise outcome
    return outcome
