"""One key at one replica: its shares, and the requests that wait for them, first come first served.

Pure but for the state that an object keeps: times come in, and nothing here waits or calls.
"""

from __future__ import annotations

from asyncio import Future
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from mlaas.auth.types import KeyLimits
from mlaas.errors import MlaasError
from mlaas.router.limits.budgets import affordable_tokens, period_of, to_nanos
from mlaas.router.limits.refusals import refuse, unavailable
from mlaas.router.limits.shares import BudgetShare, RateShare, Share, SlotShare, TokenShare
from mlaas.router.limits.types import PoolId, Resource
from mlaas.router.limits.windows import Bucket

WAIT_S = 2.0
"""Longest time that a request waits for units that others hold."""
PATIENCE_S = WAIT_S / 2
"""After this, a request that waits for the whole of its money takes what is there, and answers within it."""
USUAL_TOKENS = 512
"""Output tokens that a request is given at least, while the budget has as much."""
SHORT_PARTS = 4
"""A request whose bound the budget does not cover gets this part of what is left, or less when others wait too."""

SLOT_WAIT_S = 0.6
"""Longest time that a request waits for a slot: two ticks and two polls, in which one that another replica has just
freed is told, called back and granted. So a caller who never has more under way than it may is never refused."""


@dataclass(slots=True)
class Hold:
    """Units taken from one share."""

    share: Share
    units: int
    bucket: Bucket | None


@dataclass(slots=True)
class Reservation:
    """What a request holds until it is settled.

    Attributes:
        holds: units by share; empty when the key has no limits, or the request is settled.
        max_output_tokens: the most output that the rest of the budget pays; None: all that was asked for is covered.
    """

    account: Account | None = None
    holds: list[Hold] = field(default_factory=list)
    max_output_tokens: int | None = None


@dataclass(slots=True)
class Ask:
    """What a request needs.

    Attributes:
        needs: units by share; those of the budget are lowered, down to `least`, when the whole cannot be had.
        full: upper bound of the cost, in nano-dollars.
        least: that and one token of output, in nano-dollars; equals `full` when output cannot be capped.
        input_usd: what is due however short the answer is.
        usd_per_output_token: price of output; None: the caller cannot cap it.
        asked_s: when, on the monotonic clock.
    """

    needs: list[tuple[Share, int]]
    asked_s: float
    full: int = 0
    least: int = 0
    input_usd: Decimal = Decimal(0)
    usd_per_output_token: Decimal | None = None
    answer: Future[Reservation] | None = None


