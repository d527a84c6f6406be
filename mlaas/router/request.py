"""Reading a caller's request: body within bounds, JSON, and the types of the fields that routing depends on."""

from __future__ import annotations

from typing import Any, Final

import orjson

from mlaas.errors import InvalidRequest, RequestTooLarge
from mlaas.providers.base import Call, FieldError, Operation
from mlaas.router.asgi import Receive, Scope, header

MAX_BODY_BYTES: Final = 20_000_000
"""Longer bodies are refused."""

_NUMBER = (int, float)
# Exact types of decoded JSON. Ranges and everything deeper is for the upstream, which knows its own limits.
_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "stream": (bool,),
    "stream_options": (dict,),
    "max_tokens": (int,),
    "max_completion_tokens": (int,),
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
    "n": (int,),
    "seed": (int,),
    "stop": (str, list),
    "user": (str,),
    "tools": (list,),
    "tool_choice": (str, dict),
    "response_format": (dict,),
    "logit_bias": (dict,),
}
_NAMES = {str: "a string", bool: "a boolean", dict: "an object", int: "an integer", float: "a number", list: "an array"}


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the request's body.

    Raises:
        RequestTooLarge: it is over `MAX_BODY_BYTES`; no more than that is ever held.
        ClientGone: the caller left while sending.
    """
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_large()
    pieces: list[bytes] = []
    num_bytes, has_more = 0, True
    while has_more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        piece = message.get("body", b"")
        num_bytes += len(piece)
        if num_bytes > MAX_BODY_BYTES:
            raise _too_large()
        pieces.append(piece)
        has_more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class ClientGone(Exception):
    """The caller has closed the connection; there is nobody to answer."""


def parse_call(operation: Operation, body: bytes) -> Call:
    """Return the call that a body describes.

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
    for name, value in fields.items():
        allowed = _FIELD_TYPES.get(name)
        if allowed is not None and type(value) not in allowed and (value is not None or name == "model"):
            raise FieldError(name, f"{name!r} must be {_name_types(allowed)}, not {_show(value)}")
    if not fields.get("model"):
        raise FieldError("model", "'model' is missing; name one that GET /v1/models lists")
    if operation is Operation.CHAT:
        _check_messages(fields.get("messages"))
    elif not isinstance(fields.get("prompt"), str | list):
        raise FieldError("prompt", "'prompt' must be a string or an array")
    return Call(
        operation=operation,
        model=fields["model"],
        is_stream=fields.get("stream") is True,
        fields=fields,
        body=body,
    )


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise FieldError("messages", "'messages' must be an array with at least one message")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise FieldError(f"messages[{index}]", f"'messages[{index}]' must be an object, not {_show(message)}")
        if not isinstance(message.get("role"), str):
            raise FieldError(f"messages[{index}].role", f"'messages[{index}].role' must be a string")
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            raise FieldError(
                f"messages[{index}].content",
                f"'messages[{index}].content' must be a string or an array, not {_show(content)}",
            )


def _name_types(allowed: tuple[type, ...]) -> str:
    return "a number" if allowed is _NUMBER else " or ".join(_NAMES[each] for each in allowed)


def _show(value: object) -> str:
    """Name a value's type; the value itself may be a part of a prompt."""
    return "null" if value is None else _NAMES[type(value)]


def _too_large() -> RequestTooLarge:
    return RequestTooLarge("request_too_large", f"the request body is over {MAX_BODY_BYTES:,} bytes; send less")
