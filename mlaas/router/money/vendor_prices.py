"""The vendors' list prices, from the data that genai-prices carries."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
from genai_prices.types import ModelPrice, Tier, TieredPrices

from mlaas.router.money.rates import Card, Rates, rate_of

VENDORS = {"openai": "openai", "anthropic": "anthropic", "gemini": "google", "perplexity": "perplexity", "xai": "x-ai"}
"""Provider kinds that have list prices, and what genai-prices calls their vendor."""
SERVICE_TIERS = frozenset({"flex", "priority", "fast"})
"""Values of OpenAI's `service_tier` and Anthropic's `speed` that have prices of their own; others cost the standard."""

_THOUSANDS_PER_MILLION = 1000
_PRICE_KEYS = ("input_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok", "output_mtok")


def list_price(kind: str, model: str, *, at: datetime, service_tier: str = "") -> Card | None:
    """Return the list price of a vendor's model on a day; None when it has none by tokens.

    Args:
        kind: the provider's kind; one that is not in `VENDORS` has no list prices.
        model: the vendor's name of the model.
        at: an instant of the day.
        service_tier: one of `SERVICE_TIERS`, or empty for the standard one.

    Source: genai-prices; a token of a kind that a model has no price for costs what the wider kind costs.
    """
    vendor = find_provider_by_id(get_snapshot().providers, VENDORS[kind]) if kind in VENDORS else None
    found = vendor.find_model(model, all_providers=get_snapshot().providers) if vendor is not None else None
    if found is None:
        return None
    variant = {"service_tier": service_tier, "speed": service_tier} if service_tier else None
    price = found.get_prices(at.astimezone(UTC), variant)
    if price.input_mtok is None and price.output_mtok is None:
        return None
    starts = sorted({tier.start for key in _PRICE_KEYS for tier in _tiers(getattr(price, key))})
    return Card(base=_rates_at(price, 0), steps=tuple((start, _rates_at(price, start + 1)) for start in starts))


def _rates_at(price: ModelPrice, prompt_tokens: int) -> Rates:
    def rate(key: str) -> int | None:
        value = getattr(price, key)
        if value is None:
            return None
        reached = [tier.price for tier in _tiers(value) if prompt_tokens > tier.start]
        return rate_of(reached[-1] if reached else value.base if isinstance(value, TieredPrices) else value)

    read = rate("input_mtok") or 0
    written = rate("output_mtok") or 0
    cache_read, cache_write = rate("cache_read_mtok"), rate("cache_write_mtok")
    cache_write_1h, reasoning = rate("cache_write_1h_mtok"), rate("output_reasoning_mtok")
    cache_write = read if cache_write is None else cache_write
    return Rates(
        input=read,
        cache_read=read if cache_read is None else cache_read,
        cache_write=cache_write,
        cache_write_1h=cache_write if cache_write_1h is None else cache_write_1h,
        output=written,
        reasoning=written if reasoning is None else reasoning,
        request=(rate("requests_kcount") or 0) * _THOUSANDS_PER_MILLION,
    )


def _tiers(value: Decimal | TieredPrices | None) -> list[Tier]:
    return value.tiers if isinstance(value, TieredPrices) else []
