"""`/api/v1/cluster` and `/api/v1/queues`: the cluster as it is used, and how it is divided."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mlaas.api.answers import visible_cluster
from mlaas.api.bodies import MAX_DOCUMENT_BYTES, check_parameters, parse_queues_body, parse_switch
from mlaas.api.ports import QueueSource, SchedulerPort
from mlaas.api.visibility import visible_tenant
from mlaas.router.files.routes import caller_of
from mlaas.router.operator_routes import require_admin
from mlaas.router.routes import Request, Result, Route, as_json, route
from mlaas.scheduler.requests.queues import QueuesDocument
from mlaas.scheduler.requests.queues_file import encode_queues


@dataclass(frozen=True, kw_only=True)
class ClusterRoutes:
    """The handlers.

    Attributes:
        scheduler: knows the cluster.
        queues: keeps what was applied.
    """

    scheduler: SchedulerPort
    queues: QueueSource

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return (
            route("GET", "/api/v1/cluster", self._cluster),
            route("GET", "/api/v1/queues", self._queues),
            route("PUT", "/api/v1/queues", self._apply_queues, max_body_bytes=MAX_DOCUMENT_BYTES),
        )

    async def _cluster(self, request: Request) -> Result:
        check_parameters(request.query, ())
        view = await self.scheduler.top()
        return as_json(visible_cluster(view, tenant=visible_tenant(caller_of(request))))

    async def _queues(self, request: Request) -> Result:
        require_admin(caller_of(request))
        check_parameters(request.query, ())
        record = await asyncio.to_thread(self.queues.latest_queues)
        if record is None:
            document = encode_queues(QueuesDocument())
            return as_json({"number": 0, "applied_at": None, "applied_by": None, "document": document})
        return as_json(record)

    async def _apply_queues(self, request: Request) -> Result:
        """Put queues in force and answer what that changed; with `dry_run=true`, what it would change."""
        caller = caller_of(request)
        require_admin(caller)
        check_parameters(request.query, ("dry_run",))
        is_dry_run = parse_switch(request.query, "dry_run")
        document = await asyncio.to_thread(parse_queues_body, request.body)
        by = f"key {caller.key_id} of {caller.tenant}"
        applied = await self.scheduler.apply_queues(document, is_dry_run=is_dry_run, by=by)
        return as_json({"changes": applied.changes, "warnings": applied.warnings, "is_dry_run": is_dry_run})
