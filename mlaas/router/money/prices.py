"""What each request costs: bundled list prices, the operator's own, the machine's hour, and what the provider billed.

An operator's price (`prices` in the router's file) goes before the vendor's list price, and what a provider says it
billed goes before both. A cost is exact: whole picodollars, handed out as `Decimal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import NamedTuple, Protocol

from mlaas.providers.base import Usage
from mlaas.providers.vllm import LOCAL
from mlaas.router.money.local_prices import LocalPrices
from mlaas.router.money.rates import Card, Rates, rate_of, to_pico_usd, to_usd
from mlaas.router.money.vendor_prices import SERVICE_TIERS, list_price
from mlaas.router.types import Target

_DAY_S = 86_400
_MAX_CARDS = 4096


class OwnRates(Protocol):
    """An operator's prices by kind of token, in US dollars per million."""

    @property
    def input_usd_per_mtok(self) -> Decimal:
        """Read anew."""

    @property
    def output_usd_per_mtok(self) -> Decimal:
        """Written."""

    @property
    def cache_read_usd_per_mtok(self) -> Decimal | None:
        """Read from the provider's cache. None: as input."""

    @property
    def cache_write_usd_per_mtok(self) -> Decimal | None:
        """Written to the provider's cache. None: as input."""


class OwnStep(OwnRates, Protocol):
    """What a longer request costs as a whole."""

    @property
    def above_tokens(self) -> int:
        """Prompts of more tokens than that are charged at these prices."""


class OwnPrice(OwnRates, Protocol):
    """An operator's price of a model; `mlaas.router.config.PriceConfig` is one."""

    @property
    def steps(self) -> Sequence[OwnStep]:
        """Prices of longer requests, in any order."""

    @property
    def from_date(self) -> date | None:
        """First day of this price. None: always."""


class PerToken(NamedTuple):
    """Standard prices of one target, in US dollars per token, for policies to weigh."""

    input_usd: float
    output_usd: float


class Bound(NamedTuple):
    """The most that a request can cost.

    Attributes:
        prompt_usd: for all that is read.
        usd_per_output_token: for each token that is written.
    """

    prompt_usd: Decimal
    usd_per_output_token: Decimal


@dataclass(kw_only=True, slots=True)
class _Drift:
    reported_usd: Decimal = Decimal(0)
    listed_usd: Decimal = Decimal(0)


class PriceBook:
    """The prices of every target, each looked up once for a day.

    Args:
        kinds: kind of each provider by its name; `vendor_prices.VENDORS` has those with list prices.
        own: the operator's prices by `provider/model`, in any order of days.
        local: prices of the cluster's own models.
    """

    def __init__(self, *, kinds: Mapping[str, str], own: Mapping[str, Sequence[OwnPrice]], local: LocalPrices) -> None:
        self._kinds = kinds
        self._own = {
            target: sorted(prices, key=lambda price: price.from_date or date.min) for target, prices in own.items()
        }
        self._local = local
        self._cards: dict[tuple[Target, str, int], Card | None] = {}
        self._drift: dict[str, _Drift] = {}

    def cost(self, target: Target, usage: Usage, *, at_s: float, service_tier: str = "") -> Decimal | None:
        """Return what an answer cost in US dollars, as billed where the provider says so; None when it has no price.

        Args:
            target: who answered.
            usage: its tokens.
            at_s: when the request came in, seconds since 1970; prices have dates.
            service_tier: the request's `service_tier` (OpenAI) or `speed` (Anthropic), as the caller wrote it.
        """
        card = self._card(target, at_s, service_tier)
        if usage.reported_cost_usd is None:
            return None if card is None else to_usd(card.cost(usage))
        reported = to_usd(to_pico_usd(usage.reported_cost_usd))
        if card is not None:
            drift = self._drift.setdefault(target.provider, _Drift())
            drift.reported_usd += reported
            drift.listed_usd += to_usd(card.cost(usage))
        return reported

    def bound(self, target: Target, *, input_tokens: int, at_s: float, service_tier: str = "") -> Bound | None:
        """Return the most that a request can cost, for a reservation; None when the target has no price.

        Tools that a provider bills by use (web search) are not in it: no one can say beforehand how often they run.
        """
        card = self._card(target, at_s, service_tier)
        if card is None:
            return None
        prompt, written = card.bound(input_tokens=input_tokens)
        return Bound(prompt_usd=to_usd(prompt), usd_per_output_token=to_usd(written))

    def per_token(self, target: Target, *, at_s: float) -> PerToken | None:
        """Return a target's standard prices below any step; None when it has none."""
        card = self._card(target, at_s, "")
        if card is None:
            return None
        return PerToken(input_usd=float(to_usd(card.base.input)), output_usd=float(to_usd(card.base.output)))

    def unpriced(self, targets: Iterable[Target], *, at_s: float) -> tuple[Target, ...]:
        """Return those targets that have no price, and so count as $0."""
        return tuple(target for target in dict.fromkeys(targets) if self._card(target, at_s, "") is None)

    def drift(self) -> Mapping[str, float]:
        """Return by provider what it says it billed, over what the price table says for the same requests.

        Summed since the start; a provider that does not say what it bills, or whose table says nothing, is left out.
        """
        return {
            provider: float(drift.reported_usd / drift.listed_usd)
            for provider, drift in list(self._drift.items())
            if drift.listed_usd
        }

    def _card(self, target: Target, at_s: float, service_tier: str) -> Card | None:
        if target.provider == LOCAL and str(target) not in self._own:
            return self._local.card(target.model)
        key = (target, service_tier if service_tier in SERVICE_TIERS else "", int(at_s // _DAY_S))
        try:
            return self._cards[key]
        except KeyError:
            # Callers choose model names: what they make up must not fill the memory.
            if len(self._cards) >= _MAX_CARDS:
                self._cards.clear()
            card = self._cards[key] = self._look_up(*key)
            return card

    def _look_up(self, target: Target, service_tier: str, day: int) -> Card | None:
        at = datetime.fromtimestamp(day * _DAY_S, UTC)
        begun = [price for price in self._own.get(str(target), ()) if (price.from_date or date.min) <= at.date()]
        if begun:
            return _own_card(begun[-1])
        return list_price(self._kinds.get(target.provider, ""), target.model, at=at, service_tier=service_tier)


def _own_card(price: OwnPrice) -> Card:
    steps = sorted(price.steps, key=lambda step: step.above_tokens)
    return Card(base=_own_rates(price), steps=tuple((step.above_tokens, _own_rates(step)) for step in steps))


def _own_rates(price: OwnRates) -> Rates:
    read, written = rate_of(price.input_usd_per_mtok), rate_of(price.output_usd_per_mtok)
    cache_read, cache_write = (
        read if each is None else rate_of(each)
        for each in (price.cache_read_usd_per_mtok, price.cache_write_usd_per_mtok)
    )
    return Rates(
        input=read,
        cache_read=cache_read,
        cache_write=cache_write,
        cache_write_1h=cache_write,
        output=written,
        reasoning=written,
    )
