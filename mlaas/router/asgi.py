"""The few words of ASGI that the gateway speaks: whole answers, streams and errors in OpenAI's shape."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from mlaas.errors import MlaasError
from mlaas.providers.base import Failure, FailureKind, FieldError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_RETRY_AFTER_S = 2.0
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return a request header; ASGI gives names in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


async def send_json(send: Send, status: int, body: bytes, extra: Headers | None = None) -> None:
    """Send a whole JSON answer."""
    await send_result(send, status, body, b"application/json", extra or [])


async def send_result(send: Send, status: int, body: bytes, content_type: bytes, extra: Headers) -> None:
    """Send a whole answer."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def start_stream(send: Send, extra: Headers) -> None:
    """Send the head of a stream of server-sent events."""
    await send({"type": "http.response.start", "status": 200, "headers": [*_EVENTS, *extra]})


async def send_failure(send: Send, failure: Failure, body: bytes, extra: Headers | None = None) -> None:
    """Send an error with its status, and `retry-after` when a wait helps."""
    headers = list(extra or ())
    if failure.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(failure.retry_after_s))))
    await send_json(send, failure.status, body, headers)


def encode_error(failure: Failure) -> bytes:
    """Return an error body in OpenAI's shape."""
    error = {"message": failure.message, "type": failure.type, "param": failure.param, "code": failure.code}
    return orjson.dumps({"error": error})


def describe(error: MlaasError) -> Failure:
    """Return one of our own errors as the answer that a caller gets."""
    return Failure(
        kind=FailureKind.REJECTED,
        status=error.status,
        code=error.code,
        message=error.message,
        type=_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "service_unavailable_error"),
        param=error.param if isinstance(error, FieldError) else None,
        retry_after_s=_RETRY_AFTER_S if error.status == 503 and error.retry_after_s is None else error.retry_after_s,
    )
