"""`GET /api/v1/usage`: what requests used and cost, by tenant, model, provider, key or day.

An administrator sees every tenant; anybody else sees the tenant of their key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from mlaas.auth.types import Principal
from mlaas.errors import InvalidRequest, PermissionDenied
from mlaas.located import nearest
from mlaas.store.usage import GROUPS, GroupBy, UsageTotal

DEFAULT_SINCE = "24h"

_PARAMETERS = ("by", "since", "until", "tenant")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_SUMMED = (
    "num_requests",
    "num_errors",
    "num_cached",
    "num_unpriced",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
)


class UsageSource(Protocol):
    """Where usage is kept; `mlaas.store.usage.UsageRepository` is one."""

    def summarize(
        self, by: GroupBy, *, since: datetime, until: datetime, tenant: str | None = None
    ) -> Sequence[UsageTotal]:
        """Return what requests add up to."""


def answer_usage(
    source: UsageSource, principal: Principal, query: Mapping[str, str], *, now: datetime
) -> dict[str, Any]:
    """Return the answer's JSON object. Blocks while the store is asked.

    Args:
        source: the ledger.
        principal: who asks.
        query: parameters `by` (default `model`), `since` (default `24h`), `until` (default now) and `tenant`.
        now: the present, with its time zone.

    Raises:
        InvalidRequest: a parameter is unknown, or its value cannot be read.
        PermissionDenied: the tenant is not the caller's.
        PlatformError: the store cannot be reached.
    """
    for name in query:
        if name not in _PARAMETERS:
            raise _invalid(name, f"is not a parameter of this route{nearest(name, _PARAMETERS)}", _PARAMETERS)
    tenant = query.get("tenant") or None
    if principal.role != "admin":
        if tenant not in (None, principal.tenant):
            message = f"tenant={tenant!r} is not the tenant of your key; leave it out, or use an admin's key"
            raise PermissionDenied("not_your_tenant", message)
        tenant = principal.tenant
    return summarize_usage(
        source,
        by=query.get("by", "model"),
        since=query.get("since", DEFAULT_SINCE),
        until=query.get("until", ""),
        tenant=tenant,
        now=now,
    )


def summarize_usage(
    source: UsageSource, *, by: str, since: str, until: str = "", tenant: str | None = None, now: datetime
) -> dict[str, Any]:
    """Return usage as JSON values: one row for each group, and their total. Blocks.

    Args:
        source: the ledger.
        by: one of `GROUPS`.
        since: first instant that counts, as `parse_instant` reads it.
        until: first instant that no longer counts. Empty: now.
        tenant: only this one's. None: all.
        now: the present.

    Raises:
        InvalidRequest: an argument cannot be read.
        PlatformError: the store cannot be reached.
    """
    if by not in GROUPS:
        raise _invalid("by", f"{by!r} is nothing to group by{nearest(by, GROUPS)}", GROUPS)
    begin = parse_instant("since", since, now=now)
    end = parse_instant("until", until, now=now) if until else now
    totals = source.summarize(by, since=begin, until=end, tenant=tenant)
    return {
        "by": by,
        "since": begin.isoformat(),
        "until": end.isoformat(),
        "tenant": tenant,
        "data": [_row(by, total) for total in totals],
        "total": {
            **{name: sum(getattr(total, name) for total in totals) for name in _SUMMED},
            "cost_usd": float(sum((total.cost_usd for total in totals), Decimal(0))),
        },
    }


def parse_instant(name: str, text: str, *, now: datetime) -> datetime:
    """Return the instant that a text names.

    Args:
        name: the parameter's name, for the message.
        text: an age such as `30m`, `24h` or `7d`, or a date or time in ISO 8601, UTC unless it says otherwise.
        now: the present.

    Raises:
        InvalidRequest: it is neither.
    """
    try:
        if age := re.fullmatch(r"(\d{1,6})([mhd])", text):
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        instant = datetime.fromisoformat(text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        message = f"{name}={text[:100]!r} is no time; give an age such as 24h or 7d, or a date such as 2026-11-23"
        raise InvalidRequest("bad_parameter", message) from error


def _row(by: str, total: UsageTotal) -> dict[str, Any]:
    values = asdict(total)
    # A JSON number keeps 15 digits: exact to the picodollar below a thousand dollars.
    return {by: values.pop("group"), **values, "cost_usd": float(total.cost_usd)}


def _invalid(name: str, what: str, known: Sequence[str]) -> InvalidRequest:
    return InvalidRequest("bad_parameter", f"{name[:100]}: {what[:200]}; there are: {', '.join(known)}")
