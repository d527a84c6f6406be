"""Reading a caller's request: body within bounds, JSON, and what every API has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from mlaas.errors import InvalidRequest, RequestTooLarge
from mlaas.providers.base import Call, FieldError
from mlaas.router.asgi import Receive, Scope, header
from mlaas.router.dialects.base import Dialect

MAX_BODY_BYTES: Final = 20_000_000
"""Longer bodies of calls to a model are refused."""
_FORWARDED_HEADERS = (b"anthropic-version", b"anthropic-beta")


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return the request's body.

    Raises:
        RequestTooLarge: it is over `max_bytes`; no more than that is ever held.
        ClientGone: the caller left while sending.
    """
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    pieces: list[bytes] = []
    num_bytes, has_more = 0, True
    while has_more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        piece = message.get("body", b"")
        num_bytes += len(piece)
        if num_bytes > max_bytes:
            raise _too_large(max_bytes)
        pieces.append(piece)
        has_more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class ClientGone(Exception):
    """The caller has closed the connection; there is nobody to answer."""


def parse_call(dialect: Dialect, body: bytes, headers: Mapping[str, str]) -> Call:
    """Return the call that a body describes.

    Args:
        dialect: the API of the route.
        body: what the caller sent.
        headers: those of `forwarded_headers`.

    Raises:
        InvalidRequest: the body is not a JSON object.
        FieldError: a field is missing or has the wrong type.
    """
    try:
        fields: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("invalid_json", f"the request body is not valid JSON: {error}") from error
    if type(fields) is not dict:
        raise InvalidRequest("invalid_json", "the request body must be a JSON object")
    model, is_stream = fields.get("model"), fields.get("stream")
    if not isinstance(model, str) or not model:
        raise FieldError("model", "'model' must be a string that names one of the models of GET /v1/models")
    if is_stream is not None and type(is_stream) is not bool:
        raise FieldError("stream", "'stream' must be a boolean")
    dialect.check(fields)
    return Call(
        operation=dialect.operation,
        model=model,
        is_stream=is_stream is True,
        fields=fields,
        body=body,
        headers=headers,
    )


def forwarded_headers(scope: Scope) -> dict[str, str]:
    """Return the caller's headers that belong to the request itself and go on to a provider that knows them."""
    return {
        str(name, "latin-1"): str(value, "latin-1") for name, value in scope["headers"] if name in _FORWARDED_HEADERS
    }


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge("request_too_large", f"the request body is over {max_bytes:,} bytes; send less")
