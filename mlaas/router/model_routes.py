"""`/healthz` and `/v1/models`: what the gateway offers, and whether it is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlaas.providers.vllm import LOCAL
from mlaas.router.catalog import Catalog
from mlaas.router.fleet import Fleet
from mlaas.router.routes import Request, Result, Route, as_json, route


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
        fleet, catalog, now_s = self.fleet(), self.catalog(), time.monotonic()
        models = {}
        for name in catalog.names(fleet.local_models):
            targets = catalog.resolve(name, local_models=fleet.local_models).targets
            models[name] = "up" if any(fleet.is_up(target, now_s=now_s) for target in targets) else "down"
        return as_json({"status": "ok", **self.condition(), "models": models})

    async def _list(self, request: Request) -> Result:
        names = self.catalog().names(self.fleet().local_models)
        return as_json({"object": "list", "data": [self._describe(name) for name in names]})

    async def _retrieve(self, request: Request) -> Result:
        return as_json(self._describe(request.path[0]))

    def _describe(self, name: str) -> dict[str, object]:
        route_ = self.catalog().resolve(name, local_models=self.fleet().local_models)
        provider = route_.targets[0].provider
        owner = "mlaas" if route_.is_alias or provider == LOCAL else provider
        return {"id": name, "object": "model", "created": int(self.started_at_s), "owned_by": owner}
