"""The gateway's routes that are not calls to a model: who answers which path, and how handlers see a request."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from mlaas.auth.types import Principal
from mlaas.router.asgi import Headers
from mlaas.router.request import MAX_BODY_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request as a handler sees it.

    Attributes:
        principal: who is calling; None on a route that asks for no key.
        path: what the route's pattern has caught, in order.
        query: the query string's parameters; of one that comes twice, the last.
        headers: names in lower case.
        body: as it came.
    """

    principal: Principal | None
    path: tuple[str, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A handler's answer."""

    body: bytes
    status: int = 200
    content_type: bytes = b"application/json"
    headers: Headers = field(default_factory=list)


Handler = Callable[[Request], Awaitable[Result]]


@dataclass(frozen=True, kw_only=True)
class Route:
    """One method of one path.

    Attributes:
        pattern: the whole path; its groups are what the handler gets.
        shown: the path as messages name it.
        is_open: whether it answers without a key.
        max_body_bytes: a longer body is refused.
    """

    method: str
    shown: str
    handler: Handler
    pattern: re.Pattern[str]
    is_open: bool = False
    max_body_bytes: int = MAX_BODY_BYTES


def route(
    method: str, path: str, handler: Handler, *, is_open: bool = False, max_body_bytes: int = MAX_BODY_BYTES
) -> Route:
    """Return the route of a path such as `/v1/models/{id}`.

    A name in braces takes anything without a slash; at the end of a path it takes all that is left.
    """
    pieces = re.split(r"\{\w+\}", path)
    ends_open = path.endswith("}")
    pattern = "([^/]+)".join(map(re.escape, pieces))
    if ends_open:
        pattern = pattern.removesuffix("([^/]+)") + "(.+)"
    return Route(
        method=method,
        shown=path,
        handler=handler,
        pattern=re.compile(pattern),
        is_open=is_open,
        max_body_bytes=max_body_bytes,
    )


def as_json(value: Any, status: int = 200) -> Result:
    """Return a value as a JSON answer."""
    return Result(body=orjson.dumps(value), status=status)
