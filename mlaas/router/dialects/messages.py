"""Anthropic's Messages API in front of the gateway.

Source: Anthropic API reference: messages, count tokens, errors, streaming; types of the Python SDK.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from mlaas.providers.base import Call, Failure, FieldError, Operation
from mlaas.router.dialects.base import StreamTranslator
from mlaas.router.dialects.fields import NUMBER, check_types
from mlaas.router.dialects.messages_answer import decode_completion
from mlaas.router.dialects.messages_request import encode_chat
from mlaas.router.dialects.messages_stream import MessageEvents, encode_event

_ERROR_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "max_tokens": (int,),
    "system": (str, list),
    "temperature": NUMBER,
    "top_p": NUMBER,
    "top_k": (int,),
    "stop_sequences": (list,),
    "tools": (list,),
    "tool_choice": (dict,),
    "thinking": (dict,),
    "output_config": (dict,),
    "metadata": (dict,),
    "service_tier": (str,),
}
# An answer of no tokens fills Anthropic's cache.
_LEAST: Final = {"max_tokens": 0, "temperature": 0, "top_p": 0}
_OWN_NAMES: Final = {
    "max_completion_tokens": "max_tokens",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "response_format": "output_config.format",
    "stop": "stop_sequences",
    "user": "metadata.user_id",
}


class Messages:
    """The dialect of `/v1/messages`."""

    operation = Operation.MESSAGES

    def check(self, fields: Mapping[str, Any]) -> None:
        """Check the types of the fields that the gateway reads.

        Raises:
            FieldError: a field is missing or has the wrong type.
        """
        if fields.get("max_tokens") is None:
            raise FieldError("max_tokens", "'max_tokens' is missing; say how many tokens the answer may have")
        _check_prompt(fields)

    def to_chat(self, call: Call) -> Call:
        """Return the same request as a chat.

        Raises:
            FieldError: a chat cannot say what a field asks for.
        """
        return encode_chat(call)

    def own_name(self, call: Call, field: str) -> str:
        """Return what the Messages API calls a field of a chat."""
        if field == "reasoning_effort":
            return "output_config.effort" if (call.fields.get("output_config") or {}).get("effort") else "thinking"
        return _OWN_NAMES.get(field, field)

    def from_chat(self, call: Call, answer: bytes) -> bytes:
        """Return a chat completion as a message.

        Raises:
            ProviderFailed: the completion cannot be read.
        """
        return decode_completion(call, answer)

    def stream_from_chat(self, call: Call) -> StreamTranslator:
        """Return a translator for one streamed chat completion."""
        return MessageEvents(call)

    def encode_error(self, failure: Failure) -> bytes:
        """Return the body of an error answer; the SDKs show our code as `error_code`, and `details` as they are."""
        return orjson.dumps(_describe(failure))

    def encode_stream_error(self, failure: Failure) -> bytes:
        """Return the `error` event, on which the SDKs raise."""
        return encode_event(_describe(failure))


class CountTokens(Messages):
    """The dialect of `/v1/messages/count_tokens`: Anthropic counts, for other models the gateway estimates."""

    operation = Operation.COUNT_TOKENS

    def check(self, fields: Mapping[str, Any]) -> None:
        """Check the types of the fields that the gateway reads.

        Raises:
            FieldError: a field is missing or has the wrong type.
        """
        _check_prompt(fields)


def _describe(failure: Failure) -> dict[str, Any]:
    kind = _ERROR_TYPES.get(failure.status, "invalid_request_error" if failure.status < 500 else "api_error")
    details = {"error_code": failure.code}
    if failure.param is not None:
        details["param"] = failure.param
    error = {"type": kind, "message": failure.message, "details": details}
    return {"type": "error", "error": error, "request_id": None}


def _check_prompt(fields: Mapping[str, Any]) -> None:
    check_types(fields, _TYPES, least=_LEAST)
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise FieldError("messages", "'messages' must be an array with at least one message")
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise FieldError(place, f"'{place}' must be an object with a role")
        if not isinstance(message.get("content"), str | list):
            raise FieldError(f"{place}.content", f"'{place}.content' must be a string or an array of blocks")
