"""Perplexity, through its agent API: chat completions on this side, a Responses-like format on the wire.

Text in, text out. Its own chat completions ended in September 2026, and the agent API answers 400 to a field that it
does not know. Source: Perplexity's Python SDK, types of `responses.create`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

from mlaas.providers.base import Call, Failure, FieldError, Operation, ProviderFailed, StreamDecoder, WireRequest
from mlaas.providers.chat import ChunkWriter, encode_completion, flatten_text, refuse_unknown_fields
from mlaas.providers.failures import cut_short, parse_failure, unreadable
from mlaas.providers.sse import EventBuffer, split_events

_SYSTEM_ROLES = ("system", "developer")
_FIELDS = (
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "reasoning_effort",
    "response_format",
)


class Perplexity:
    """Perplexity's agent API.

    Attributes:
        name: the provider's name in `provider/model`.
        base_url: URL that ends where `/agent` begins.
        operations: chat only.
    """

    default_url = "https://api.perplexity.ai/v1"
    operations = frozenset({Operation.CHAT})

    def __init__(self, *, name: str, base_url: str, api_key: str | None) -> None:
        self.name = name
        self.base_url = base_url.rstrip("/")
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"

    def encode_request(self, call: Call, *, model: str) -> WireRequest:
        """Return the agent request of a chat.

        Raises:
            FieldError: the agent API has no such field, or a message holds more than text.
        """
        fields = call.fields
        refuse_unknown_fields(self.name, fields, _FIELDS)
        instructions, items = [], []
        for index, message in enumerate(fields["messages"]):
            place = f"messages[{index}]"
            text = flatten_text(self.name, message, place)
            if message["role"] in _SYSTEM_ROLES:
                instructions.append(text)
            elif message["role"] in ("user", "assistant"):
                items.append({"type": "message", "role": message["role"], "content": text})
            else:
                raise FieldError(f"{place}.role", f"{self.name} cannot take a message of role {message['role'][:50]!r}")
        body: dict[str, Any] = {"model": model, "input": items, "stream": call.is_stream}
        if instructions:
            body["instructions"] = "\n\n".join(instructions)
        max_tokens = fields.get("max_completion_tokens") or fields.get("max_tokens")
        if max_tokens is not None:
            body["max_output_tokens"] = max_tokens
        if fields.get("reasoning_effort") is not None:
            body["reasoning"] = {"effort": fields["reasoning_effort"]}
        if fields.get("response_format") is not None:
            body["response_format"] = fields["response_format"]
        return WireRequest(path="/agent", headers=self._headers, body=orjson.dumps(body))

    def decode_answer(self, call: Call, body: bytes) -> bytes:
        """Return the agent's answer as a chat completion.

        Raises:
            ProviderFailed: the answer cannot be read, or reports a failure.
        """
        try:
            answer = orjson.loads(body)
            if answer.get("error"):
                raise ProviderFailed(parse_failure(self.name, 500, {}, body))
            return encode_completion(
                id=f"chatcmpl-{answer['id']}",
                model=answer["model"],
                created_s=int(answer["created_at"]),
                message={"role": "assistant", "content": _text_of(answer["output"])},
                finish_reason=_finish_reason(answer),
                usage=_usage_of(answer.get("usage") or {}),
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProviderFailed(unreadable(self.name, "an answer that cannot be read")) from error

    def decode_stream(self, call: Call) -> StreamDecoder:
        """Return a decoder of the agent's events."""
        return _AgentStream(self.name, call)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """Return what an error answer means."""
        return parse_failure(self.name, status, headers, body)


class _AgentStream:
    """Turns `response.*` events into chat completion chunks."""

    def __init__(self, name: str, call: Call) -> None:
        self._name = name
        self._buffer = EventBuffer(name)
        self._chunks = ChunkWriter(call, id=f"chatcmpl-{time.time_ns():x}")
        self._is_done = False

    def feed(self, chunk: bytes) -> bytes:
        try:
            payloads = split_events(self._buffer.feed(chunk))
            return b"".join(self._read(orjson.loads(each), each) for each in payloads if each != b"[DONE]")
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ProviderFailed(unreadable(self._name, "an event that cannot be read")) from error

    def finish(self) -> bytes:
        if not self._is_done:
            raise ProviderFailed(cut_short(self._name))
        return b""

    def _read(self, event: dict[str, Any], payload: bytes) -> bytes:
        match event["type"]:
            case "response.created":
                response = event.get("response") or {}
                self._chunks.begin(id=f"chatcmpl-{response.get('id', '')}", model=response.get("model"))
            case "response.output_text.delta":
                return self._chunks.delta({"content": event["delta"]})
            case "response.completed":
                self._is_done = True
                response = event.get("response") or {}
                return self._chunks.end(_finish_reason(response), _usage_of(response.get("usage") or {}))
            case "response.failed" | "error":
                raise ProviderFailed(parse_failure(self._name, 500, {}, payload))
        return b""


def _text_of(output: list[dict[str, Any]]) -> str:
    return "".join(
        part["text"]
        for item in output
        if item["type"] == "message"
        for part in item["content"]
        if part["type"] == "output_text"
    )


def _finish_reason(response: dict[str, Any]) -> str:
    return "length" if response.get("status") == "incomplete" else "stop"


def _usage_of(usage: dict[str, Any]) -> dict[str, Any]:
    """Return OpenAI's usage, with what Perplexity billed as it said it."""
    cached = (usage.get("input_tokens_details") or {}).get("cache_read_input_tokens") or 0
    value: dict[str, Any] = {
        "prompt_tokens": usage.get("input_tokens", 0),
        "completion_tokens": usage.get("output_tokens", 0),
        "total_tokens": usage.get("total_tokens", 0),
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    if usage.get("cost"):
        value["cost"] = usage["cost"]
    return value
