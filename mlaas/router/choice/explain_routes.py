"""`/api/v1/route/explain`: what would become of a request, by the live state of this gateway replica."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from mlaas.errors import InvalidRequest, PermissionDenied
from mlaas.providers.base import Operation
from mlaas.router.catalog import Catalog
from mlaas.router.choice.explain import explain_call
from mlaas.router.choice.fleet import Fleet
from mlaas.router.dialects.build import DIALECTS
from mlaas.router.fit import Fitter
from mlaas.router.request import parse_call
from mlaas.router.routes import Request, Result, Route, as_json, route

_PATH = "/api/v1/route/explain"


@dataclass(frozen=True, kw_only=True)
class ExplainRoutes:
    """The handlers. The parameter `operation` names the API that the request is of; a chat without it.

    Attributes:
        catalog: returns the catalog in force.
        fleet: returns the fleet in force.
        fitter: returns what fits requests to targets.
    """

    catalog: Callable[[], Catalog]
    fleet: Callable[[], Fleet]
    fitter: Callable[[], Fitter]

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return (route("GET", _PATH, self._of_model), route("POST", _PATH, self._of_request))

    async def _of_model(self, request: Request) -> Result:
        """Explain a short chat with the model that the parameter `model` names."""
        return self._explain(request, example_chat(request.query.get("model", "")))

    async def _of_request(self, request: Request) -> Result:
        return self._explain(request, request.body)

    def _explain(self, request: Request, body: bytes) -> Result:
        name = request.query.get("operation", Operation.CHAT.value)
        if name not in list(Operation):
            names = ", ".join(Operation)
            raise InvalidRequest("invalid_operation", f"{name[:100]!r} is no operation; there are: {names}")
        call = parse_call(DIALECTS[Operation(name)], body, {})
        allowed = request.principal.limits.models if request.principal is not None else None
        if allowed is not None and call.model not in allowed:
            raise PermissionDenied("model_not_allowed", f"this API key may not use model {call.model[:300]!r}")
        now_s = time.monotonic()
        told = explain_call(call, catalog=self.catalog(), fleet=self.fleet(), fitter=self.fitter(), now_s=now_s)
        return as_json(told)


def example_chat(model: str) -> bytes:
    """Return a short chat, for when only the model matters."""
    return orjson.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
