"""Anthropic's own SDK as the reader of Messages answers: its types, strictly, and its accumulation of a stream."""

from __future__ import annotations

from typing import Any

import orjson
from anthropic._streaming import SSEDecoder
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

EVENT = TypeAdapter(RawMessageStreamEvent)


def read_message(body: bytes) -> Message:
    """Return a whole answer, checked against the SDK's type."""
    return Message.model_validate_json(body, strict=True)


def read_events(events: bytes) -> list[dict[str, Any]]:
    """Return the events of a stream, each checked against the SDK's type and named as the SDK wants it."""
    values = []
    for event in SSEDecoder().iter_bytes(iter([events])):
        value = orjson.loads(event.data)
        assert event.event == value["type"]
        if value["type"] != "ping":
            EVENT.validate_json(event.data, strict=True)
            values.append(value)
    return values


def accumulate(events: bytes) -> Message:
    """Return the message that the SDK makes of a stream; its blocks must open and close one after the other."""
    message = None
    buffers: dict[int, bytes] = {}
    opened, closed = -1, -1
    values = read_events(events)
    for value in values:
        match value["type"]:
            case "content_block_start":
                assert opened == closed
                opened += 1
                assert value["index"] == opened
            case "content_block_delta":
                assert value["index"] == opened != closed
            case "content_block_stop":
                closed += 1
                assert value["index"] == opened == closed
        event = EVENT.validate_python(value)
        message = accumulate_event(event=event, current_snapshot=message, json_bufs=buffers)
    assert message is not None
    assert opened == closed
    assert [value["type"] for value in values[-2:]] == ["message_delta", "message_stop"]
    return Message.model_validate_json(message.to_json(), strict=True)
