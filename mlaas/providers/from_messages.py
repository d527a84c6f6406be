"""Answers of Anthropic's Messages API as chat completions, whole and streamed.

Source: Anthropic API reference, messages and streaming; OpenAI API reference, chat completions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import orjson

from mlaas.providers.base import Answer, Call, Failure, ProviderFailed, Usage
from mlaas.providers.chat import ChunkWriter, encode_completion
from mlaas.providers.failures import cut_short, parse_failure, unreadable
from mlaas.providers.sse import EventBuffer, split_events
from mlaas.providers.thinking import is_thinking, mark_thinking

# A turn is only paused while tools of Anthropic's own run, which a chat cannot ask for.
_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_STATUS_OF_ERROR: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
UNREADABLE: Final = (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, IndexError, ValueError)
"""What reading an answer of another shape than the documented one raises."""


def decode_message(name: str, body: bytes) -> Answer:
    """Return a message as a chat completion.

    Raises:
        ProviderFailed: the answer cannot be read.
    """
    try:
        answer = read_answer(name, body)
        usage = read_usage(answer.get("usage"))
        completion = encode_completion(
            id=f"chatcmpl-{answer['id']}",
            model=answer["model"],
            created_s=int(time.time()),
            message=_decode_content(answer["content"], answer["model"]),
            finish_reason=_finish_reason(answer["stop_reason"]),
            usage=usage,
        )
    except UNREADABLE as error:
        raise ProviderFailed(unreadable(name, "an answer that cannot be read")) from error
    return Answer(body=completion, usage=usage)


def read_answer(name: str, body: bytes) -> dict[str, Any]:
    """Return a message decoded.

    Raises:
        ProviderFailed: it is an error, in spite of its status of 200.
        ValueError: it is not JSON.
        TypeError: it has no blocks.
    """
    answer: dict[str, Any] = orjson.loads(body)
    if answer.get("type") == "error":
        raise ProviderFailed(read_error_event(name, answer, body))
    if not isinstance(answer.get("content"), list):
        raise TypeError
    return answer


def read_usage(usage: object) -> Usage | None:
    """Return what a message used, None when the upstream does not say, or says what cannot be.

    `input_tokens` leaves cache reads and writes out; `cache_creation_input_tokens` is all writes, of which
    `cache_creation` tells those for an hour. No message is of no tokens.
    """
    if not isinstance(usage, Mapping):
        return None
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    counts = [usage.get(name) or 0 for name in names]
    if not any(counts) or not all(type(count) is int and count >= 0 for count in counts):
        return None
    fresh, read, written, output = counts
    long_written = _detail(usage, "cache_creation", "ephemeral_1h_input_tokens", most=written)
    return Usage(
        input_tokens=fresh,
        cache_read_tokens=read,
        cache_write_tokens=written - long_written,
        cache_write_1h_tokens=long_written,
        output_tokens=output,
        reasoning_tokens=_detail(usage, "output_tokens_details", "thinking_tokens", most=output),
    )


class StreamUsage:
    """Gathers what a streamed message used, from its `message_start` and its `message_delta`.

    The latter is cumulative, and what is null in it stays as it was. Without its count of the output, nothing is known:
    `message_start` only counts the first token.
    """

    __slots__ = ("_counts", "_is_whole")

    def __init__(self) -> None:
        self._counts: dict[str, Any] = {}
        self._is_whole = False

    def start(self, message: Mapping[str, Any]) -> None:
        """Take over the usage of a `message_start`."""
        self._counts = dict(message.get("usage") or {})

    def update(self, event: Mapping[str, Any]) -> None:
        """Take over the usage of a `message_delta`."""
        counts = {key: value for key, value in (event.get("usage") or {}).items() if value is not None}
        self._counts.update(counts)
        self._is_whole = self._is_whole or "output_tokens" in counts

    def read(self) -> Usage | None:
        """Return the usage of the whole message."""
        return read_usage(self._counts) if self._is_whole else None


def read_error_event(name: str, event: Mapping[str, Any], payload: bytes) -> Failure:
    """Return the failure that an `error` event tells of, which comes after a status of 200."""
    return parse_failure(name, _STATUS_OF_ERROR.get(event["error"].get("type"), 500), {}, payload)


class MessagesStream:
    """Turns the events of one streamed message into chat completion chunks.

    Thinking goes out as `reasoning_content` while it comes, and each of its blocks once more, whole and signed, as
    `thinking_blocks` when it ends.

    Attributes:
        usage: what the stream used; None until its end, and when the upstream does not say.
    """

    def __init__(self, name: str, call: Call) -> None:
        self.usage: Usage | None = None
        self._name = name
        self._buffer = EventBuffer(name)
        self._chunks = ChunkWriter(call, id=f"chatcmpl-{time.time_ns():x}")
        self._model = ""
        self._spent = StreamUsage()
        self._is_done = False
        self._finish_reason = "stop"
        self._num_tools = 0
        self._is_tool_empty = False
        self._thinking: dict[str, Any] | None = None
        self._place = 0
        self._failure: Failure | None = None

    @property
    def num_deltas(self) -> int:
        """Pieces of content passed on so far."""
        return self._chunks.num_deltas

    def feed(self, chunk: bytes) -> bytes:
        """Return the chunks that the events so far make.

        Raises:
            ProviderFailed: an event is an error, or cannot be read.
        """
        if self._failure is not None:
            raise ProviderFailed(self._failure)
        chunks = b""
        try:
            for payload in split_events(self._buffer.feed(chunk)):
                chunks += self._read(orjson.loads(payload), payload)
        except ProviderFailed as error:
            self._failure = error.failure
        except UNREADABLE:
            self._failure = unreadable(self._name, "an event that cannot be read")
        if self._failure is not None and not chunks:
            raise ProviderFailed(self._failure)
        return chunks

    def finish(self, cost_usd: Decimal | None) -> bytes:
        """Return the last chunks: the reason for the end, the usage if the caller asked for it, and `[DONE]`.

        Raises:
            ProviderFailed: `message_stop` has not come, or an event before it could not be read.
        """
        if self._failure is not None or not self._is_done:
            raise ProviderFailed(self._failure or cut_short(self._name))
        return self._chunks.stop(self._finish_reason) + self._chunks.end(self.usage, cost_usd)

    def _read(self, event: dict[str, Any], payload: bytes) -> bytes:
        match event["type"]:
            case "message_start":
                message = event["message"]
                self._model = message.get("model") or ""
                self._spent.start(message)
                self._chunks.begin(id=f"chatcmpl-{message['id']}", model=self._model)
            case "content_block_start":
                return self._start_block(event["content_block"], event["index"])
            case "content_block_delta":
                return self._read_delta(event["delta"])
            case "content_block_stop":
                return self._stop_block()
            case "message_delta":
                self._spent.update(event)
                self._finish_reason = _finish_reason(event["delta"].get("stop_reason"))
            case "message_stop":
                self._is_done = True
                self.usage = self._spent.read()
            case "error":
                raise ProviderFailed(read_error_event(self._name, event, payload))
        return b""

    def _start_block(self, block: dict[str, Any], index: int) -> bytes:
        if block["type"] == "text" and block.get("text"):
            return self._chunks.delta({"content": block["text"]})
        if is_thinking(block):
            self._thinking, self._place = dict(block), index
        if block["type"] != "tool_use":
            return b""
        self._num_tools += 1
        self._is_tool_empty = True
        function = {"name": block["name"], "arguments": ""}
        call = {"index": self._num_tools - 1, "id": block["id"], "type": "function", "function": function}
        return self._chunks.delta({"tool_calls": [call]})

    def _read_delta(self, delta: dict[str, Any]) -> bytes:
        match delta["type"]:
            case "text_delta":
                return self._chunks.delta({"content": delta["text"]})
            case "input_json_delta" if delta["partial_json"]:
                return self._tool_arguments(delta["partial_json"])
            case "thinking_delta" if self._thinking is not None and delta["thinking"]:
                self._thinking["thinking"] += delta["thinking"]
                return self._chunks.delta({"reasoning_content": delta["thinking"]})
            case "signature_delta" if self._thinking is not None:
                self._thinking["signature"] = delta["signature"]
        return b""

    def _stop_block(self) -> bytes:
        block, self._thinking = self._thinking, None
        if block is not None:
            marked = mark_thinking(block, model=self._model, place=self._place)
            return self._chunks.delta({"thinking_blocks": [marked]})
        return self._tool_arguments("{}") if self._is_tool_empty else b""

    def _tool_arguments(self, text: str) -> bytes:
        self._is_tool_empty = False
        call = {"index": self._num_tools - 1, "function": {"arguments": text}}
        return self._chunks.delta({"tool_calls": [call]})


def _detail(usage: Mapping[str, Any], group: str, name: str, *, most: int) -> int:
    details = usage.get(group)
    count = details.get(name) if isinstance(details, Mapping) else 0
    return min(max(0, count), most) if type(count) is int else 0


def _decode_content(blocks: list[dict[str, Any]], model: str) -> dict[str, Any]:
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = [
        {
            "id": block["id"],
            "type": "function",
            "function": {"name": block["name"], "arguments": orjson.dumps(block["input"]).decode()},
        }
        for block in blocks
        if block["type"] == "tool_use"
    ]
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    thinking = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    if thinking:
        message["reasoning_content"] = thinking
    marked = [
        mark_thinking(block, model=model, place=place) for place, block in enumerate(blocks) if is_thinking(block)
    ]
    if marked:
        message["thinking_blocks"] = marked
    return message


def _finish_reason(stop_reason: str | None) -> str:
    return _FINISH_REASONS.get(stop_reason or "end_turn", "stop")
