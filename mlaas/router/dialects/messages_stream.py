"""A streamed chat completion as the events of Anthropic's Messages API.

Source: Anthropic API reference, streaming messages; types of the Python SDK.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson

from mlaas.providers.base import Call, ProviderFailed
from mlaas.providers.failures import unreadable
from mlaas.providers.sse import split_events
from mlaas.providers.thinking import unsigned_thinking
from mlaas.router.dialects.messages_answer import (
    UNREADABLE,
    encode_usage,
    message_id,
    read_stop,
    reasoning_of,
    tool_block,
)
from mlaas.router.dialects.messages_sources import Sources
from mlaas.router.estimate import estimate_input_tokens


def encode_event(event: dict[str, Any]) -> bytes:
    """Return one event; the SDKs go by its name."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


class MessageEvents:
    """Writes the events of one message while its chunks come.

    One block is open at a time. A tool call opens a block when its name comes; its arguments go on as they come. What a
    `message_start` says of the input's tokens is an estimate; `message_delta` says what was counted.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._index = -1
        self._open = ""
        self._tool: int | None = None
        self._num_deltas = 0
        self._is_started = False
        self._is_refused = False
        self._stop: tuple[str, str | None] = ("end_turn", None)
        self._usage: object = None
        self._sources = Sources()
        self._written: list[str] = []

    def feed(self, events: bytes) -> bytes:
        """Return the events that whole chunks make.

        Raises:
            ProviderFailed: a chunk is none.
        """
        try:
            chunks = [orjson.loads(payload) for payload in split_events(events) if payload != b"[DONE]"]
            return b"".join(self._read(chunk) for chunk in chunks)
        except UNREADABLE as error:
            raise ProviderFailed(unreadable("the model", "an event that cannot be read")) from error

    def finish(self, tail: bytes, cost_usd: Decimal | None) -> bytes:
        """Return the end of the message: its last block's, `message_delta` with usage and cost, `message_stop`."""
        last = self.feed(tail)
        if not self._is_started:
            last += self._start({})
        last += self._cite()
        usage = encode_usage(self._usage, cost_usd)
        if self._usage is None:
            usage = {**usage, "input_tokens": None, "output_tokens": self._num_deltas}
        reason, sequence = self._stop
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        last += self._close() + encode_event({"type": "message_delta", "delta": delta, "usage": usage})
        return last + encode_event({"type": "message_stop"})

    def _read(self, chunk: dict[str, Any]) -> bytes:
        self._usage = chunk.get("usage") or self._usage
        events = b""
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if not self._is_started:
                events += self._start(chunk)
            self._sources.read(chunk, delta)
            self._written.append(delta.get("content") or "")
            events += self._read_thinking(delta)
            self._is_refused = self._is_refused or bool(delta.get("refusal"))
            for text in (delta.get("content"), delta.get("refusal")):
                if text:
                    events += self._switch("text", {"type": "text", "text": ""})
                    events += self._delta({"type": "text_delta", "text": text})
            for call in delta.get("tool_calls") or ():
                events += self._read_tool(call)
            if choice.get("finish_reason"):
                has_tools = self._tool is not None
                self._stop = read_stop(self._call, choice, has_tools=has_tools, is_refused=self._is_refused)
        return events

    def _start(self, chunk: dict[str, Any]) -> bytes:
        self._is_started = True
        message: dict[str, Any] = {
            "id": message_id(chunk),
            "type": "message",
            "role": "assistant",
            "model": chunk.get("model") or self._call.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": estimate_input_tokens(self._call.fields), "output_tokens": 0},
        }
        return encode_event({"type": "message_start", "message": message})

    def _read_thinking(self, delta: dict[str, Any]) -> bytes:
        events = b""
        blocks = delta.get("thinking_blocks") or ()
        text = reasoning_of(delta)
        # Text that comes along with whole blocks is theirs.
        if text and not blocks:
            events += self._switch("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            events += self._delta({"type": "thinking_delta", "thinking": text})
        for block in blocks:
            events += self._seal(block)
        return events

    def _seal(self, block: dict[str, Any]) -> bytes:
        """Return the end of a thinking block that comes whole, after its text has gone out piece by piece."""
        if block["type"] == "redacted_thinking":
            return self._switch("redacted", block) + self._close()
        events = b""
        if self._open != "thinking":
            events += self._switch("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            if block["thinking"]:
                events += self._delta({"type": "thinking_delta", "thinking": block["thinking"]})
        return events + self._close(signature=block["signature"])

    def _read_tool(self, call: dict[str, Any]) -> bytes:
        function = call.get("function") or {}
        events = b""
        if function.get("name") and (call.get("id") or self._tool != call.get("index", 0)):
            events += self._close() + self._switch("tool", tool_block(call, {}))
            self._tool = call.get("index", 0)
        if function.get("arguments"):
            if self._open != "tool" or self._tool != call.get("index", 0):
                raise ProviderFailed(unreadable("the model", "arguments of a tool call that is not the current one"))
            events += self._delta({"type": "input_json_delta", "partial_json": function["arguments"]})
        return events

    def _cite(self) -> bytes:
        """Return the events of the answer's sources, which are all known at its end."""
        citations = self._sources.citations("".join(self._written))
        if not citations:
            return b""
        deltas = [{"type": "citations_delta", "citation": each} for each in citations]
        return self._switch("text", {"type": "text", "text": ""}) + b"".join(map(self._encode_delta, deltas))

    def _switch(self, kind: str, block: dict[str, Any]) -> bytes:
        """Return the events that leave a block of `kind` open; an open one of the same kind goes on."""
        if self._open == kind:
            return b""
        events = self._close()
        self._index += 1
        self._open = kind
        return events + encode_event({"type": "content_block_start", "index": self._index, "content_block": block})

    def _close(self, *, signature: str | None = None) -> bytes:
        if not self._open:
            return b""
        kind, self._open = self._open, ""
        events = b""
        if kind == "thinking":
            sealed = unsigned_thinking("")["signature"] if signature is None else signature
            events = self._delta({"type": "signature_delta", "signature": sealed})
        return events + encode_event({"type": "content_block_stop", "index": self._index})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        self._num_deltas += 1
        return self._encode_delta(delta)

    def _encode_delta(self, delta: dict[str, Any]) -> bytes:
        return encode_event({"type": "content_block_delta", "index": self._index, "delta": delta})
