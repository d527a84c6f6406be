"""Anthropic's messages: events put together, and taken apart again.

Source: Anthropic API reference, streaming messages; types of its Python SDK.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

# Fields of a block that come in pieces: the delta's type, its field, and the block's field.
_PIECES = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
}


def join_events(events: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the message that events add up to; None when it has not ended or was broken off by an error."""
    message: dict[str, Any] | None = None
    blocks: dict[int, dict[str, Any]] = {}
    inputs: dict[int, str] = {}
    for event in events:
        match event["type"]:
            case "message_start":
                message = {**event["message"], "usage": dict(event["message"].get("usage") or {})}
            case "content_block_start":
                blocks[event["index"]] = dict(event["content_block"])
            case "content_block_delta":
                _add_delta(blocks[event["index"]], inputs, event["index"], event["delta"])
            case "message_delta" if message is not None:
                message |= event["delta"]
                message["usage"] |= {
                    name: value for name, value in (event.get("usage") or {}).items() if value is not None
                }
            case "error":
                return None
    if message is None or not events or events[-1]["type"] != "message_stop":
        return None
    for index, text in inputs.items():
        blocks[index]["input"] = orjson.loads(text or "{}")
    message["usage"].pop("cost_usd", None)
    message["content"] = [blocks[index] for index in sorted(blocks)]
    return message


def split_message(whole: dict[str, Any]) -> bytes:
    """Return a message as a stream of events: each block in as few pieces as its kind allows."""
    usage = dict(whole.get("usage") or {})
    start = {**whole, "content": [], "stop_reason": None, "stop_sequence": None, "usage": {**usage, "output_tokens": 0}}
    start["usage"].pop("cost_usd", None)
    end = {"stop_reason": whole.get("stop_reason"), "stop_sequence": whole.get("stop_sequence")}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(whole["content"]):
        empty, deltas = _split_block(block)
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        events.append({"type": "content_block_stop", "index": index})
    events += [{"type": "message_delta", "delta": end, "usage": usage}, {"type": "message_stop"}]
    return b"".join(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events)


def _add_delta(block: dict[str, Any], inputs: dict[int, str], index: int, delta: dict[str, Any]) -> None:
    kind = delta["type"]
    if kind in _PIECES:
        source, field = _PIECES[kind]
        block[field] = (block.get(field) or "") + delta[source]
    elif kind == "input_json_delta":
        inputs[index] = inputs.get(index, "") + delta["partial_json"]
    elif kind == "citations_delta":
        block["citations"] = [*(block.get("citations") or ()), delta["citation"]]


def _split_block(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how a block begins, and the deltas that fill it; a kind without deltas begins complete."""
    match block["type"]:
        case "text":
            citations = [{"type": "citations_delta", "citation": each} for each in block.get("citations") or ()]
            start = {**block, "text": ""} | ({"citations": []} if citations else {})
            return start, [*_pieces(block, "text_delta"), *citations]
        case "thinking":
            start = {**block, "thinking": "", "signature": ""}
            return start, [*_pieces(block, "thinking_delta"), *_pieces(block, "signature_delta")]
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            text = orjson.dumps(block["input"]).decode()
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": text}]
    return block, []


def _pieces(block: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    source, field = _PIECES[kind]
    if block.get(field):
        yield {"type": kind, source: block[field]}
