"""`/healthz` and `/v1/models`: what the gateway offers, and whether it is up.

`/v1/models` is a route of both OpenAI and Anthropic; whoever sends Anthropic's version header gets Anthropic's objects.
Source: OpenAI and Anthropic API references, models; types of both Python SDKs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlaas.errors import NotFound, PermissionDenied
from mlaas.providers.vllm import LOCAL
from mlaas.router.catalog import Catalog
from mlaas.router.choice.fleet import Fleet
from mlaas.router.routes import Request, Result, Route, as_json, route
from mlaas.router.virtual.config import PipelineConfig, members


@dataclass(frozen=True, kw_only=True)
class ModelRoutes:
    """The handlers.

    Attributes:
        catalog: returns the catalog in force.
        fleet: returns the fleet in force.
        started_at_s: wall clock, for `created`.
        condition: returns what else `/healthz` tells.
    """

    catalog: Callable[[], Catalog]
    fleet: Callable[[], Fleet]
    started_at_s: float
    condition: Callable[[], Mapping[str, Any]]

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return (
            route("GET", "/healthz", self._health, is_open=True),
            route("GET", "/v1/models", self._list),
            route("GET", "/v1/models/{id}", self._retrieve),
        )

    async def _health(self, request: Request) -> Result:
        now_s = time.monotonic()
        names = self.catalog().names(self.fleet().local_models)
        models = {name: "up" if self._is_up(name, now_s=now_s) else "down" for name in names}
        return as_json({"status": "ok", **self.condition(), "models": models})

    async def _list(self, request: Request) -> Result:
        """Answer the models that the caller's key may use."""
        allowed = request.principal.limits.models if request.principal is not None else None
        names = self.catalog().names(self.fleet().local_models)
        shown = [self._describe(name, request) for name in names if allowed is None or name in allowed]
        if not _is_anthropic(request):
            return as_json({"object": "list", "data": shown})
        ends = [shown[0]["id"], shown[-1]["id"]] if shown else [None, None]
        return as_json({"data": shown, "has_more": False, "first_id": ends[0], "last_id": ends[1]})

    async def _retrieve(self, request: Request) -> Result:
        name = request.path[0]
        allowed = request.principal.limits.models if request.principal is not None else None
        if allowed is not None and name not in allowed:
            raise PermissionDenied("model_not_allowed", f"this API key may not use model {name[:300]!r}")
        return as_json(self._describe(name, request))

    def _is_up(self, name: str, *, now_s: float) -> bool:
        """Tell whether a model can answer; a pipeline needs all of its members, another virtual model one of them."""
        catalog, fleet = self.catalog(), self.fleet()
        virtual = catalog.virtual.get(name)
        if virtual is not None:
            needed = all if isinstance(virtual, PipelineConfig) else any
            return needed(self._is_up(member, now_s=now_s) for member in members(virtual))
        try:
            targets = catalog.resolve(name, local_models=fleet.local_models).targets
        except NotFound:
            return False
        return any(fleet.is_up(target, now_s=now_s) for target in targets)

    def _describe(self, name: str, request: Request) -> dict[str, object]:
        catalog, owner = self.catalog(), "mlaas"
        if name not in catalog.virtual:
            found = catalog.resolve(name, local_models=self.fleet().local_models)
            provider = found.targets[0].provider
            owner = owner if found.is_alias or provider == LOCAL else provider
        if _is_anthropic(request):
            at = datetime.fromtimestamp(int(self.started_at_s), UTC).isoformat()
            return {"type": "model", "id": name, "display_name": name, "created_at": at, "lifecycle": "active"}
        return {"id": name, "object": "model", "created": int(self.started_at_s), "owned_by": owner}


def _is_anthropic(request: Request) -> bool:
    return "anthropic-version" in request.headers
