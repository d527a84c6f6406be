"""OpenAI's chat completions as written by us: what providers with another wire format translate from and to."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

import orjson

from mlaas.providers.base import Call, FieldError
from mlaas.providers.sse import DONE, encode_event

# Values that ask for what every provider does anyway.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "store": (False,),
    "service_tier": ("auto",),
    "stop": ([],),
    "tools": ([],),
    "top_p": (1,),
}


def refuse_unknown_fields(name: str, fields: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a request with a field that the provider cannot honour; null and neutral values pass.

    Raises:
        FieldError: names the first such field.
    """
    for field, value in fields.items():
        if field not in known and value is not None and value not in _NEUTRAL.get(field, ()):
            raise FieldError(field, f"{name} cannot honour {field!r}; leave it out or choose another model")


def flatten_text(name: str, message: Mapping[str, Any], place: str) -> str:
    """Return the text of a message that holds nothing but text.

    Raises:
        FieldError: the message holds something else; names the place.
    """
    for field, value in message.items():
        if field not in ("role", "content") and value:
            raise FieldError(f"{place}.{field}", f"{name} cannot honour '{place}.{field}'")
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts = []
    for index, part in enumerate(content or ()):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise FieldError(f"{place}.content[{index}]", f"{name} takes only text in '{place}.content[{index}]'")
        texts.append(part["text"])
    return "".join(texts)


def encode_completion(
    *,
    id: str,  # noqa: A002  # OpenAI's own field name
    model: str,
    created_s: int,
    message: Mapping[str, Any],
    finish_reason: str,
    usage: Mapping[str, Any],
) -> bytes:
    """Return a whole chat completion."""
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    return orjson.dumps(
        {
            "id": id,
            "object": "chat.completion",
            "created": created_s,
            "model": model,
            "choices": [choice],
            "usage": usage,
        }
    )


class ChunkWriter:
    """Writes the chunks of one streamed chat completion.

    The role goes out with the first delta and not before, so that an upstream which fails before its first token can
    still be replaced by another.
    """

    def __init__(self, call: Call, *, id: str) -> None:  # noqa: A002  # OpenAI's own field name
        self._head: dict[str, Any] = {
            "id": id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": call.model,
        }
        self._has_usage = bool((call.fields.get("stream_options") or {}).get("include_usage"))
        self._is_first = True

    def begin(self, *, id: str, model: str | None) -> None:  # noqa: A002  # OpenAI's own field name
        """Take over the upstream's id and model."""
        self._head["id"] = id
        self._head["model"] = model or self._head["model"]

    def delta(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
        """Return a chunk with a piece of the message."""
        if self._is_first:
            self._is_first = False
            delta = {"role": "assistant", "content": "", **delta}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk: dict[str, Any] = {**self._head, "choices": [choice]}
        if self._has_usage:
            chunk["usage"] = None
        return encode_event(orjson.dumps(chunk))

    def end(self, finish_reason: str, usage: Mapping[str, Any]) -> bytes:
        """Return the last chunks: the reason, the usage if the caller asked for it, and `[DONE]`."""
        last = self.delta({}, finish_reason)
        if self._has_usage:
            last += encode_event(orjson.dumps({**self._head, "choices": [], "usage": usage}))
        return last + DONE
