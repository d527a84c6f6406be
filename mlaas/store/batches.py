"""Uploaded files and batches of requests: what is to be done, what has been answered, and who is at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, and_, delete, insert, or_, select, update

from mlaas.errors import Conflict, NotFound
from mlaas.store.engine import transaction, upsert
from mlaas.store.tables import batch_answers, batches, files

_PAGE = 1_000


class BatchStatus(StrEnum):
    """Where a batch stands; OpenAI's words."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


ACTIVE = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING)
"""States that somebody has to work on."""


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file's record; its content lies in the folder of files under its id."""

    id: str
    tenant: str
    filename: str
    purpose: str
    num_bytes: int
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch. Times that have not come are None."""

    id: str
    tenant: str
    key_id: str
    """Whose limits its requests count against."""
    endpoint: str
    input_file_id: str
    completion_window: str
    status: BatchStatus
    created_at: datetime
    expires_at: datetime
    metadata: Mapping[str, str] | None = None
    errors: Sequence[Mapping[str, Any]] | None = None
    """What is wrong with the input file, by line."""
    output_file_id: str | None = None
    error_file_id: str | None = None
    num_total: int = 0
    num_completed: int = 0
    num_failed: int = 0
    in_progress_at: datetime | None = None
    finalizing_at: datetime | None = None
    ended_at: datetime | None = None
    """When it completed, failed, expired or was cancelled."""
    cancelling_at: datetime | None = None
    lease_owner: str | None = None
    lease_expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class BatchAnswer:
    """The answer to one line of a batch's input."""

    line: int
    """Its number in the input file, from 1."""
    is_error: bool
    text: str
    """The line of the output or error file, JSON without line break."""


