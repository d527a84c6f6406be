"""OpenAI's chat completions in front of the gateway: the dialect that all others meet in.

Source: OpenAI API reference, chat completions and errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import orjson

from mlaas.providers.base import Call, Failure, FieldError, Operation
from mlaas.providers.sse import encode_event
from mlaas.router.dialects.base import StreamTranslator
from mlaas.router.dialects.fields import NUMBER, check_types, show_type

SAMPLING_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "stream_options": (dict,),
    "max_tokens": (int,),
    "temperature": NUMBER,
    "top_p": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "n": (int,),
    "seed": (int,),
    "stop": (str, list),
    "user": (str,),
    "logit_bias": (dict,),
}
"""Fields that chats and completions share."""
SAMPLING_LEAST: Final = {"temperature": 0, "top_p": 0, "n": 1}
"""The lowest values of those that have one."""

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    **SAMPLING_TYPES,
    "max_completion_tokens": (int,),
    "tools": (list,),
    "tool_choice": (str, dict),
    "parallel_tool_calls": (bool,),
    "response_format": (dict,),
    "reasoning_effort": (str,),
    "logprobs": (bool,),
    "top_logprobs": (int,),
    "service_tier": (str,),
    "safety_identifier": (str,),
    "prompt_cache_key": (str,),
}
_LEAST: Final = {**SAMPLING_LEAST, "max_tokens": 1, "max_completion_tokens": 1}


class Chat:
    """The dialect of `/v1/chat/completions`."""

    operation = Operation.CHAT

    def check(self, fields: Mapping[str, Any]) -> None:
        """Check the types of the fields that the gateway reads.

        Raises:
            FieldError: a field is missing or has the wrong type.
        """
        check_types(fields, _TYPES, least=_LEAST)
        messages = fields.get("messages")
        if not isinstance(messages, list) or not messages:
            raise FieldError("messages", "'messages' must be an array with at least one message")
        for index, message in enumerate(messages):
            _check_message(message, f"messages[{index}]")

    def to_chat(self, call: Call) -> Call:
        """Return the call itself."""
        return call

    def own_name(self, call: Call, field: str) -> str:
        """Return the field itself."""
        return field

    def from_chat(self, call: Call, answer: bytes) -> bytes:
        """Return the answer itself."""
        return answer

    def stream_from_chat(self, call: Call) -> StreamTranslator:
        """Return a translator that passes everything on."""
        return _Identity()

    def encode_error(self, failure: Failure) -> bytes:
        """Return OpenAI's error object."""
        error = {"message": failure.message, "type": failure.type, "param": failure.param, "code": failure.code}
        return orjson.dumps({"error": error})

    def encode_stream_error(self, failure: Failure) -> bytes:
        """Return an event that holds the error object, on which OpenAI's SDKs raise; no `[DONE]` follows."""
        return encode_event(self.encode_error(failure))


class _Identity:
    def feed(self, events: bytes) -> bytes:
        return events

    def finish(self, tail: bytes, cost_usd: Decimal | None) -> bytes:
        return tail


def _check_message(message: object, place: str) -> None:
    if not isinstance(message, dict):
        raise FieldError(place, f"'{place}' must be an object, not {show_type(message)}")
    if not isinstance(message.get("role"), str):
        raise FieldError(f"{place}.role", f"'{place}.role' must be a string")
    content = message.get("content")
    if content is not None and not isinstance(content, str | list):
        raise FieldError(
            f"{place}.content", f"'{place}.content' must be a string or an array, not {show_type(content)}"
        )
    if not isinstance(message.get("tool_calls") or [], list):
        raise FieldError(f"{place}.tool_calls", f"'{place}.tool_calls' must be an array")
