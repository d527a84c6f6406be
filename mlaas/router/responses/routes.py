"""`/v1/responses/{id}`: look at, cancel and delete what is stored, and list what it was made from.

Source: OpenAI API reference, responses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from mlaas.providers.base import FieldError
from mlaas.router.responses.service import ResponseService
from mlaas.router.routes import Handler, Request, Result, Route, route


class _Action(Protocol):
    def __call__(self, response_id: str, *, tenant: str) -> Awaitable[bytes]: ...


def response_routes(service: ResponseService) -> Sequence[Route]:
    """Return the routes of stored responses."""

    async def list_input_items(request: Request) -> Result:
        assert request.principal is not None
        tenant = request.principal.tenant
        return Result(body=await service.list_input_items(request.path[0], tenant=tenant, query=request.query))

    return (
        route("GET", "/v1/responses/{id}/input_items", list_input_items),
        route("GET", "/v1/responses/{id}", _handle(service.retrieve, check=_refuse_stream)),
        route("DELETE", "/v1/responses/{id}", _handle(service.delete)),
        route("POST", "/v1/responses/{id}/cancel", _handle(service.cancel)),
    )


def _handle(action: _Action, *, check: Callable[[Request], None] | None = None) -> Handler:
    async def handle(request: Request) -> Result:
        assert request.principal is not None
        if check is not None:
            check(request)
        return Result(body=await action(request.path[0], tenant=request.principal.tenant))

    return handle


def _refuse_stream(request: Request) -> None:
    if request.query.get("stream") == "true":
        raise FieldError("stream", "a stored response cannot be streamed again; leave 'stream' out")
