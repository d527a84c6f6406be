"""The money and tokens of one request: bounded and reserved before it is sent, priced and settled when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import orjson

from mlaas.auth.types import Principal
from mlaas.errors import BudgetExceeded
from mlaas.providers.base import Call, Usage
from mlaas.providers.splice import set_member
from mlaas.router.asgi import Headers
from mlaas.router.limits.meter import Meter, Reservation
from mlaas.router.money.prices import Bound, PriceBook
from mlaas.router.need import Extent, extent_of, num_choices, output_fields
from mlaas.router.types import Target

MAX_OUTPUT_TOKENS = 128_000
"""Longest answer of a model whose own bound is not known."""
_NOTHING = Decimal(0)
_FREE = Bound(prompt_usd=_NOTHING, usd_per_output_token=_NOTHING)


@dataclass(kw_only=True, slots=True)
class Bill:
    """What one request of a caller may use, and what it has used over all the calls to models that it made.

    Attributes:
        at_s: wall clock when the request came in.
        service_tier: the priced speed that the caller asked for.
        reservation: None of a key without limits.
        max_output_tokens: all that the key's budget can still pay for; None when it can pay for what was asked.
        has_budget: whether anything that costs money may be used.
        usage: None while nothing has been generated.
        cost_usd: None while nothing with a price has been used.
    """

    prices: PriceBook
    at_s: float
    service_tier: str = ""
    reservation: Reservation | None = None
    max_output_tokens: int | None = None
    has_budget: bool = True
    usage: Usage | None = None
    cost_usd: Decimal | None = None

    def add(self, target: Target, usage: Usage) -> None:
        """Take what one call to a model used."""
        cost_usd = self.prices.cost(target, usage, at_s=self.at_s, service_tier=self.service_tier)
        self.usage = usage if self.usage is None else add_usages(self.usage, usage)
        if cost_usd is not None:
            self.cost_usd = (self.cost_usd or _NOTHING) + cost_usd


@dataclass(frozen=True, kw_only=True, slots=True)
class Billing:
    """Opens and settles the bills of requests."""

    prices: PriceBook
    meter: Meter

    async def open(
        self,
        call: Call,
        principal: Principal,
        targets: Sequence[Target],
        *,
        extent: Extent,
        at_s: float,
        num_answers: int = 1,
    ) -> Bill:
        """Reserve what a request may use at the dearest of its targets.

        Args:
            call: the request.
            principal: whose limits count.
            targets: everyone who might answer.
            extent: the request's.
            at_s: wall clock.
            num_answers: how many of them may answer: two when one is asked beside another that is silent.

        Raises:
            RateLimited: the key has used up what it may use in a minute or at a time.
            BudgetExceeded: what is left of the key's budget cannot pay for the request.
            PlatformError: the limits cannot be told now.
        """
        tier = call.fields.get("service_tier") or call.fields.get("speed") or ""
        bill = Bill(prices=self.prices, at_s=at_s, service_tier=tier if isinstance(tier, str) else "")
        if not principal.limits.is_metered:
            return bill
        if principal.limits.budget_usd is not None:
            await self._reserve_money(bill, call, principal, targets, extent, num_answers)
        if bill.reservation is None:
            bill.reservation = await self.meter.reserve(
                principal,
                input_tokens=extent.input_tokens,
                output_tokens=extent.output_tokens,
                cost_usd=_NOTHING,
            )
        return bill

    async def _reserve_money(
        self,
        bill: Bill,
        call: Call,
        principal: Principal,
        targets: Sequence[Target],
        extent: Extent,
        num_answers: int,
    ) -> None:
        """Reserve with money as well; when there is none left, leave the bill to what costs nothing.

        Raises:
            RateLimited: as in `open`.
            BudgetExceeded: as in `open`.
            PlatformError: as in `open`.
        """
        bound = self._bound(targets, bill, input_tokens=extent.most_input_tokens)
        fixed, per_token = num_answers * bound.prompt_usd, num_answers * bound.usd_per_output_token
        asked = extent.asked_output_tokens
        try:
            bill.reservation = await self.meter.reserve(
                principal,
                input_tokens=extent.input_tokens,
                output_tokens=extent.output_tokens,
                cost_usd=fixed + per_token * (MAX_OUTPUT_TOKENS if asked is None else asked),
                fixed_usd=fixed,
                usd_per_output_token=per_token or None,
            )
        except BudgetExceeded:
            if all(self._is_priced(target, at_s=bill.at_s) for target in targets):
                raise
            bill.has_budget = False
            return
        bill.max_output_tokens = bill.reservation.max_output_tokens
        if bill.max_output_tokens is not None and bill.max_output_tokens < num_choices(call):
            self.settle(bill)
            why = f"what is left of this key's budget pays {bill.max_output_tokens} tokens"
            raise BudgetExceeded("budget_exceeded", f"{why}, too few for n={num_choices(call)}", limit="budget_usd")

    def headers(self, principal: Principal) -> Headers:
        """Return what an answer tells its caller of the limits that count."""
        return self.meter.headers(principal) if principal.limits.is_metered else []

    def settle(self, bill: Bill) -> None:
        """Give back what was reserved and not used; never blocks."""
        if bill.reservation is not None:
            tokens = bill.usage.total_tokens if bill.usage is not None else 0
            self.meter.settle(bill.reservation, tokens=tokens, cost_usd=bill.cost_usd or _NOTHING)
            bill.reservation = None

    def _bound(self, targets: Sequence[Target], bill: Bill, *, input_tokens: int) -> Bound:
        """Return the most that the request can cost at any of its targets."""
        most = _FREE
        for target in targets:
            bound = self.prices.bound(target, input_tokens=input_tokens, at_s=bill.at_s, service_tier=bill.service_tier)
            if bound is not None:
                most = Bound(
                    prompt_usd=max(most.prompt_usd, bound.prompt_usd),
                    usd_per_output_token=max(most.usd_per_output_token, bound.usd_per_output_token),
                )
        return most

    def _is_priced(self, target: Target, *, at_s: float) -> bool:
        price = self.prices.per_token(target, at_s=at_s)
        return price is not None and (price.input_usd > 0 or price.output_usd > 0)


def cap_output(call: Call, max_output_tokens: int) -> Call:
    """Return the call with its answer bounded, so that it costs no more than the key's budget has left.

    Args:
        call: what the caller asks.
        max_output_tokens: of all its choices together, at least one for each.
    """
    bound = max_output_tokens // num_choices(call)
    for name in output_fields(call):
        given = call.fields.get(name)
        if type(given) is not int or given > bound:
            body = set_member(call.body, name, orjson.dumps(bound))
            call = replace(call, fields={**call.fields, name: bound}, body=body)
    return call


def estimate_usage(call: Call, num_deltas: int) -> Usage:
    """Return the usage of an answer whose provider did not say it: broken off, or never told."""
    return Usage(input_tokens=extent_of(call).input_tokens, output_tokens=num_deltas, is_estimated=True)


def add_usages(first: Usage, second: Usage) -> Usage:
    """Return what two answers used together. Their reported costs are left out: each is priced by itself."""
    return Usage(
        input_tokens=first.input_tokens + second.input_tokens,
        cache_read_tokens=first.cache_read_tokens + second.cache_read_tokens,
        cache_write_tokens=first.cache_write_tokens + second.cache_write_tokens,
        cache_write_1h_tokens=first.cache_write_1h_tokens + second.cache_write_1h_tokens,
        output_tokens=first.output_tokens + second.output_tokens,
        reasoning_tokens=first.reasoning_tokens + second.reasoning_tokens,
        is_estimated=first.is_estimated or second.is_estimated,
    )
