"""Anthropic's Messages API.

Source: Anthropic API reference, messages and streaming; anthropic-sdk-python, types.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlaas.providers.simulated.refusals import Refusal, encode_refusal
from mlaas.providers.simulated.script import BadRequest, Prompt, Script
from mlaas.providers.simulated.wire import Json, encode_event, read_text

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessagesWire:
    """`/messages`."""

    def read(self, body: Mapping[str, Any]) -> Prompt:
        """Return what a message asks for."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise BadRequest("messages: at least one message is required", "messages")
        choice = body.get("tool_choice") or {"type": "auto"}
        config = body.get("output_config") or {}
        form = config.get("format") or {}
        last = messages[-1]["content"]
        return Prompt(
            texts=[
                *read_text(body.get("system")),
                *(text for each in messages for text in _read_blocks(each["content"])),
            ],
            tools={tool["name"]: tool.get("input_schema") or {} for tool in body.get("tools") or ()},
            tool_choice={"any": "required"}.get(choice["type"], choice.get("name") or choice["type"]),
            is_parallel=not choice.get("disable_parallel_tool_use"),
            schema=form.get("schema"),
            is_reasoning=(body.get("thinking") or {}).get("type") in ("enabled", "adaptive") or "effort" in config,
            is_answering_tools=isinstance(last, list) and any(block.get("type") == "tool_result" for block in last),
            max_tokens=body.get("max_tokens"),
            stop=body.get("stop_sequences") or (),
        )

    def answer(self, body: Mapping[str, Any], script: Script, vendor: str) -> Json:
        """Return a message."""
        blocks: list[Json] = []
        if script.reasoning:
            thinking = "".join(script.reasoning)
            blocks.append({"type": "thinking", "thinking": thinking, "signature": sign_thinking(thinking)})
        if script.pieces:
            blocks.append({"type": "text", "text": script.text})
        for call in script.calls:
            blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)})
        return {**_head(body, script), "content": blocks, "stop_reason": _STOP_REASONS[script.finish], **_usage(script)}

    def events(self, body: Mapping[str, Any], script: Script, vendor: str) -> Sequence[bytes]:
        """Return the events of a message."""
        usage = _usage(script, output_tokens=1)
        start = {**_head(body, script), "content": [], "stop_reason": None, **usage}
        delta = {"stop_reason": _STOP_REASONS[script.finish], "stop_sequence": None}
        final = {"usage": {"output_tokens": script.output_tokens}} if script.has_usage else {}
        values: list[Json] = [
            {"type": "message_start", "message": start},
            {"type": "ping"},
            *_block_events(script),
            {"type": "message_delta", "delta": delta, **final},
            {"type": "message_stop"},
        ]
        return [encode_event(value, value["type"]) for value in values]

    def error_event(self, vendor: str, refusal: Refusal) -> bytes:
        """Return an `error` event."""
        value = encode_refusal("anthropic", refusal)
        return encode_event({**value, "error": {**value["error"], "type": "overloaded_error"}}, "error")


def sign_thinking(thinking: str) -> str:
    """Return the signature of a thinking block."""
    return hashlib.sha256(thinking.encode()).hexdigest()[:32]


def _read_blocks(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    texts = []
    for block in content or ():
        texts += read_text(block.get("content")) if block.get("type") == "tool_result" else read_text([block])
    return texts


def _head(body: Mapping[str, Any], script: Script) -> Json:
    return {
        "id": f"msg_{script.id}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "stop_sequence": None,
    }


def _usage(script: Script, output_tokens: int | None = None) -> Json:
    if not script.has_usage:
        return {"usage": {"input_tokens": 0, "output_tokens": 0}}
    fresh = script.input_tokens - script.cache_read_tokens - script.cache_write_tokens
    return {
        "usage": {
            "input_tokens": fresh,
            "cache_read_input_tokens": script.cache_read_tokens,
            "cache_creation_input_tokens": script.cache_write_tokens,
            "cache_creation": {
                "ephemeral_5m_input_tokens": script.cache_write_tokens,
                "ephemeral_1h_input_tokens": 0,
            },
            "output_tokens": script.output_tokens if output_tokens is None else output_tokens,
        }
    }


def _block_events(script: Script) -> Iterator[Json]:
    index = 0
    if script.reasoning:
        signature = sign_thinking("".join(script.reasoning))
        deltas: list[Json] = [{"type": "thinking_delta", "thinking": piece} for piece in script.reasoning]
        empty = {"type": "thinking", "thinking": "", "signature": ""}
        yield from _block(index, empty, [*deltas, {"type": "signature_delta", "signature": signature}])
        index += 1
    if script.pieces:
        yield from _block(
            index, {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in script.pieces]
        )
        index += 1
    for call in script.calls:
        pieces = ["", *call.pieces]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        yield from _block(index, {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}, deltas)
        index += 1


def _block(index: int, start: Json, deltas: Sequence[Json]) -> Iterator[Json]:
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}
