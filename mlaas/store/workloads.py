"""Workloads of the global scheduler: queue, leases, history and events."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from mlaas.errors import Conflict, NotFound
from mlaas.store.engine import transaction
from mlaas.store.tables import queue_documents, scheduler_leader, workload_events, workloads

ACTIVE_STATES: Final = ("pending", "starting", "running", "yielding")
"""States of what has not ended."""

_HAS_ENDED: Final = workloads.c.state.not_in(ACTIVE_STATES) & workloads.c.ended_at.is_not(None)
_LEADER: Final = "scheduler"
"""The one row of `scheduler_leader`. The migration has made it, so that the first two to lead cannot collide.
In epoch 0 nobody leads."""
_MOST_IDS: Final = 10_000
"""Ids in one statement; SQLite takes 32,766 parameters."""
_LASTING: Final = frozenset(
    {"id", "tenant", "kind", "name", "spec", "submitted_at", "sequence", "parent_id", "array_index"}
)
"""Columns that an update leaves alone."""


@dataclass(frozen=True, kw_only=True)
class WorkloadRecord:
    """One workload, as it stands."""

    id: str
    tenant: str
    queue: str
    kind: str
    name: str
    spec: dict[str, Any]
    """What was asked for, as JSON (`mlaas.scheduler.requests.spec`)."""
    priority: int
    """Number of the priority class when it was submitted."""
    preempts: bool = True
    """Whether others may have to yield for it, as its class said then."""
    state: str
    """`mlaas.scheduler.live.lifecycle.State`."""
    reason: str
    """Why it is in this state, for people."""
    submitted_at: datetime
    sequence: int
    """Order of submission, given by the store."""
    parent_id: str | None = None
    """Of one index of an array: the id that was submitted."""
    array_index: int | None = None
    attempt: int = 0
    """Starts so far; `<id>.<attempt>` names the present or last lease."""
    num_failures: int = 0
    """Attempts that ended by their own fault."""
    num_preemptions: int = 0
    not_before_at: datetime | None = None
    """End of its back-off."""
    started_at: datetime | None = None
    """Of the present or last attempt."""
    ended_at: datetime | None = None
    yield_by_at: datetime | None = None
    """Deadline of the signal to yield, while it is yielding."""
    placement: list[list[Any]] | None = None
    """Of the present attempt: `[[node, workers], ...]`."""
    holder: str | None = None
    """Who holds the gang when it is not a command of ours: Ray job and process."""
    holder_seen_at: datetime | None = None
    handed_over: bool = False
    """Its holder makes the placement groups of the present attempt itself; the scheduler keeps the booking."""
    handed_over_job: str | None = None
    """The Ray job in which it makes them; None: not known."""
    attained_s: float = 0.0
    """Time it ran at full size up to its present attempt."""
    waited_s: float = 0.0
    restart_owed_s: float = 0.0
    exit_code: int | None = None
    version: int = 0
    """Grows with each change; a write that expects another version is refused."""


@dataclass(frozen=True, kw_only=True)
class WorkloadEvent:
    """Something that happened to a workload."""

    workload_id: str
    at: datetime
    kind: str
    """`submitted`, `placed`, `running`, `told-to-yield`, `resized`, `requeued`, `killed`, `succeeded`, ..."""
    text: str
    detail: dict[str, Any] = field(default_factory=dict)
    number: int = 0
    """Given by the store; within a workload it grows with each event."""


@dataclass(frozen=True, kw_only=True)
class QueuesRecord:
    """Queues as they were applied."""

    number: int
    """From 1; the highest is in force."""
    document: dict[str, Any]
    """The queues as JSON (`mlaas.scheduler.requests.queues_file`)."""
    applied_at: datetime
    applied_by: str


@dataclass(frozen=True, kw_only=True)
class QueueUsage:
    """What queues had had at a time, as fair shares count it."""

    average_share: dict[str, float]
    """By queue, its decayed dominant share (`mlaas.scheduler.decision.fairness`)."""
    at: datetime


class WorkloadRepository:
    """The workloads of the store, with their events, and the queues.

    Anybody reads. Only one process writes: who has called `lead` last. Each write proves by its epoch that this has
    not changed, so a scheduler that was thought dead and lives on is refused and changes nothing.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def lead(self) -> int:
        """Become the writer and return the epoch that proves it.

        Raises:
            PlatformError: the store cannot be reached.
        """
        renewed = update(scheduler_leader).where(scheduler_leader.c.name == _LEADER)
        renewed = renewed.values(epoch=scheduler_leader.c.epoch + 1)
        with transaction(self._engine) as connection:
            return connection.execute(renewed.returning(scheduler_leader.c.epoch)).scalar_one()

    def insert(
        self, records: Sequence[WorkloadRecord], events: Sequence[WorkloadEvent], *, epoch: int
    ) -> tuple[WorkloadRecord, ...]:
        """Store new workloads and events, all of them or none, and return the workloads with their sequence.

        Raises:
            Conflict: `scheduler_superseded`, another process has become the writer; or `workload_exists`, an id is
                taken, be it by a workload or by an array: `list_submission` returns what has it.
            PlatformError: the store cannot be reached.
        """
        submissions = list(dict.fromkeys(record.parent_id or record.id for record in records))
        with transaction(self._engine) as connection:
            last = _fence(connection, epoch, num_workloads=len(records), num_events=len(events))
            for some in _chunks(submissions):
                taken = connection.execute(select(workloads.c.id).where(_is_submission(some)).limit(1)).scalar()
                if taken is not None:
                    raise Conflict("workload_exists", f"workload {taken} exists already")
            first = last.sequence - len(records) + 1
            stored = tuple(replace(record, sequence=number) for number, record in enumerate(records, first))
            try:
                if stored:
                    connection.execute(insert(workloads), [vars(record) for record in stored])
            except IntegrityError as error:
                message = "an id is given twice, or has the form of an array's index that exists"
                raise Conflict("workload_exists", message) from error
            _append(connection, events, last=last)
        return stored

    def update(
        self,
        records: Sequence[WorkloadRecord],
        events: Sequence[WorkloadEvent],
        *,
        epoch: int,
        usage: QueueUsage | None = None,
    ) -> tuple[WorkloadRecord, ...]:
        """Store changed workloads and new events, all of them or none; return the workloads with their new version.

        What was asked for (tenant, kind, name, spec, submission) stays as it was inserted.

        Args:
            records: Workloads that have changed.
            events: What has happened.
            epoch: As `lead` returned it.
            usage: What queues have had until now; None: it stays as it was stored last.

        Raises:
            Conflict: `scheduler_superseded`, another process has become the writer; or `workload_changed`, a workload
                has another version in the store than in its record, or is not there.
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            last = _fence(connection, epoch, num_events=len(events), usage=usage)
            if records:
                rows = [_changes(record) for record in records]
                if connection.execute(_UPDATE, rows).rowcount != len(records):
                    message = "a workload is not in the store as it was read; read it again"
                    raise Conflict("workload_changed", message)
            _append(connection, events, last=last)
        return tuple(replace(record, version=record.version + 1) for record in records)

    def get(self, workload_id: str) -> WorkloadRecord:
        """Return the workload of this id.

        Raises:
            NotFound: there is none.
            PlatformError: the store cannot be reached.
        """
        found = self._read(workloads.c.id == workload_id)
        if not found:
            raise NotFound(
                "workload_not_found", f"no workload has the id {workload_id[:100]!r}; `mlaas queue` lists them"
            )
        return found[0]

    def list(
        self,
        *,
        tenant: str | None = None,
        states: Collection[str] = (),
        parent_id: str | None = None,
        limit: int | None = None,
    ) -> Sequence[WorkloadRecord]:
        """Return workloads, newest first.

        Args:
            tenant: whose; None: everybody's.
            states: only these; none given: all.
            parent_id: only indexes of this array; None: all.
            limit: at most so many; None: all.

        Raises:
            PlatformError: the store cannot be reached.
        """
        where = [
            *([workloads.c.tenant == tenant] if tenant is not None else []),
            *([workloads.c.state.in_(states)] if states else []),
            *([workloads.c.parent_id == parent_id] if parent_id is not None else []),
        ]
        return self._read(*where, order=[workloads.c.sequence.desc()], limit=limit)

    def list_submission(self, submission_id: str) -> Sequence[WorkloadRecord]:
        """Return what was submitted under an id, in order: one workload, the indexes of an array, or nothing.

        Raises:
            PlatformError: the store cannot be reached.
        """
        return self._read(_is_submission([submission_id]))

    def active(self) -> Sequence[WorkloadRecord]:
        """Return the workloads that have not ended, in order of submission.

        Raises:
            PlatformError: the store cannot be reached.
        """
        return self._read(workloads.c.state.in_(ACTIVE_STATES))

    def finished(self, *, limit: int) -> Sequence[WorkloadRecord]:
        """Return the workloads that ended last, the latest first.

        Raises:
            PlatformError: the store cannot be reached.
        """
        return self._read(_HAS_ENDED, order=[workloads.c.ended_at.desc(), workloads.c.sequence.desc()], limit=limit)

    def events(self, workload_id: str, *, after: int = 0, limit: int | None = None) -> Sequence[WorkloadEvent]:
        """Return what happened to a workload, or to all indexes of an array, in order.

        Args:
            workload_id: which.
            after: number of the last event that is known.
            limit: the first so many after it; None: all.

        Raises:
            PlatformError: the store cannot be reached.
        """
        event = workload_events.c
        indexes = select(workloads.c.id).where(workloads.c.parent_id == workload_id)
        of_it = or_(event.workload_id == workload_id, event.workload_id.in_(indexes))
        wanted = select(workload_events).where(of_it, event.number > after).order_by(event.number).limit(limit)
        with transaction(self._engine) as connection:
            rows = connection.execute(wanted).all()
        return [WorkloadEvent(**row._mapping) for row in rows]

    def queue_usage(self) -> QueueUsage | None:
        """Return what queues had had at the last write that said so; None: there was none.

        Raises:
            PlatformError: the store cannot be reached.
        """
        leader = scheduler_leader.c
        with transaction(self._engine) as connection:
            row = connection.execute(select(leader.queue_usage, leader.queue_usage_at)).one()
        return None if row.queue_usage is None else QueueUsage(average_share=row.queue_usage, at=row.queue_usage_at)

    def purge(self, *, before: datetime, keep: int, most: int, epoch: int) -> int:
        """Remove workloads that ended before a time, with their events, and queues that were replaced by then.

        What has not ended stays, and so do all indexes of an array as long as one of them has not ended.

        Args:
            before: What ended, or was applied, earlier goes.
            keep: At least so many of the workloads that ended last stay, however old; above 0.
            most: Workloads to remove in this transaction, the oldest first.
            epoch: As `lead` returned it.

        Returns:
            How many were removed; `most` of them: there may be more.

        Raises:
            Conflict: `scheduler_superseded`, another process has become the writer.
            PlatformError: the store cannot be reached.
        """
        column, index, queues = workloads.c, workloads.alias(), queue_documents.c
        newest = select(column.ended_at).where(_HAS_ENDED).order_by(column.ended_at.desc()).offset(keep - 1).limit(1)
        unfinished = select(index.c.parent_id).where(index.c.state.in_(ACTIVE_STATES), index.c.parent_id.is_not(None))
        is_whole = column.parent_id.is_(None) | column.parent_id.not_in(unfinished)
        in_force = select(func.max(queues.number)).scalar_subquery()
        with transaction(self._engine) as connection:
            _fence(connection, epoch)
            connection.execute(delete(queue_documents).where(queues.applied_at < before, queues.number < in_force))
            kept_since = connection.execute(newest).scalar()
            if kept_since is None:
                return 0
            old = select(column.id).where(_HAS_ENDED, column.ended_at < min(before, kept_since), is_whole)
            ids = connection.execute(old.order_by(column.ended_at).limit(most)).scalars().all()
            for some in _chunks(ids):
                connection.execute(delete(workload_events).where(workload_events.c.workload_id.in_(some)))
                connection.execute(delete(workloads).where(column.id.in_(some)))
        return len(ids)

    def put_queues(self, document: dict[str, Any], *, at: datetime, by: str, epoch: int) -> QueuesRecord:
        """Store queues that are in force from now on; the earlier ones stay as history.

        Raises:
            Conflict: `scheduler_superseded`, another process has become the writer.
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            _fence(connection, epoch)
            last = connection.execute(select(func.max(queue_documents.c.number))).scalar_one()
            record = QueuesRecord(number=(last or 0) + 1, document=document, applied_at=at, applied_by=by)
            connection.execute(insert(queue_documents).values(vars(record)))
        return record

    def latest_queues(self) -> QueuesRecord | None:
        """Return the queues in force; None: none were ever applied.

        Raises:
            PlatformError: the store cannot be reached.
        """
        latest = select(queue_documents).order_by(queue_documents.c.number.desc()).limit(1)
        with transaction(self._engine) as connection:
            row = connection.execute(latest).one_or_none()
        return None if row is None else QueuesRecord(**row._mapping)

    def _read(
        self,
        *where: ColumnElement[bool],
        order: Sequence[ColumnElement[Any]] = (workloads.c.sequence,),
        limit: int | None = None,
    ) -> Sequence[WorkloadRecord]:
        wanted = select(workloads).where(*where).order_by(*order).limit(limit)
        with transaction(self._engine) as connection:
            return [WorkloadRecord(**row._mapping) for row in connection.execute(wanted)]