class FileRepository:
    """The records of uploaded files. A tenant sees its own only."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, file: StoredFile) -> None:
        """Store a file's record in place of the one with its id, if there is one.

        Raises:
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            upsert(connection, files, asdict(file))

    def get(self, file_id: str, *, tenant: str) -> StoredFile:
        """Return a file's record.

        Raises:
            NotFound: the tenant has no such file.
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            row = connection.execute(select(files).where(files.c.id == file_id, files.c.tenant == tenant)).one_or_none()
        if row is None:
            raise _no_file(file_id)
        return StoredFile(**row._mapping)

    def list(self, *, tenant: str, purpose: str | None, after: str | None, limit: int) -> Sequence[StoredFile]:
        """Return up to `limit` records, newest first.

        Args:
            tenant: whose.
            purpose: only these; None: all.
            after: id of the last record of the page before.
            limit: at most so many.

        Raises:
            NotFound: there is no file `after`.
            PlatformError: the store cannot be reached.
        """
        where = [files.c.tenant == tenant, *([files.c.purpose == purpose] if purpose else [])]
        with transaction(self._engine) as connection:
            rows = _page(connection, files, where, after=after, limit=limit, missing=_no_file)
        return [StoredFile(**row) for row in rows]

    def delete(self, file_id: str, *, tenant: str) -> None:
        """Forget a file.

        Raises:
            NotFound: the tenant has no such file.
            Conflict: a batch is still reading it.
            PlatformError: the store cannot be reached.
        """
        mine = and_(files.c.id == file_id, files.c.tenant == tenant)
        is_read = and_(batches.c.input_file_id == file_id, batches.c.tenant == tenant, batches.c.status.in_(ACTIVE))
        with transaction(self._engine) as connection:
            done = connection.execute(delete(files).where(mine, ~select(batches.c.id).where(is_read).exists()))
            reader = connection.execute(select(batches.c.id).where(is_read).limit(1)).scalar_one_or_none()
        if done.rowcount:
            return
        if reader is not None:
            raise Conflict("file_in_use", f"the file {file_id!r} is the input of {reader}; cancel that first")
        raise _no_file(file_id)


class BatchRepository:
    """Batches, and the answers they have so far.

    One worker holds a batch at a time, by a lease that it renews with all it writes; what a worker writes after it has
    lost the lease is refused.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, batch: Batch) -> None:
        """Store a new batch.

        Raises:
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            connection.execute(insert(batches).values(asdict(batch)))

    def get(self, batch_id: str, *, tenant: str) -> Batch:
        """Return a batch.

        Raises:
            NotFound: the tenant has no such batch.
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            found = _read(connection, and_(batches.c.id == batch_id, batches.c.tenant == tenant))
        if found is None:
            raise _no_batch(batch_id)
        return found

    def list(self, *, tenant: str, after: str | None, limit: int) -> Sequence[Batch]:
        """Return up to `limit` batches, newest first.

        Raises:
            NotFound: there is no batch `after`.
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            rows = _page(connection, batches, [batches.c.tenant == tenant], after=after, limit=limit, missing=_no_batch)
        return [_batch(row) for row in rows]

    def cancel(self, batch_id: str, *, tenant: str, now: datetime) -> Batch:
        """Ask for a batch to be cancelled; again does no harm.

        Raises:
            NotFound: the tenant has no such batch.
            Conflict: it has ended.
            PlatformError: the store cannot be reached.
        """
        mine = and_(batches.c.id == batch_id, batches.c.tenant == tenant)
        with transaction(self._engine) as connection:
            values = {"status": BatchStatus.CANCELLING, "cancelling_at": now}
            running = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)
            connection.execute(update(batches).where(mine, batches.c.status.in_(running)).values(values))
            batch = _read(connection, mine)
        if batch is None:
            raise _no_batch(batch_id)
        if batch.status is not BatchStatus.CANCELLING:
            raise Conflict("batch_ended", f"the batch {batch_id!r} is {batch.status.value}; it cannot be cancelled")
        return batch

    def claim(self, *, owner: str, now: datetime, until: datetime) -> Batch | None:
        """Take the oldest batch that nobody works on.

        Args:
            owner: who takes it; unique among all workers.
            now: the time.
            until: when the lease ends unless it is renewed.

        Returns:
            The batch; None when there is none.

        Raises:
            PlatformError: the store cannot be reached.
        """
        is_free = or_(batches.c.lease_expires_at.is_(None), batches.c.lease_expires_at < now)
        wanted = and_(batches.c.status.in_(ACTIVE), is_free)
        first = select(batches.c.id).where(wanted).order_by(batches.c.created_at, batches.c.id).limit(1)
        with transaction(self._engine) as connection:
            batch_id = connection.execute(first).scalar_one_or_none()
        if batch_id is None:
            return None
        lease = {"lease_owner": owner, "lease_expires_at": until}
        with transaction(self._engine) as connection:
            # The condition again: another worker may have been faster.
            done = connection.execute(update(batches).where(batches.c.id == batch_id, wanted).values(lease))
            return _read(connection, batches.c.id == batch_id) if done.rowcount else None

    def release(self, batch_id: str, *, owner: str) -> None:
        """Give a batch back, so that another worker can take it at once.

        Raises:
            PlatformError: the store cannot be reached.
        """
        lease = {"lease_owner": None, "lease_expires_at": None}
        mine = and_(batches.c.id == batch_id, batches.c.lease_owner == owner)
        with transaction(self._engine) as connection:
            connection.execute(update(batches).where(mine).values(lease))

    def record(
        self, batch_id: str, answers: Sequence[BatchAnswer], *, owner: str, now: datetime, until: datetime
    ) -> Batch | None:
        """Store answers and renew the lease, in one transaction.

        Returns:
            The batch as it stands now; None when the lease is lost, and then nothing has been stored.

        Raises:
            PlatformError: the store cannot be reached.
        """
        num_failed = sum(answer.is_error for answer in answers)
        values = {
            "lease_expires_at": until,
            "num_failed": batches.c.num_failed + num_failed,
            "num_completed": batches.c.num_completed + len(answers) - num_failed,
        }
        with transaction(self._engine) as connection:
            # First, because it also locks the batch: from here on nobody can take the lease.
            done = connection.execute(update(batches).where(_held(batch_id, owner, now)).values(values))
            if not done.rowcount:
                return None
            if answers:
                rows = [{"batch_id": batch_id, **asdict(answer)} for answer in answers]
                connection.execute(insert(batch_answers), rows)
            return _read(connection, batches.c.id == batch_id)

    def advance(
        self,
        batch_id: str,
        *,
        owner: str,
        now: datetime,
        before: BatchStatus,
        after: BatchStatus,
        changes: Mapping[str, Any],
    ) -> Batch | None:
        """Bring a batch from one status to the next; one that ends forgets its answers, which are in its files by then.

        Args:
            batch_id: which.
            owner: who holds it.
            now: the time.
            before: the status it must have.
            after: the status it gets.
            changes: fields that change with it.

        Returns:
            The batch; None when the lease is lost or the status is another by now.

        Raises:
            PlatformError: the store cannot be reached.
        """
        mine = and_(_held(batch_id, owner, now), batches.c.status == before)
        with transaction(self._engine) as connection:
            done = connection.execute(update(batches).where(mine).values({"status": after, **changes}))
            if done.rowcount and after not in ACTIVE:
                connection.execute(delete(batch_answers).where(batch_answers.c.batch_id == batch_id))
            return _read(connection, batches.c.id == batch_id) if done.rowcount else None

    def answered_lines(self, batch_id: str) -> set[int]:
        """Return the numbers of the lines that have an answer.

        Raises:
            PlatformError: the store cannot be reached.
        """
        wanted = select(batch_answers.c.line).where(batch_answers.c.batch_id == batch_id)
        with transaction(self._engine) as connection:
            return set(connection.execute(wanted).scalars())

    def answers(self, batch_id: str) -> Iterator[BatchAnswer]:
        """Yield a batch's answers in the order of its input, a thousand at a time in memory.

        Raises:
            PlatformError: the store cannot be reached.
        """
        last = 0
        while True:
            wanted = select(batch_answers).where(batch_answers.c.batch_id == batch_id, batch_answers.c.line > last)
            with transaction(self._engine) as connection:
                rows = connection.execute(wanted.order_by(batch_answers.c.line).limit(_PAGE)).all()
            for row in rows:
                yield BatchAnswer(line=row.line, is_error=row.is_error, text=row.text)
            if len(rows) < _PAGE:
                return
            last = rows[-1].line


def _held(batch_id: str, owner: str, now: datetime) -> ColumnElement[bool]:
    return and_(batches.c.id == batch_id, batches.c.lease_owner == owner, batches.c.lease_expires_at >= now)


def _page(
    connection: Connection,
    table: Table,
    where: Sequence[ColumnElement[bool]],
    *,
    after: str | None,
    limit: int,
    missing: Any,
) -> list[dict[str, Any]]:
    newest = select(table).where(*where).order_by(table.c.created_at.desc(), table.c.id)
    if after is not None:
        last = connection.execute(select(table).where(*where, table.c.id == after)).one_or_none()
        if last is None:
            raise missing(after)
        same = and_(table.c.created_at == last.created_at, table.c.id > after)
        newest = newest.where(or_(table.c.created_at < last.created_at, same))
    return [dict(row._mapping) for row in connection.execute(newest.limit(limit))]


def _read(connection: Connection, where: ColumnElement[bool]) -> Batch | None:
    row = connection.execute(select(batches).where(where)).one_or_none()
    return _batch(dict(row._mapping)) if row is not None else None


def _batch(row: Mapping[str, Any]) -> Batch:
    return Batch(**{**row, "status": BatchStatus(row["status"])})


def _no_file(file_id: str) -> NotFound:
    return NotFound("file_not_found", f"there is no file {file_id[:100]!r}; GET /v1/files lists them")


def _no_batch(batch_id: str) -> NotFound:
    return NotFound("batch_not_found", f"there is no batch {batch_id[:100]!r}; GET /v1/batches lists them")
