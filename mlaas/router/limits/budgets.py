"""Money: whole nano-dollars, and periods of UTC."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal

from mlaas.auth.types import BudgetPeriod

NANOS = Decimal(10**9)
"""Nano-dollars in a dollar."""


def to_nanos(usd: Decimal) -> int:
    """Return dollars as nano-dollars. A fraction of one counts whole, so that no sum is below the true one."""
    return math.ceil(usd * NANOS)


def to_usd(nanos: int) -> Decimal:
    """Return nano-dollars as dollars."""
    return nanos / NANOS


def period_of(now_s: float, per: BudgetPeriod) -> tuple[str, float]:
    """Return the name of the period that holds this instant, and when the next one begins, in seconds since 1970."""
    now = datetime.fromtimestamp(now_s, UTC)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        return f"{day:%Y-%m-%d}", (day + timedelta(days=1)).timestamp()
    next_month = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return f"{day:%Y-%m}", next_month.timestamp()


def affordable_tokens(nanos: int, *, input_usd: Decimal, usd_per_output_token: Decimal) -> int:
    """Return how many output tokens the rest of this much money pays, once the input is paid."""
    left_usd = to_usd(nanos) - input_usd
    return max(0, int((left_usd / usd_per_output_token).to_integral_value(ROUND_FLOOR)))
