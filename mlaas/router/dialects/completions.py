"""OpenAI's completions in front of the gateway. For a provider that has none, the prompt becomes a user's message.

Source: OpenAI API reference, completions.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import orjson

from mlaas.providers.base import Call, FieldError, Operation, ProviderFailed
from mlaas.providers.chat import encode_cost, is_usage_asked
from mlaas.providers.failures import unreadable
from mlaas.providers.sse import DONE, encode_event, split_events
from mlaas.router.dialects.base import StreamTranslator
from mlaas.router.dialects.chat import SAMPLING_LEAST, SAMPLING_TYPES, Chat
from mlaas.router.dialects.fields import NUMBER, check_types

DEFAULT_MAX_TOKENS: Final = 16
"""What completions have when nothing else is asked for; chats have no such bound."""

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    **SAMPLING_TYPES,
    "echo": (bool,),
    "suffix": (str,),
    "best_of": (int,),
    "logprobs": NUMBER,
}
# An answer of no tokens is a way to get the log probabilities of a prompt, with `echo`.
_LEAST: Final = {**SAMPLING_LEAST, "max_tokens": 0, "best_of": 1}
_KEPT: Final = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "n",
    "seed",
    "stop",
    "user",
    "logit_bias",
)
_NEUTRAL: Final[dict[str, tuple[object, ...]]] = {"echo": (False,), "suffix": ("",), "best_of": (1,)}
_OWN_NAMES: Final = {"messages": "prompt", "max_completion_tokens": "max_tokens"}
_UNREADABLE: Final = (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, IndexError)


class Completions(Chat):
    """The dialect of `/v1/completions`."""

    operation = Operation.COMPLETION

    def check(self, fields: Mapping[str, Any]) -> None:
        """Check the types of the fields that the gateway reads.

        Raises:
            FieldError: a field is missing or has the wrong type.
        """
        check_types(fields, _TYPES, least=_LEAST)
        if not isinstance(fields.get("prompt"), str | list):
            raise FieldError("prompt", "'prompt' must be a string or an array")

    def to_chat(self, call: Call) -> Call:
        """Return a chat of one message that asks for its usage.

        Raises:
            FieldError: the prompt is not one text, or a chat cannot say what a field asks for.
        """
        fields = call.fields
        known = ("model", "prompt", "stream", "stream_options", "max_tokens", *_KEPT)
        for name, given in fields.items():
            if name not in known and given is not None and given not in _NEUTRAL.get(name, ()):
                raise FieldError(name, f"this model has only chats, which cannot honour {name!r}; leave it out")
        prompt = fields["prompt"]
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        if not isinstance(prompt, str):
            raise FieldError("prompt", "this model has only chats, which take one text as 'prompt'")
        limit = fields.get("max_tokens")
        value: dict[str, Any] = {
            "model": call.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_completion_tokens": DEFAULT_MAX_TOKENS if limit is None else limit,
            **{name: fields[name] for name in _KEPT if fields.get(name) is not None},
        }
        if call.is_stream:
            value |= {"stream": True, "stream_options": {"include_usage": True}}
        return Call(
            operation=Operation.CHAT,
            model=call.model,
            is_stream=call.is_stream,
            fields=value,
            body=orjson.dumps(value),
            headers=call.headers,
        )

    def own_name(self, call: Call, field: str) -> str:
        """Return what completions call a field of a chat."""
        return _OWN_NAMES.get(field, field)

    def from_chat(self, call: Call, answer: bytes) -> bytes:
        """Return a chat completion as a completion.

        Raises:
            ProviderFailed: the chat completion cannot be read.
        """
        try:
            value = orjson.loads(answer)
            value |= _head(value)
            value["choices"] = [_choice(choice, choice["message"].get("content")) for choice in value["choices"]]
        except _UNREADABLE as error:
            raise ProviderFailed(unreadable(call.model, "a chat completion that cannot be read")) from error
        return orjson.dumps(value)

    def stream_from_chat(self, call: Call) -> StreamTranslator:
        """Return a translator for one streamed chat completion."""
        return CompletionChunks(call)


class CompletionChunks:
    """Turns chunks of a chat into chunks of a completion."""

    def __init__(self, call: Call) -> None:
        self._model = call.model
        self._is_usage_asked = is_usage_asked(call)

    def feed(self, events: bytes) -> bytes:
        """Return a chunk for each one that carries text or the reason to stop.

        Raises:
            ProviderFailed: a chunk cannot be read.
        """
        return b"".join(self._translate(payload, None) for payload in split_events(events))

    def finish(self, tail: bytes, cost_usd: Decimal | None) -> bytes:
        """Return the last events: the usage, if the caller asked for it, and `[DONE]`.

        Raises:
            ProviderFailed: an event cannot be read.
        """
        return b"".join(self._translate(payload, cost_usd) for payload in split_events(tail))

    def _translate(self, payload: bytes, cost_usd: Decimal | None) -> bytes:
        if payload == b"[DONE]":
            return DONE
        try:
            value = orjson.loads(payload)
            chunk = _head(value)
            choices = [_choice(choice, (choice.get("delta") or {}).get("content")) for choice in value["choices"]]
        except _UNREADABLE as error:
            raise ProviderFailed(unreadable(self._model, "a chunk of a chat that cannot be read")) from error
        choices = [choice for choice in choices if choice["text"] or choice["finish_reason"]]
        usage = value.pop("usage", None) if self._is_usage_asked else None
        if not choices and not usage:
            return b""
        chunk["choices"] = choices
        if usage:
            chunk["usage"] = (
                usage if cost_usd is None else {**usage, "cost_usd": orjson.Fragment(encode_cost(cost_usd))}
            )
        return encode_event(orjson.dumps(chunk))


def _head(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": value["id"],
        "object": "text_completion",
        "created": value["created"],
        "model": value["model"],
    }


def _choice(choice: Mapping[str, Any], text: str | None) -> dict[str, Any]:
    return {
        "index": choice["index"],
        "text": text or "",
        "logprobs": None,
        "finish_reason": choice.get("finish_reason"),
    }
