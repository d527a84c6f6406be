"""The schema of the store, one for SQLite and PostgreSQL.

Column names are the field names of the records that the repositories return. A change here needs a revision in
`migrations/versions`; the conformance suite compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time: timezone-aware going in, UTC coming out, on engines with and without time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the value in UTC.

        Raises:
            ValueError: the value has no time zone, so it names no point in time.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; use datetime.now(UTC)")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the stored value as UTC; SQLite stores no zone, PostgreSQL answers in the session's."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class ExactDecimal(TypeDecorator[Decimal]):
    """A decimal number, kept as text: SQLite's own numbers are binary floating point."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        """Return the number as text, without an exponent."""
        return None if value is None else f"{value:f}"

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:
        """Return the number that was stored, digit by digit."""
        return None if value is None else Decimal(value)


metadata = MetaData()

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Column("models", JSON(none_as_null=True)),
    Column("rpm", BigInteger),
    Column("tpm", BigInteger),
    Column("concurrency", BigInteger),
    Column("budget_usd", ExactDecimal),
    Column("budget_per", Text),
    Column("priority", Integer, nullable=False, server_default="0"),
    UniqueConstraint("digest", name="uq_api_keys_digest"),
)

budget_leases = Table(
    "budget_leases",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("replica_id", Text, primary_key=True),
    Column("granted_nanos", BigInteger, nullable=False),
    Column("returned_nanos", BigInteger, nullable=False),
    Column("spent_nanos", BigInteger, nullable=False),
)

ledger_shards = Table(
    "ledger_shards",
    metadata,
    Column("shard", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
)

deployments = Table(
    "deployments",
    metadata,
    Column("name", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("replicas", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("max_replicas", Integer),
    Column("ttft_slo_s", Double),
    Column("queue", Text),
    Column("obstacle", Text),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("entrypoint", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("submitted_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
)

usage = Table(
    "usage",
    metadata,
    Column("id", Text, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("error", Text),
    Column("is_stream", Boolean, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("cache_write_1h_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("is_estimated", Boolean, nullable=False),
    Column("cost_pico_usd", BigInteger),
    Column("duration_ms", Double, nullable=False),
    Column("ttft_ms", Double),
    Column("queue_ms", Double, nullable=False),
    Column("num_attempts", Integer, nullable=False),
    Column("cache", Text, nullable=False),
    Column("reason", Text),
    Index("ix_usage_at", "at"),
    Index("ix_usage_tenant_at", "tenant", "at"),
    Index("ix_usage_request_id", "request_id"),
)

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index("ix_files_tenant_created_at", "tenant", "created_at"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", Text, nullable=False),
    Column("completion_window", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("metadata", JSON(none_as_null=True)),
    Column("errors", JSON(none_as_null=True)),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("num_total", Integer, nullable=False),
    Column("num_completed", Integer, nullable=False),
    Column("num_failed", Integer, nullable=False),
    Column("in_progress_at", UtcDateTime),
    Column("finalizing_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("cancelling_at", UtcDateTime),
    Column("lease_owner", Text),
    Column("lease_expires_at", UtcDateTime),
    Index("ix_batches_tenant_created_at", "tenant", "created_at"),
    Index("ix_batches_status", "status"),
)

batch_answers = Table(
    "batch_answers",
    metadata,
    Column("batch_id", Text, primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("is_error", Boolean, nullable=False),
    Column("text", Text, nullable=False),
)

responses = Table(
    "responses",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("previous_id", Text),
    Column("status", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("items", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("owner", Text),
    Column("seen_at", UtcDateTime),
    Index("ix_responses_created_at", "created_at"),
    Index("ix_responses_status", "status"),
)

workloads = Table(
    "workloads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("preempts", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("submitted_at", UtcDateTime, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("parent_id", Text),
    Column("array_index", Integer),
    Column("attempt", Integer, nullable=False),
    Column("num_failures", Integer, nullable=False),
    Column("num_preemptions", Integer, nullable=False),
    Column("not_before_at", UtcDateTime),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("yield_by_at", UtcDateTime),
    Column("placement", JSON(none_as_null=True)),
    Column("holder", Text),
    Column("holder_seen_at", UtcDateTime),
    Column("handed_over", Boolean, nullable=False),
    Column("handed_over_job", Text),
    Column("attained_s", Double, nullable=False),
    Column("waited_s", Double, nullable=False),
    Column("restart_owed_s", Double, nullable=False),
    Column("exit_code", Integer),
    Column("version", Integer, nullable=False),
    Index("ix_workloads_state_sequence", "state", "sequence"),
    Index("ix_workloads_tenant_sequence", "tenant", "sequence"),
    Index("ix_workloads_sequence", "sequence", unique=True),
    Index("ix_workloads_parent_id", "parent_id"),
    Index("ix_workloads_ended_at", "ended_at"),
)

workload_events = Table(
    "workload_events",
    metadata,
    Column("workload_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("detail", JSON, nullable=False),
)

scheduler_leader = Table(
    "scheduler_leader",
    metadata,
    Column("name", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("last_event", BigInteger, nullable=False),
    Column("queue_usage", JSON(none_as_null=True)),
    Column("queue_usage_at", UtcDateTime),
)

queue_documents = Table(
    "queue_documents",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("document", JSON, nullable=False),
    Column("applied_at", UtcDateTime, nullable=False),
    Column("applied_by", Text, nullable=False),
)
