"""The limits of a key: checked when one is made, read back from where it is stored."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from mlaas.auth.types import BUDGET_PERIODS, KeyLimits, StoredKey, is_budget_period
from mlaas.errors import ConfigError

MAX_COUNT = 10**12
"""Largest limit on requests, tokens or concurrency: more than any machine serves, and far from a column's end."""
MAX_BUDGET_USD = Decimal(10**9)
"""Largest budget: its nano-dollars fit a 64-bit column with room for what is spent beyond it."""
BUDGET_DIGITS = 9
"""Decimal places of a budget: the ledger counts nano-dollars."""


def parse_limits(
    *,
    models: str | None = None,
    rpm: int | None = None,
    tpm: int | None = None,
    concurrency: int | None = None,
    budget_usd: str | None = None,
    budget_per: str | None = None,
    priority: int = 0,
) -> KeyLimits:
    """Return the limits that a person wrote.

    Args:
        models: names with commas between them.
        rpm: requests per minute.
        tpm: tokens per minute.
        concurrency: requests at one time.
        budget_usd: a decimal number of dollars.
        budget_per: `day` or `month`.
        priority: any whole number of 32 bits.

    Raises:
        ConfigError: a limit is zero, negative, no finite number or too large, a name is empty, or a budget and its
            period do not come together.
    """
    for field, count in (("rpm", rpm), ("tpm", tpm), ("concurrency", concurrency)):
        if count is not None and not 1 <= count <= MAX_COUNT:
            way_out = f"give a whole number from 1 to {MAX_COUNT}, or leave it out for no limit"
            raise ConfigError(f"bad_{field}", f"{field}={count} cannot be a limit; {way_out}")
    if abs(priority) >= 2**31:
        raise ConfigError("bad_priority", f"priority={priority} is out of range; give a whole number of 32 bits")
    if (budget_usd is None) != (budget_per is None):
        alone = f"per={budget_per!r} has no budget_usd" if budget_usd is None else f"budget_usd={budget_usd} has no per"
        raise ConfigError("bad_budget", f"{alone}; give both, as in --budget-usd 5 --per day")
    if budget_per is not None and not is_budget_period(budget_per):
        raise ConfigError("bad_budget", f"per={budget_per!r} is no period; use one of {', '.join(BUDGET_PERIODS)}")
    return KeyLimits(
        models=None if models is None else _parse_models(models),
        rpm=rpm,
        tpm=tpm,
        concurrency=concurrency,
        budget_usd=None if budget_usd is None else _parse_budget(budget_usd),
        budget_per=budget_per,
        priority=priority,
    )


def limits_of(key: StoredKey) -> KeyLimits:
    """Return the limits of a stored key.

    A period that this version does not know is taken for a month: the key is limited more, never less.
    """
    per = key.budget_per if is_budget_period(key.budget_per) else "month"
    return KeyLimits(
        models=key.models,
        rpm=key.rpm,
        tpm=key.tpm,
        concurrency=key.concurrency,
        budget_usd=key.budget_usd,
        budget_per=None if key.budget_usd is None else per,
        priority=key.priority,
    )


def _parse_models(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(name and name.isprintable() for name in names):
        message = f"models={text!r} names an empty model; give names with commas between, as in --models fast,smart"
        raise ConfigError("bad_models", message)
    return names


def _parse_budget(text: str) -> Decimal:
    way_out = "give dollars, as in --budget-usd 2.50"
    try:
        usd = Decimal(text)
    except InvalidOperation as error:
        raise ConfigError("bad_budget", f"budget_usd={text!r} is not a number; {way_out}") from error
    if not usd.is_finite() or not 0 < usd <= MAX_BUDGET_USD:
        raise ConfigError("bad_budget", f"budget_usd={text} is not between 0 and {MAX_BUDGET_USD}; {way_out}")
    if usd != round(usd, BUDGET_DIGITS):
        raise ConfigError("bad_budget", f"budget_usd={text} has more than {BUDGET_DIGITS} decimal places; {way_out}")
    return usd