class _Last(NamedTuple):
    """The highest numbers that a transaction has been given."""

    sequence: int
    event: int


_CHANGING: Final = [column.name for column in workloads.c if column.name not in _LASTING | {"version"}]
_UPDATE: Final = (
    update(workloads)
    .where(workloads.c.id == bindparam("is_id"), workloads.c.version == bindparam("is_version"))
    .values({name: bindparam(name) for name in _CHANGING} | {"version": workloads.c.version + 1})
)


def _changes(record: WorkloadRecord) -> dict[str, Any]:
    values = vars(record)
    return {name: values[name] for name in _CHANGING} | {"is_id": record.id, "is_version": record.version}


def _fence(
    connection: Connection,
    epoch: int,
    *,
    num_workloads: int = 0,
    num_events: int = 0,
    usage: QueueUsage | None = None,
) -> _Last:
    """Refuse a writer that was replaced, and number what this one is about to write.

    It is the first statement of each write and a write itself: it holds the row until the end of the transaction, so
    no other writer comes between.
    """
    leader = scheduler_leader.c
    numbered = update(scheduler_leader).where(leader.name == _LEADER, leader.epoch == epoch, leader.epoch > 0)
    numbered = numbered.values(
        last_sequence=leader.last_sequence + num_workloads, last_event=leader.last_event + num_events
    )
    if usage is not None:
        numbered = numbered.values(queue_usage=usage.average_share, queue_usage_at=usage.at)
    row = connection.execute(numbered.returning(leader.last_sequence, leader.last_event)).one_or_none()
    if row is None:
        message = f"another scheduler has taken over from epoch {epoch}; this one has to stop"
        raise Conflict("scheduler_superseded", message)
    return _Last(*row)


def _append(connection: Connection, events: Sequence[WorkloadEvent], *, last: _Last) -> None:
    first = last.event - len(events) + 1
    if events:
        rows = [{**vars(event), "number": number} for number, event in enumerate(events, first)]
        connection.execute(insert(workload_events), rows)


def _is_submission(ids: Sequence[str]) -> ColumnElement[bool]:
    return or_(workloads.c.id.in_(ids), workloads.c.parent_id.in_(ids))


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _MOST_IDS] for start in range(0, len(ids), _MOST_IDS))
