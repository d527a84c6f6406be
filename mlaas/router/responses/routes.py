"""`/v1/responses/{id}`: look at, cancel and delete what is stored, and list what it was made from.

Source: OpenAI API reference, responses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

import orjson

from mlaas.providers.base import FieldError
from mlaas.router.responses.replay import replay_response
from mlaas.router.responses.service import ResponseService
from mlaas.router.routes import Handler, Request, Result, Route, route


class _Action(Protocol):
    def __call__(self, response_id: str, *, tenant: str) -> Awaitable[bytes]: ...


def response_routes(service: ResponseService) -> Sequence[Route]:
    """Return the routes of stored responses."""

    async def retrieve(request: Request) -> Result:
        assert request.principal is not None
        body = await service.retrieve(request.path[0], tenant=request.principal.tenant)
        if request.query.get("stream") != "true":
            return Result(body=body)
        events = replay_response(orjson.loads(body), after=_read_after(request.query.get("starting_after")))
        return Result(body=events, content_type=b"text/event-stream; charset=utf-8")

    async def list_input_items(request: Request) -> Result:
        assert request.principal is not None
        tenant = request.principal.tenant
        return Result(body=await service.list_input_items(request.path[0], tenant=tenant, query=request.query))

    return (
        route("GET", "/v1/responses/{id}/input_items", list_input_items),
        route("GET", "/v1/responses/{id}", retrieve),
        route("DELETE", "/v1/responses/{id}", _handle(service.delete)),
        route("POST", "/v1/responses/{id}/cancel", _handle(service.cancel)),
    )


def _handle(action: _Action) -> Handler:
    async def handle(request: Request) -> Result:
        assert request.principal is not None
        return Result(body=await action(request.path[0], tenant=request.principal.tenant))

    return handle


def _read_after(text: str | None) -> int:
    if text is None:
        return -1
    if not (text.isascii() and text.isdigit()):
        raise FieldError("starting_after", "'starting_after' must be the number of an event")
    return int(text)
