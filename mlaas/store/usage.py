"""The ledger of usage: one row for each request to a model, and what they add up to.

Costs are whole picodollars, added up in two parts, so that sums are exact on both engines and no sum overflows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, get_args

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Row,
    Text,
    case,
    cast,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from mlaas.store.engine import transaction
from mlaas.store.tables import usage

GroupBy = Literal["tenant", "model", "provider", "key", "day"]
"""What usage is added up by; a day is UTC's."""

GROUPS: tuple[GroupBy, ...] = get_args(GroupBy)

_PICO_DIGITS = 12
_PART = 10**6
_ROWS_PER_STATEMENT = 500


@dataclass(frozen=True, kw_only=True)
class UsageEntry:
    """One request to a model, as it ended."""

    id: str
    """Ours, unique for ever."""
    request_id: str
    """The caller's or the ingress's."""
    at: datetime
    """When it came in."""
    key_id: str
    tenant: str
    model: str
    """What the caller asked for."""
    provider: str
    """Who answered; empty when nobody did."""
    target: str
    """`provider/model` that answered; empty when none did."""
    operation: str
    """Path below `/v1/`."""
    status: int
    """HTTP status; 499 when the caller left before an answer."""
    error: str | None = None
    """Code of the error that the caller got, in the status or inside the stream."""
    is_stream: bool = False
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    """Reasoning included."""
    reasoning_tokens: int = 0
    is_estimated: bool = False
    """The tokens were counted by us."""
    cost_pico_usd: int | None = None
    """Picodollars (1e-12 US dollars). None: the target has no price."""
    duration_ms: float = 0.0
    ttft_ms: float | None = None
    queue_ms: float = 0.0
    num_attempts: int = 0
    cache: str = ""
    """`exact` or `semantic` when the answer came from a cache."""
    reason: str | None = None
    """Why this target."""


@dataclass(frozen=True, kw_only=True)
class UsageTotal:
    """What the requests of one group add up to."""

    group: str
    num_requests: int
    num_errors: int
    """Those whose status is 400 or more, or whose stream ended in an error."""
    num_cached: int
    """Answered from a cache, for nothing."""
    num_unpriced: int
    """Used tokens of a target that has no price; they count as $0."""
    input_tokens: int
    """All that was read, however it was priced."""
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    cost_usd: Decimal
    """Exact."""
    mean_duration_ms: float
    mean_ttft_ms: float | None
    """None: nothing was streamed."""


class UsageRepository:
    """The usage of the store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, entries: Sequence[UsageEntry]) -> None:
        """Store the entries, all or none; one whose id is known already is left as it is.

        Raises:
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(usage)
            for start in range(0, len(entries), _ROWS_PER_STATEMENT):
                rows = [vars(entry) for entry in entries[start : start + _ROWS_PER_STATEMENT]]
                connection.execute(insert.on_conflict_do_nothing(index_elements=[usage.c.id]), rows)

    def get(self, request_id: str) -> Sequence[UsageEntry]:
        """Return the entries of the caller's request id, or of ours, oldest first; an empty list when there are none.

        Raises:
            PlatformError: the store cannot be reached.
        """
        found = or_(usage.c.request_id == request_id, usage.c.id == request_id)
        with transaction(self._engine) as connection:
            rows = connection.execute(select(usage).where(found).order_by(usage.c.at, usage.c.id)).all()
        return [UsageEntry(**row._mapping) for row in rows]

    def summarize(
        self, by: GroupBy, *, since: datetime, until: datetime, tenant: str | None = None
    ) -> Sequence[UsageTotal]:
        """Return what requests add up to, dearest group first; days in their order.

        Args:
            by: what to group by.
            since: first instant that counts.
            until: first instant that no longer counts.
            tenant: only this tenant's. None: all.

        Raises:
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            group = _group(by, connection).label("group")
            query = select(group, *_sums()).where(usage.c.at >= since, usage.c.at < until).group_by(group)
            if tenant is not None:
                query = query.where(usage.c.tenant == tenant)
            totals = [_total(row) for row in connection.execute(query)]
        if by == "day":
            return sorted(totals, key=lambda total: total.group)
        return sorted(totals, key=lambda total: (-total.cost_usd, -total.num_requests, total.group))


def _group(by: GroupBy, connection: Connection) -> ColumnElement[str]:
    if by != "day":
        return {"tenant": usage.c.tenant, "model": usage.c.model, "provider": usage.c.provider, "key": usage.c.key_id}[
            by
        ]
    in_utc = func.timezone("UTC", usage.c.at) if connection.dialect.name == "postgresql" else usage.c.at
    return cast(func.date(in_utc), Text)


def _sums() -> list[ColumnElement[Any]]:
    is_error = or_(usage.c.status >= 400, usage.c.error.is_not(None))
    num_tokens = usage.c.input_tokens + usage.c.cache_read_tokens + usage.c.output_tokens
    is_unpriced = usage.c.cost_pico_usd.is_(None) & (num_tokens > 0)
    num_written = usage.c.cache_write_tokens + usage.c.cache_write_1h_tokens
    cost = func.coalesce(usage.c.cost_pico_usd, literal(0, BigInteger))
    return [
        func.count().label("num_requests"),
        _count(is_error).label("num_errors"),
        _count(usage.c.cache != "").label("num_cached"),
        _count(is_unpriced).label("num_unpriced"),
        func.sum(usage.c.input_tokens + usage.c.cache_read_tokens + num_written).label("input_tokens"),
        func.sum(usage.c.cache_read_tokens).label("cache_read_tokens"),
        func.sum(num_written).label("cache_write_tokens"),
        func.sum(usage.c.output_tokens).label("output_tokens"),
        func.sum(cost // _PART).label("cost_parts"),
        func.sum(cost % _PART).label("cost_rest"),
        func.avg(usage.c.duration_ms).label("mean_duration_ms"),
        func.avg(case((usage.c.is_stream, usage.c.ttft_ms))).label("mean_ttft_ms"),
    ]


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _total(row: Row[Any]) -> UsageTotal:
    values = dict(row._mapping)
    pico_usd = int(values.pop("cost_parts")) * _PART + int(values.pop("cost_rest"))
    counts = {field.name: int(values[field.name]) for field in fields(UsageTotal) if field.type == "int"}
    return UsageTotal(**{**values, **counts, "cost_usd": Decimal(pico_usd).scaleb(-_PICO_DIGITS)})
