"""From a spec to workloads in the store and in memory."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlaas.errors import AdmissionError, Conflict
from mlaas.scheduler.live.arrays import index_document, submitted_document
from mlaas.scheduler.live.entries import QUEUED, Live, waiting_reason
from mlaas.scheduler.live.lifecycle import State
from mlaas.scheduler.requests.admission import admit, to_workload
from mlaas.scheduler.requests.document import decode_spec, encode_spec
from mlaas.scheduler.requests.queues import QueuesDocument
from mlaas.scheduler.validation import check_dependencies
from mlaas.store.workloads import WorkloadEvent, WorkloadRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlaas.scheduler.live.roster import Roster
    from mlaas.scheduler.live.writer import Writer
    from mlaas.scheduler.requests.spec import WorkloadSpec
    from mlaas.scheduler.types import Workload
    from mlaas.store.workloads import WorkloadRepository


@dataclass(frozen=True, slots=True)
class Dependencies:
    """How those stand that a workload waits for."""

    graph: dict[str, tuple[str, ...]]
    """Each that exists; for an array, its indexes."""
    ended: dict[str, str]
    """State of those that have ended."""
    open_ids: frozenset[str]
    """Those that have not."""

    @property
    def failed(self) -> str:
        """Those that will not succeed any more, for people; empty when there are none."""
        return ", ".join(f"{name} ({state})" for name, state in self.ended.items() if state != State.SUCCEEDED)


class Submissions:
    """Accepts workloads: all of a submission or nothing, and the same one only once."""

    def __init__(self, roster: Roster, writer: Writer, store: WorkloadRepository) -> None:
        self._roster = roster
        self._writer = writer
        self._store = store
        self.queues = QueuesDocument()
        """In force now."""

    async def submit(
        self, spec: WorkloadSpec, *, tenant: str, submission_id: str | None = None
    ) -> Sequence[WorkloadRecord]:
        """Accept a spec and return its workloads as the store has them.

        Raises:
            AdmissionError: it could never run, or depends on what is unknown or has failed.
            Conflict: the id is taken by something else.
            PlatformError: the store does not answer; nothing was accepted.
        """
        submission_id = submission_id or _new_id()
        refusal: AdmissionError | None = None
        if not self._roster.submission(submission_id):
            try:
                if stored := await self._accept(spec, tenant=tenant, submission_id=submission_id):
                    return stored
            except AdmissionError as error:
                refusal = error
        found = await asyncio.to_thread(self._store.list_submission, submission_id)
        if refusal is not None and not found:
            raise refusal
        _check_same(found, spec, tenant=tenant, submission_id=submission_id)
        await self.adopt_strays(found)
        return found

    async def _accept(self, spec: WorkloadSpec, *, tenant: str, submission_id: str) -> Sequence[WorkloadRecord]:
        """Take in what was not submitted before; nothing is returned when its id is taken.

        Raises:
            AdmissionError: it could never run, or depends on what is unknown or has failed.
            PlatformError: the store does not answer; nothing was accepted.
        """
        records = self._records(spec, tenant=tenant, submission_id=submission_id)
        dependencies = await self.resolve(spec.depends_on, tenant=tenant)
        own = dict.fromkeys((submission_id, *(record.id for record in records)), spec.depends_on)
        check_dependencies({**dependencies.graph, **own}, of=(submission_id,), ended=dependencies.ended)
        return await self._insert(records, spec, dependencies.open_ids)

    async def resolve(self, depends_on: Sequence[str], *, tenant: str) -> Dependencies:
        """Look up dependencies. Another tenant's do not exist.

        Raises:
            PlatformError: the store does not answer.
        """
        graph: dict[str, tuple[str, ...]] = {}
        ended: dict[str, str] = {}
        for dependency in depends_on:
            live = self._roster.lives.get(dependency)
            found: Sequence[WorkloadRecord] = [live.record] if live is not None else []
            if not found:
                found = await asyncio.to_thread(self._store.list_submission, dependency)
            mine = [record for record in found if record.tenant == tenant]
            if mine and mine[0].id != dependency:
                graph[dependency] = tuple(record.id for record in mine)
            for record in mine:
                graph[record.id] = ()
                state = self._state(record)
                if state.is_final:
                    ended[record.id] = state.value
        arrays = {name for name, indexes in graph.items() if indexes}
        return Dependencies(graph, ended, frozenset(graph.keys() - ended.keys() - arrays))

    def preview(self, spec: WorkloadSpec, *, tenant: str) -> list[Workload]:
        """Return the workloads that a spec would make.

        Raises:
            AdmissionError: it could never run, or is not allowed.
        """
        records = self._records(spec, tenant=tenant, submission_id=_new_id())
        return [workload_of(record, spec) for record in records]

    async def adopt_strays(self, records: Sequence[WorkloadRecord]) -> None:
        """Take up workloads that the store has and memory has not: the answer to their write was lost.

        Raises:
            PlatformError: the store does not answer.
        """
        for record in records:
            if record.state == State.PENDING and record.attempt == 0 and not self._is_known(record):
                spec = decode_spec(record.spec)
                dependencies = await self.resolve(spec.depends_on, tenant=record.tenant)
                if not self._is_known(record):
                    self._adopt([record], spec, dependencies.open_ids)

    def _records(self, spec: WorkloadSpec, *, tenant: str, submission_id: str) -> list[WorkloadRecord]:
        now = self._roster.clock.now()
        workload = admit(
            spec, workload_id=submission_id, tenant=tenant, submitted_s=now.timestamp(),
            cluster=self._roster.ledger.cluster, queues=self.queues,
        )  # fmt: skip

        document = encode_spec(spec)

        def record(index: int | None) -> WorkloadRecord:
            return WorkloadRecord(
                id=submission_id if index is None else f"{submission_id}-{index}",
                parent_id=None if index is None else submission_id,
                array_index=index,
                tenant=tenant,
                queue=workload.queue,
                kind=spec.kind.value,
                name=spec.name,
                spec=document if index is None else index_document(document, index),
                priority=workload.priority,
                preempts=workload.preempts,
                state=State.PENDING.value,
                reason=QUEUED,
                submitted_at=now,
                sequence=0,
            )

        return [record(index) for index in spec.array or (None,)]

    async def _insert(
        self, records: Sequence[WorkloadRecord], spec: WorkloadSpec, open_ids: frozenset[str]
    ) -> Sequence[WorkloadRecord]:
        """Store new workloads and take them in; nothing is returned when their id is taken."""
        reason = waiting_reason(open_ids) if open_ids else QUEUED
        records = [replace(record, reason=reason) for record in records]
        events = [_submitted(record) for record in records]
        try:
            return await self._writer.insert(records, events, then=lambda stored: self._adopt(stored, spec, open_ids))
        except Conflict as error:
            if error.code != "workload_exists":
                raise
            return []

    def _adopt(self, stored: Sequence[WorkloadRecord], spec: WorkloadSpec, open_ids: Iterable[str]) -> None:
        """Take new workloads into memory. A dependency may have ended while they were written."""
        for record in stored:
            live = Live(record=record, committed=record, spec=spec, workload=workload_of(record, spec))
            self._roster.adopt(live)
            self._roster.wait_for(live, open_ids)

    def _is_known(self, record: WorkloadRecord) -> bool:
        return record.id in self._roster.lives or record.id in self._roster.ended

    def _state(self, record: WorkloadRecord) -> State:
        live = self._roster.lives.get(record.id)
        return State(record.state) if live is None else live.state


def workload_of(record: WorkloadRecord, spec: WorkloadSpec) -> Workload:
    """Return a workload as decisions know it."""
    return to_workload(
        spec, workload_id=record.id, tenant=record.tenant, queue=record.queue, priority=record.priority,
        preempts=record.preempts, submitted_s=record.submitted_at.timestamp(),
    )  # fmt: skip


def _new_id() -> str:
    return f"w-{secrets.token_hex(6)}"


def _check_same(found: Sequence[WorkloadRecord], spec: WorkloadSpec, *, tenant: str, submission_id: str) -> None:
    """Refuse an id that something else than the same submission has."""
    if not found or found[0].tenant != tenant or submitted_document(found) != encode_spec(spec):
        message = f"{submission_id} is taken by another workload; choose another id, or submit the same again"
        raise Conflict("workload_exists", message)


def _submitted(record: WorkloadRecord) -> WorkloadEvent:
    text = f"accepted from {record.tenant} for queue {record.queue}: {record.reason}"
    return WorkloadEvent(workload_id=record.id, at=record.submitted_at, kind="submitted", text=text)
