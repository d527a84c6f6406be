"""Answers of Anthropic's Messages API as chat completions, whole and streamed.

Source: Anthropic API reference, messages and streaming; OpenAI API reference, chat completions.
"""

from __future__ import annotations

import time
from typing import Any, Final

import orjson

from mlaas.providers.base import Call, ProviderFailed
from mlaas.providers.chat import ChunkWriter, encode_completion
from mlaas.providers.failures import cut_short, parse_failure, unreadable
from mlaas.providers.sse import EventBuffer, split_events

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
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_UNREADABLE = (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, IndexError)


def decode_message(name: str, body: bytes) -> bytes:
    """Return a message as a chat completion.

    Raises:
        ProviderFailed: the answer cannot be read.
    """
    try:
        answer = orjson.loads(body)
        return encode_completion(
            id=f"chatcmpl-{answer['id']}",
            model=answer["model"],
            created_s=int(time.time()),
            message=_decode_content(answer["content"]),
            finish_reason=_finish_reason(answer["stop_reason"]),
            usage=convert_usage(answer["usage"]),
        )
    except _UNREADABLE as error:
        raise ProviderFailed(unreadable(name, "an answer that cannot be read")) from error


def convert_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Return OpenAI's usage.

    OpenAI's `prompt_tokens` includes cached tokens; `input_tokens` here leaves both cache reads and cache writes out.
    """
    cache_read = usage.get("cache_read_input_tokens") or 0
    cache_write = usage.get("cache_creation_input_tokens") or 0
    prompt = (usage.get("input_tokens") or 0) + cache_read + cache_write
    completion = usage.get("output_tokens") or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cache_read, "cache_write_tokens": cache_write},
    }


class MessagesStream:
    """Turns the events of one streamed message into chat completion chunks."""

    def __init__(self, name: str, call: Call) -> None:
        self._name = name
        self._buffer = EventBuffer(name)
        self._chunks = ChunkWriter(call, id=f"chatcmpl-{time.time_ns():x}")
        self._usage: dict[str, Any] = {}
        self._finish_reason = "stop"
        self._num_tools = 0
        self._is_tool_empty = False
        self._is_done = False

    def feed(self, chunk: bytes) -> bytes:
        """Return the chunks that the events so far make.

        Raises:
            ProviderFailed: an event is an error, or cannot be read.
        """
        try:
            return b"".join(
                self._read(orjson.loads(payload), payload) for payload in split_events(self._buffer.feed(chunk))
            )
        except _UNREADABLE as error:
            raise ProviderFailed(unreadable(self._name, "an event that cannot be read")) from error

    def finish(self) -> bytes:
        """Return nothing: the last chunks go out with `message_stop`.

        Raises:
            ProviderFailed: `message_stop` has not come.
        """
        if not self._is_done:
            raise ProviderFailed(cut_short(self._name))
        return b""

    def _read(self, event: dict[str, Any], payload: bytes) -> bytes:
        match event["type"]:
            case "message_start":
                message = event["message"]
                self._usage = dict(message.get("usage") or {})
                self._chunks.begin(id=f"chatcmpl-{message['id']}", model=message.get("model"))
            case "content_block_start":
                return self._start_block(event["content_block"])
            case "content_block_delta":
                return self._read_delta(event["delta"])
            case "content_block_stop" if self._is_tool_empty:
                return self._tool_arguments("{}")
            case "message_delta":
                # Cumulative; a field that is absent or null keeps its value from the start.
                self._usage.update({key: each for key, each in (event.get("usage") or {}).items() if each is not None})
                self._finish_reason = _finish_reason(event["delta"].get("stop_reason"))
            case "message_stop":
                self._is_done = True
                return self._chunks.end(self._finish_reason, convert_usage(self._usage))
            case "error":
                status = _STATUS_OF_ERROR.get(event["error"].get("type"), 500)
                raise ProviderFailed(parse_failure(self._name, status, {}, payload))
        return b""

    def _start_block(self, block: dict[str, Any]) -> bytes:
        if block["type"] == "text" and block.get("text"):
            return self._chunks.delta({"content": block["text"]})
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
            case "thinking_delta":
                return self._chunks.delta({"reasoning_content": delta["thinking"]})
        return b""

    def _tool_arguments(self, text: str) -> bytes:
        self._is_tool_empty = False
        call = {"index": self._num_tools - 1, "function": {"arguments": text}}
        return self._chunks.delta({"tool_calls": [call]})


def _decode_content(blocks: list[dict[str, Any]]) -> dict[str, Any]:
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
    return message


def _finish_reason(stop_reason: str | None) -> str:
    return _FINISH_REASONS.get(stop_reason or "end_turn", "stop")
