"""What a model's tokens cost, as whole picodollars, so that every sum of money is exact.

A list price of p dollars per million tokens is p x 1e6 picodollars (1e-12 US dollars) per token: a whole number for
every price that a vendor has published, down to a millionth of a dollar per million tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from mlaas.providers.base import Usage

PICO_DIGITS = 12
"""Decimal places of a picodollar: the resolution of every cost in the ledger."""
_PICO_USD = Decimal(1).scaleb(-PICO_DIGITS)
_MTOK_DIGITS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Picodollars for one token of each kind.

    Attributes:
        reasoning: an output token that was spent on reasoning.
        request: charged once, whatever its size.
    """

    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    output: int
    reasoning: int
    request: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One model's prices on one day.

    Attributes:
        base: rates of a request that reaches no step.
        steps: by threshold, ascending: a request with more input tokens than that is charged at these rates as a whole.
            Source: OpenAI's and Google's long-context prices, as `genai_prices.types.TieredPrices` states them.
    """

    base: Rates
    steps: tuple[tuple[int, Rates], ...] = ()

    def cost(self, usage: Usage) -> int:
        """Return what a usage costs, in picodollars."""
        rates = self._rates(usage) if self.steps else self.base
        return (
            usage.input_tokens * rates.input
            + usage.cache_read_tokens * rates.cache_read
            + usage.cache_write_tokens * rates.cache_write
            + usage.cache_write_1h_tokens * rates.cache_write_1h
            + usage.output_tokens * rates.output
            + usage.reasoning_tokens * (rates.reasoning - rates.output)
            + rates.request
        )

    def bound(self, *, input_tokens: int) -> tuple[int, int]:
        """Return the most that a prompt of at most so many tokens costs, and the most that each token written does.

        In picodollars; every token is taken at the dearest rate of its kinds and of the steps that so many input tokens
        may reach.
        """
        prompt, written = _dearest(self.base, input_tokens)
        for start, rates in self.steps:
            if input_tokens > start:
                step_prompt, step_written = _dearest(rates, input_tokens)
                prompt, written = max(prompt, step_prompt), max(written, step_written)
        return prompt, written

    def _rates(self, usage: Usage) -> Rates:
        prompt_tokens = usage.prompt_tokens
        return next((rates for start, rates in reversed(self.steps) if prompt_tokens > start), self.base)


def to_usd(pico_usd: int) -> Decimal:
    """Return picodollars as dollars, exactly."""
    return pico_usd * _PICO_USD


def to_pico_usd(usd: Decimal) -> int:
    """Return dollars as picodollars, rounded to the nearest one."""
    return round(usd.scaleb(PICO_DIGITS))


def rate_of(usd_per_mtok: Decimal) -> int:
    """Return a list price in picodollars per token, rounded to the nearest whole one."""
    return round(usd_per_mtok.scaleb(PICO_DIGITS - _MTOK_DIGITS))


def _dearest(rates: Rates, input_tokens: int) -> tuple[int, int]:
    read = max(rates.input, rates.cache_read, rates.cache_write, rates.cache_write_1h)
    return input_tokens * read + rates.request, max(rates.output, rates.reasoning)
