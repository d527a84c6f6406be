"""How a refusal is told: which limit, its value, and when to come back."""

from __future__ import annotations

from mlaas.errors import BudgetExceeded, LimitExceeded, PlatformError, RateLimited
from mlaas.router.limits.budgets import to_usd
from mlaas.router.limits.shares import BudgetShare, Share
from mlaas.router.limits.types import WINDOW_S, Resource

SOON_S = 1.0
"""When to come back for what a request under way holds: nobody knows when it ends."""

_SAYINGS = {
    Resource.REQUESTS: "requests in any 60 s",
    Resource.TOKENS: "tokens in any 60 s, input and reserved output",
    Resource.CONCURRENCY: "requests at one time",
}


def refuse(share: Share, units: int, *, now_s: float, wall_s: float) -> LimitExceeded:
    """Return the refusal of a request that asks for more than the pool can give.

    Args:
        share: what this replica holds of the pool.
        units: what the request asks for.
        now_s: monotonic clock.
        wall_s: seconds since 1970.
    """
    if isinstance(share, BudgetShare):
        return _refuse_money(share, units, now_s=now_s, wall_s=wall_s)
    name = share.pool.resource.value
    allowed = f"{name}={share.limit}: this key may use {share.limit} {_SAYINGS[share.pool.resource]}"
    code = "concurrency_limit_exceeded" if share.pool.resource is Resource.CONCURRENCY else "rate_limit_exceeded"
    if units > share.limit:
        return RateLimited(code, f"{allowed}; this request alone needs {units}: make it smaller", limit=name)
    retry_after_s = _frees_in_s(share, units, now_s=now_s)
    message = f"{allowed}; this request needs {units} more: try again in {retry_after_s:.1f} s"
    return RateLimited(code, message, retry_after_s=retry_after_s, limit=name)


def unavailable(reason: str) -> PlatformError:
    """Return the refusal of a request that cannot be counted now."""
    message = f"this key has limits, and they cannot be checked now: {reason}; try again in a moment"
    return PlatformError("limits_unavailable", message, retry_after_s=SOON_S)


def _refuse_money(share: BudgetShare, units: int, *, now_s: float, wall_s: float) -> BudgetExceeded:
    name = share.pool.resource.value
    allowed = f"{name}={to_usd(share.limit).normalize():f}: the budget of this key for {share.pool.period} UTC"
    needed = f"this request may cost ${to_usd(units).normalize():f}"
    if units > share.limit:
        message = f"{allowed} is smaller than one request: {needed}; ask for fewer tokens"
        return BudgetExceeded("budget_exceeded", message, limit=name)
    if share.expected(now_s) >= units:
        message = f"{allowed} is reserved by requests under way; {needed}: try again in {SOON_S:.0f} s"
        return BudgetExceeded("budget_exceeded", message, retry_after_s=SOON_S, limit=name)
    retry_after_s = max(0.0, share.ends_s - wall_s)
    message = f"{allowed} is spent; {needed}. The next period begins in {retry_after_s:.0f} s"
    return BudgetExceeded("budget_exceeded", message, retry_after_s=retry_after_s, limit=name)


def _frees_in_s(share: Share, units: int, *, now_s: float) -> float:
    """Return when enough units may be usable: exactly, when this replica holds as many; else when the first one is."""
    if share.pool.resource is Resource.CONCURRENCY:
        return SOON_S
    missing = units - share.idle(now_s)
    here = share.frees_in_s(missing, now_s=now_s) if share.granted - share.returned >= units else None
    if here is not None:
        return here
    if share.outlook is not None and share.outlook.frees_in_s is not None:
        return max(0.0, share.outlook.frees_in_s - (now_s - share.outlook_s))
    return WINDOW_S