class Account:
    """The shares of one key.

    Attributes:
        limits: of the key, now.
        renew_s: when to call `renew` although the limits are the same: the budget's next period begins.
        asks: requests that wait.
        num_open: reservations that have not settled.
    """

    limits: KeyLimits
    renew_s: float

    def __init__(self, key_id: str, limits: KeyLimits, *, span_s: float, wall_s: float) -> None:
        self.key_id = key_id
        self.asks: deque[Ask] = deque()
        self.num_open = 0
        self.requests = RateShare(PoolId(key_id, Resource.REQUESTS), limit=0, span_s=span_s)
        self.tokens = TokenShare(PoolId(key_id, Resource.TOKENS), limit=0, span_s=span_s)
        self.slots = SlotShare(PoolId(key_id, Resource.CONCURRENCY), limit=0)
        self.budget: BudgetShare | None = None
        self.past_budgets: list[BudgetShare] = []
        self.renew(limits, wall_s=wall_s)

    def renew(self, limits: KeyLimits, *, wall_s: float) -> None:
        """Take over the key's present limits, and the present period of its budget."""
        self.limits = limits
        self.renew_s = float("inf")
        self.requests.resize(limits.rpm or 0)
        self.tokens.resize(limits.tpm or 0)
        self.slots.resize(limits.concurrency or 0)
        if limits.budget_usd is None or limits.budget_per is None:
            self._replace_budget(None)
            return
        period, ends_s = period_of(wall_s, limits.budget_per)
        limit = to_nanos(limits.budget_usd)
        if self.budget is None or self.budget.pool.period != period:
            pool = PoolId(self.key_id, Resource.BUDGET, period)
            earlier = next((share for share in self.past_budgets if share.pool == pool), None)
            self._replace_budget(earlier or BudgetShare(pool, limit=limit, ends_s=ends_s))
        if self.budget is not None:
            self.budget.resize(limit)
            self.renew_s = ends_s

    def shares(self) -> Iterator[Share]:
        """Yield every share, those of past periods too."""
        yield from (self.requests, self.tokens, self.slots, *self.past_budgets)
        if self.budget is not None:
            yield self.budget

    def ask(
        self,
        *,
        tokens: int,
        output_tokens: int,
        cost_usd: Decimal,
        fixed_usd: Decimal | None,
        usd_per_output_token: Decimal | None,
        now_s: float,
    ) -> Ask:
        """Return what a request needs of this key's shares."""
        limits = self.limits
        needs: list[tuple[Share, int]] = []
        if limits.rpm is not None:
            needs.append((self.requests, 1))
        if limits.tpm is not None:
            needs.append((self.tokens, tokens))
        if limits.concurrency is not None:
            needs.append((self.slots, 1))
        ask = Ask(needs=needs, asked_s=now_s)
        if self.budget is not None:
            ask.full = ask.least = units = to_nanos(cost_usd)
            if usd_per_output_token:
                fixed = cost_usd - output_tokens * usd_per_output_token if fixed_usd is None else fixed_usd
                ask.input_usd = max(Decimal(0), fixed)
                ask.least = min(ask.full, to_nanos(ask.input_usd + usd_per_output_token))
                ask.usd_per_output_token = usd_per_output_token
                if ask.full > self.budget.limit:
                    present = self.budget.present(now_s) if self.budget.outlook else self.budget.limit
                    units = self._shorten(ask, present=present, hoped=self.budget.limit)
            needs.append((self.budget, units))
        return ask

    def take(self, ask: Ask, *, now_s: float) -> Reservation | None:
        """Take all that a request needs, or nothing."""
        for share, units in ask.needs:
            if share.idle(now_s) < units:
                return None
        reservation = Reservation(self)
        holds = reservation.holds
        for share, units in ask.needs:
            if share is self.budget:
                reservation.max_output_tokens = _affordable(ask, units)
            holds.append(Hold(share, units, share.take(units, now_s=now_s)))
        self.num_open += 1
        return reservation

    def decide(self, ask: Ask, *, now_s: float, wall_s: float) -> Reservation | MlaasError | None:
        """Take what a request needs, or refuse it when no waiting can help; None: it may get it yet."""
        for index, (share, units) in enumerate(ask.needs):
            if units > share.limit and not isinstance(share, BudgetShare):
                return refuse(share, units, now_s=now_s, wall_s=wall_s)
            if share.idle(now_s) >= units:
                continue
            reachable = share.reachable(now_s, since_s=ask.asked_s)
            if reachable is None:
                continue
            least = ask.least if isinstance(share, BudgetShare) else units
            is_late = isinstance(share, SlotShare) and now_s - ask.asked_s >= SLOT_WAIT_S
            if reachable < least or is_late:
                return refuse(share, least, now_s=now_s, wall_s=wall_s)
            is_late = now_s - ask.asked_s > PATIENCE_S
            if least < units and (reachable < ask.full or is_late):
                present = share.present(now_s)
                hoped = present if is_late else reachable
                ask.needs[index] = (share, self._shorten(ask, present=present, hoped=hoped))
        return self.take(ask, now_s=now_s)

    def _shorten(self, ask: Ask, *, present: int, hoped: int) -> int:
        """Return what a request gets whose bound the budget does not cover.

        Only a part of what is there, so that others can be answered at the same time; but as much as a usual answer
        takes, while it may hope for so much.
        """
        usual = to_nanos(ask.input_usd + USUAL_TOKENS * (ask.usd_per_output_token or Decimal(0)))
        part = max(present // (SHORT_PARTS + len(self.asks)), min(usual, hoped))
        return max(ask.least, min(ask.full, part))

    def give_up(self, ask: Ask, *, now_s: float, wall_s: float, failure: str | None) -> Reservation | MlaasError:
        """Answer a request that has waited as long as it may: with less output than it asked for, or with a refusal.

        Args:
            ask: what it needs.
            now_s: monotonic clock.
            wall_s: seconds since 1970.
            failure: why the ledger does not answer; None: it does.
        """
        ask.needs = [
            (share, max(ask.least, min(units, share.idle(now_s)))) if isinstance(share, BudgetShare) else (share, units)
            for share, units in ask.needs
        ]
        reservation = self.take(ask, now_s=now_s)
        if reservation is not None:
            return reservation
        for share, units in ask.needs:
            if share.idle(now_s) < units and share.reachable(now_s, since_s=ask.asked_s) is not None:
                return refuse(share, units, now_s=now_s, wall_s=wall_s)
        return unavailable(failure or "the ledger has not answered yet")

    def count_waiting(self, now_s: float) -> None:
        """Tell each share what waiting requests need of it."""
        for share in self.shares():
            share.need = share.waiting = 0
        for ask in self.asks:
            for share, units in ask.needs:
                share.waiting += units
        if self.asks:
            for share, units in self.asks[0].needs:
                share.since_s = self.asks[0].asked_s
                share.need = max(0, units - (0 if share.is_recalled(now_s) else share.idle(now_s)))

    def settle(self, reservation: Reservation, *, tokens: int, cost_usd: Decimal, now_s: float) -> None:
        """End a reservation: only what was used stays used. A second time changes nothing."""
        if not reservation.holds:
            return
        for hold in reservation.holds:
            actual = hold.units
            if isinstance(hold.share, TokenShare):
                actual = tokens
            elif isinstance(hold.share, BudgetShare):
                actual = to_nanos(cost_usd)
            hold.share.settle(hold.units, actual, bucket=hold.bucket, now_s=now_s)
        reservation.holds = []
        self.num_open -= 1

    def has_to_yield(self, now_s: float) -> bool:
        """Whether another replica is first in line for money: what answers set free here is its, not our own line's."""
        return self.budget is not None and self.budget.is_recalled(now_s)

    def is_quiet(self, *, now_s: float, wall_s: float) -> bool:
        """Whether nothing is to be done until somebody asks or settles. A budget whose period is over is put aside."""
        if self.budget is not None and wall_s >= self.budget.ends_s:
            self._replace_budget(None)
            self.renew_s = float("-inf")
        self.past_budgets = [share for share in self.past_budgets if not share.is_quiet(now_s)]
        return not self.asks and all(share.is_quiet(now_s) for share in self.shares())

    @property
    def is_disposable(self) -> bool:
        """Whether a quiet account can be dropped: a budget's totals have to last as long as its period."""
        return not (self.num_open or self.budget or self.past_budgets)

    @property
    def has_windows(self) -> bool:
        """Whether there is a limit that only counts while the ledger is in touch."""
        limits = self.limits
        return not (limits.rpm is None and limits.tpm is None and limits.concurrency is None)

    def _replace_budget(self, budget: BudgetShare | None) -> None:
        if self.budget is not None:
            self.past_budgets.append(self.budget)
        if budget in self.past_budgets:
            self.past_budgets.remove(budget)
        self.budget = budget


def _affordable(ask: Ask, nanos: int) -> int | None:
    if nanos >= ask.full or ask.usd_per_output_token is None:
        return None
    return affordable_tokens(nanos, input_usd=ask.input_usd, usd_per_output_token=ask.usd_per_output_token)
