"""`/api/v1/workloads`: submit, plan, list, look at, explain, follow, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlaas.api.answers import encode_event, encode_told, encode_workload
from mlaas.api.bodies import MAX_DOCUMENT_BYTES, check_parameters, parse_choice, parse_number, parse_workloads
from mlaas.api.log_files import (
    ATTEMPT_HEADER,
    OFFSET_HEADER,
    OVER_HEADER,
    STATE_HEADER,
    last_lines_offset,
    read_piece,
    wait_for_piece,
)
from mlaas.api.ports import SchedulerPort
from mlaas.api.visibility import tenant_asked_for, visible_tenant
from mlaas.errors import InvalidRequest, MlaasError, NotFound
from mlaas.providers.base import FieldError
from mlaas.router.files.routes import caller_of
from mlaas.router.routes import Request, Result, Route, as_json, route
from mlaas.scheduler.live.lifecycle import State
from mlaas.scheduler.live.service import MOST_EVENTS
from mlaas.scheduler.live.types import lease_id_of
from mlaas.scheduler.on_ray.parts import log_path
from mlaas.scheduler.validation import MOST_WORKERS
from mlaas.store.workloads import WorkloadRecord

_PATH: Final = "/api/v1/workloads"
_MAX_LISTED: Final = 1000
_MAX_WAIT_S: Final = 10
_MAX_LINES: Final = 100_000


@dataclass(frozen=True, kw_only=True)
class WorkloadRoutes:
    """The handlers.

    Attributes:
        scheduler: knows the workloads.
        home: folder of the instance, with the logs of commands.
    """

    scheduler: SchedulerPort
    home: Path

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return (
            route("POST", _PATH, self._submit, max_body_bytes=MAX_DOCUMENT_BYTES),
            route("POST", f"{_PATH}/plan", self._plan, max_body_bytes=MAX_DOCUMENT_BYTES),
            route("GET", _PATH, self._list),
            route("GET", f"{_PATH}/{{id}}/events", self._events),
            route("GET", f"{_PATH}/{{id}}/explain", self._explain),
            route("GET", f"{_PATH}/{{id}}/logs", self._log),
            route("POST", f"{_PATH}/{{id}}/cancel", self._cancel),
            route("GET", f"{_PATH}/{{id}}", self._get),
        )

    async def _submit(self, request: Request) -> Result:
        """Accept workloads; all are read before the first is submitted."""
        check_parameters(request.query, ("submission_id",))
        tenant, submission_id = caller_of(request).tenant, _submission_id(request)
        specs = await asyncio.to_thread(parse_workloads, request.body)
        for number, spec in enumerate(specs, start=1):
            if spec.command is None:
                message = f"workload {number}: it has no command, so nothing would run; give `command`"
                raise InvalidRequest("no_command", message)
        records: list[WorkloadRecord] = []
        for number, spec in enumerate(specs):
            own_id = submission_id if len(specs) == 1 or submission_id is None else f"{submission_id}-{number}"
            try:
                records += await self.scheduler.submit(spec, tenant=tenant, submission_id=own_id)
            except MlaasError as error:
                raise _after(records, error, number=number + 1) from error
        return as_json({"workloads": [encode_workload(record) for record in records]}, status=201)

    async def _plan(self, request: Request) -> Result:
        check_parameters(request.query, ())
        tenant = caller_of(request).tenant
        specs = await asyncio.to_thread(parse_workloads, request.body)
        plans = [await self.scheduler.plan(spec, tenant=tenant) for spec in specs]
        return as_json({"plans": [encode_told(each) for each in plans]})

    async def _list(self, request: Request) -> Result:
        check_parameters(request.query, ("state", "tenant", "limit", "order"))
        found = await self.scheduler.list(
            tenant=tenant_asked_for(caller_of(request), request.query),
            states=_states(request.query.get("state", "")),
            limit=parse_number(request.query, "limit", default=100, least=1, most=_MAX_LISTED),
            in_turn=parse_choice(request.query, "order", choices=("newest", "turn")) == "turn",
        )
        return as_json({"workloads": [encode_workload(record) for record in found]})

    async def _get(self, request: Request) -> Result:
        return as_json(encode_workload(await self._find(request)))

    async def _events(self, request: Request) -> Result:
        check_parameters(request.query, ("after",))
        after = parse_number(request.query, "after", default=0, most=10**9)
        found = await self.scheduler.events(request.path[0], tenant=visible_tenant(caller_of(request)), after=after)
        return as_json({"events": [encode_event(event) for event in found], "has_more": len(found) == MOST_EVENTS})

    async def _explain(self, request: Request) -> Result:
        check_parameters(request.query, ())
        told = await self.scheduler.explain(request.path[0], tenant=visible_tenant(caller_of(request)))
        return as_json(encode_told(told))

    async def _cancel(self, request: Request) -> Result:
        check_parameters(request.query, ())
        ended = await self.scheduler.cancel(request.path[0], tenant=visible_tenant(caller_of(request)))
        return as_json(encode_workload(ended))

    async def _find(self, request: Request) -> WorkloadRecord:
        return await self.scheduler.get(request.path[0], tenant=visible_tenant(caller_of(request)))

    async def _log(self, request: Request) -> Result:
        """Answer a part of a log; the headers say where the next one begins and whether there is more to come."""
        query = request.query
        check_parameters(query, ("attempt", "rank", "offset", "tail", "wait_s"))
        record = await self._find(request)
        if record.array_index is None and "array" in record.spec:
            message = (
                f"{record.id} is an array: each index has a log, such as {record.id}-INDEX ({record.spec['array']})"
            )
            raise NotFound("no_log", message)
        if record.spec.get("command") is None:
            holder = f"; look at {record.holder}" if record.holder else ""
            raise NotFound("no_log", f"{record.id} has no command, so its output is that of who holds it{holder}")
        attempt = parse_number(query, "attempt", default=record.attempt, most=10**6) or record.attempt
        rank = parse_number(query, "rank", default=0, most=MOST_WORKERS)
        path = log_path(self.home, lease_id_of(record.id, attempt), rank)
        offset = parse_number(query, "offset", default=0, most=2**50)
        if num_lines := parse_number(query, "tail", default=0, most=_MAX_LINES):
            offset = await asyncio.to_thread(last_lines_offset, path, num_lines=num_lines)
        wait_s = parse_number(query, "wait_s", default=0, most=_MAX_WAIT_S)
        # What is asked before the file is read: an attempt that was over then has printed all that it ever will.
        has_ended = attempt < record.attempt or not State(record.state).holds_gang
        text = await (
            read_piece(path, offset=offset) if has_ended else wait_for_piece(path, offset=offset, wait_s=wait_s)
        )
        headers = {
            ATTEMPT_HEADER: str(attempt),
            OFFSET_HEADER: str(offset + len(text)),
            OVER_HEADER: "true" if has_ended and not text else "false",
            STATE_HEADER: record.state,
        }
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        return Result(body=text, content_type=b"text/plain; charset=utf-8", headers=pairs)


def _after(accepted: Sequence[WorkloadRecord], error: MlaasError, *, number: int) -> MlaasError:
    """Return why a list was not accepted to its end, with what was accepted before."""
    if not accepted:
        return error
    ids = ", ".join(dict.fromkeys(record.parent_id or record.id for record in accepted))
    message = f"workload {number}: {error.message}; accepted before it: {ids}"
    return type(error)(error.code, message, retry_after_s=error.retry_after_s)


def _submission_id(request: Request) -> str | None:
    """Return the id under which a submission counts once: a header, or a parameter."""
    given = {request.headers.get("idempotency-key"), request.query.get("submission_id")} - {None, ""}
    if len(given) > 1:
        raise FieldError("submission_id", "'submission_id' and the header idempotency-key differ; send one of them")
    return given.pop() if given else None


def _states(text: str) -> tuple[State, ...]:
    try:
        return tuple(State(name.strip()) for name in text.split(",") if name.strip())
    except ValueError as error:
        raise FieldError("state", f"'state' must be of {', '.join(State)}: {error}") from error
