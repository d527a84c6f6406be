"""`/api/v1`: what the router's operators and tenants ask it about itself."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from mlaas.auth.types import Principal
from mlaas.errors import PermissionDenied
from mlaas.observability.metrics import CONTENT_TYPE, Metrics
from mlaas.router.calls import RouterCalls
from mlaas.router.choice.demand_board import DemandBoard
from mlaas.router.choice.explain_routes import ExplainRoutes
from mlaas.router.files.routes import caller_of
from mlaas.router.money.usage_api import UsageSource, answer_usage
from mlaas.router.routes import Request, Result, Route, as_json, route


@dataclass(frozen=True, kw_only=True)
class OperatorRoutes:
    """The handlers.

    Attributes:
        router: what is asked about.
        usage: the ledger of usage.
        metrics: those of this replica.
        board: what the other replicas of this machine see of the demand.
    """

    router: RouterCalls
    usage: UsageSource
    metrics: Metrics
    board: DemandBoard

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        explain = ExplainRoutes(
            catalog=lambda: self.router.catalog,
            fleet=lambda: self.router.fleet,
            fitter=lambda: self.router.dispatcher.world.fitter,
        )
        return (
            route("GET", "/api/v1/usage", self._usage),
            route("GET", "/api/v1/demand", self._demand),
            route("GET", "/metrics", self._metrics),
            *explain.routes(),
        )

    async def _usage(self, request: Request) -> Result:
        now = datetime.now(UTC)
        return as_json(await asyncio.to_thread(answer_usage, self.usage, caller_of(request), request.query, now=now))

    async def _demand(self, request: Request) -> Result:
        """Answer what callers want of each local model, at all gateway replicas together; what autoscaling reads."""
        require_admin(caller_of(request))
        own = self.router.demand(now_s=time.monotonic())
        total = await asyncio.to_thread(self.board.total, own, per_replica=self.router.per_replica)
        return as_json({"demand": [asdict(each) for each in total]})

    async def _metrics(self, request: Request) -> Result:
        require_admin(caller_of(request))
        return Result(body=self.metrics.render(), content_type=CONTENT_TYPE.encode())


def require_admin(principal: Principal) -> None:
    """Let only administrators by.

    Raises:
        PermissionDenied: the key is no administrator's.
    """
    if principal.role != "admin":
        message = "this needs an administrator's key; `mlaas keys create --role admin` makes one"
        raise PermissionDenied("admin_only", message)
