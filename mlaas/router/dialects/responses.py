"""OpenAI's Responses API in front of the gateway.

Source: OpenAI API reference: responses and their streaming events; openai-python, `openai.types.responses`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from mlaas.providers.base import Call, Failure, FieldError, Operation
from mlaas.providers.responses_wire import encode_response_event
from mlaas.router.asgi import encode_error
from mlaas.router.dialects.base import StreamTranslator
from mlaas.router.dialects.fields import NUMBER, check_types
from mlaas.router.dialects.responses_answer import decode_completion
from mlaas.router.dialects.responses_request import encode_chat
from mlaas.router.dialects.responses_stream import ResponseEvents

# Exact types of decoded JSON, of what the gateway itself reads or translates.
_FIELD_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "input": (str, list),
    "instructions": (str,),
    "previous_response_id": (str,),
    "store": (bool,),
    "background": (bool,),
    "include": (list,),
    "metadata": (dict,),
    "reasoning": (dict,),
    "text": (dict,),
    "tools": (list,),
    "tool_choice": (str, dict),
    "parallel_tool_calls": (bool,),
    "max_output_tokens": (int,),
    "max_tool_calls": (int,),
    "temperature": NUMBER,
    "top_p": NUMBER,
    "top_logprobs": (int,),
    "truncation": (str,),
    "user": (str,),
    "safety_identifier": (str,),
    "prompt_cache_key": (str,),
    "service_tier": (str,),
    "stream_options": (dict,),
}
_LEAST: Final = {"max_output_tokens": 1, "temperature": 0, "top_p": 0}
_OWN_NAMES: Final = {
    "logprobs": "include",
    "max_completion_tokens": "max_output_tokens",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
}


class Responses:
    """The dialect of `/v1/responses`."""

    operation = Operation.RESPONSES

    def check(self, fields: Mapping[str, Any]) -> None:
        """Check the types of the fields that the gateway reads.

        Raises:
            FieldError: a field is missing or has the wrong type.
        """
        check_types(fields, _FIELD_TYPES, least=_LEAST)
        if fields.get("conversation") is not None:
            # It would lie under the gateway's own account, where every tenant's would.
            raise FieldError("conversation", "the gateway keeps no conversations; use 'previous_response_id'")
        if not fields.get("input"):
            raise FieldError("input", "'input' must be a string, or an array with at least one item")

    def to_chat(self, call: Call) -> Call:
        """Return the same request as a chat.

        Raises:
            FieldError: a chat cannot say what a field asks for.
        """
        return encode_chat(call)

    def own_name(self, call: Call, field: str) -> str:
        """Return what the Responses API calls a field of a chat."""
        return _OWN_NAMES.get(field, field)

    def from_chat(self, call: Call, answer: bytes) -> bytes:
        """Return a chat completion as a response.

        Raises:
            ProviderFailed: the completion cannot be read.
        """
        return decode_completion(call, answer)

    def stream_from_chat(self, call: Call) -> StreamTranslator:
        """Return a translator for one streamed chat completion."""
        return ResponseEvents(call)

    def encode_error(self, failure: Failure) -> bytes:
        """Return the body of an error answer."""
        return encode_error(failure)

    def encode_stream_error(self, failure: Failure) -> bytes:
        """Return the `error` event. It names the error twice: in OpenAI's fields, and where its SDKs raise on it."""
        error = orjson.loads(encode_error(failure))["error"]
        event = {"type": "error", "sequence_number": 0, **{name: error[name] for name in ("code", "message", "param")}}
        return encode_response_event({**event, "error": error})


RESPONSES: Final = Responses()
