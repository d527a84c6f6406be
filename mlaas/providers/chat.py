"""OpenAI's chat completions as written by us: what providers with another wire format translate from and to."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

import orjson

from mlaas.providers.base import Call, FieldError, Usage
from mlaas.providers.sse import DONE, encode_event

# Values that ask for what every provider does anyway.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "metadata": ({},),
    "stop": ([],),
    "tools": ([],),
    "temperature": (1,),
    "top_p": (1,),
    "top_logprobs": (0,),
}


def is_neutral(field: str, value: object) -> bool:
    """Whether a value of a chat's field asks for nothing, or for what every provider does anyway."""
    return value is None or value in _NEUTRAL.get(field, ())


def refuse_unknown_fields(name: str, fields: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a request with a field that the provider cannot honour; null and neutral values pass.

    Raises:
        FieldError: names the first such field.
    """
    for field, value in fields.items():
        if field not in known and not is_neutral(field, value):
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


def parse_usage(value: object) -> Usage | None:
    """Return the usage that OpenAI's object states, None when it states none that makes sense.

    `prompt_tokens` includes what was read from and written to the cache, `completion_tokens` includes the reasoning.
    Source: OpenAI API reference, chat completions; openai-python, `CompletionUsage`.
    """
    if not isinstance(value, Mapping):
        return None
    prompt = _count(value.get("prompt_tokens"))
    output = _count(value.get("completion_tokens", 0))
    if prompt is None or output is None:
        return None
    read = min(_detail(value, "prompt_tokens_details", "cached_tokens"), prompt)
    written = min(_detail(value, "prompt_tokens_details", "cache_write_tokens"), prompt - read)
    return Usage(
        input_tokens=prompt - read - written,
        cache_read_tokens=read,
        cache_write_tokens=written,
        output_tokens=output,
        reasoning_tokens=min(_detail(value, "completion_tokens_details", "reasoning_tokens"), output),
    )


def encode_usage(usage: Usage, cost_usd: Decimal | None = None) -> dict[str, Any]:
    """Return OpenAI's usage object, with what the request cost as `cost_usd` where that is given."""
    value: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens + usage.cache_write_1h_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
    if cost_usd is not None:
        value["cost_usd"] = orjson.Fragment(encode_cost(cost_usd))
    return value


def encode_cost(cost_usd: Decimal) -> bytes:
    """Return dollars as a JSON number with every digit."""
    return format(cost_usd, "f").encode()


def is_usage_asked(call: Call) -> bool:
    """Whether the caller of a streamed chat wants to see its usage."""
    options = call.fields.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def encode_completion(
    *,
    id: str,  # noqa: A002  # OpenAI's own field name
    model: str,
    created_s: int,
    message: Mapping[str, Any],
    finish_reason: str,
    usage: Usage | None,
) -> bytes:
    """Return a whole chat completion."""
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    value: dict[str, Any] = {
        "id": id,
        "object": "chat.completion",
        "created": created_s,
        "model": model,
        "choices": [choice],
    }
    if usage is not None:
        value["usage"] = encode_usage(usage)
    return orjson.dumps(value)


class ChunkWriter:
    """Writes the chunks of one streamed chat completion.

    The role goes out with the first delta and not before, so that an upstream which fails before its first token can
    still be replaced by another.

    Attributes:
        num_deltas: pieces of content written.
    """

    def __init__(self, call: Call, *, id: str) -> None:  # noqa: A002  # OpenAI's own field name
        self.num_deltas = 0
        self._head: dict[str, Any] = {
            "id": id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": call.model,
        }
        self._has_usage = is_usage_asked(call)

    def begin(self, *, id: str, model: str | None) -> None:  # noqa: A002  # OpenAI's own field name
        """Take over the upstream's id and model."""
        self._head["id"] = id
        self._head["model"] = model or self._head["model"]

    def delta(self, delta: Mapping[str, Any]) -> bytes:
        """Return a chunk with a piece of the message."""
        return self._write(delta, None)

    def stop(self, finish_reason: str) -> bytes:
        """Return the chunk that says why the message ends."""
        return self._write({}, finish_reason)

    def end(self, usage: Usage | None, cost_usd: Decimal | None) -> bytes:
        """Return the last events: the usage, if the caller asked for it and it is known, and `[DONE]`."""
        if not self._has_usage or usage is None:
            return DONE
        chunk = {**self._head, "choices": [], "usage": encode_usage(usage, cost_usd)}
        return encode_event(orjson.dumps(chunk)) + DONE

    def _write(self, delta: Mapping[str, Any], finish_reason: str | None) -> bytes:
        if not self.num_deltas:
            delta = {"role": "assistant", "content": "", **delta}
        self.num_deltas += 1
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk: dict[str, Any] = {**self._head, "choices": [choice]}
        if self._has_usage:
            chunk["usage"] = None
        return encode_event(orjson.dumps(chunk))


def _detail(value: Mapping[str, Any], group: str, field: str) -> int:
    details = value.get(group)
    return (_count(details.get(field)) or 0) if isinstance(details, Mapping) else 0


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
