"""A streamed chat completion as the events of a response.

Source: OpenAI API reference, streaming events of responses; openai-python, `ResponseStreamEvent`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import orjson

from mlaas.providers.base import Call, ProviderFailed
from mlaas.providers.failures import unreadable
from mlaas.providers.responses_wire import encode_response_event
from mlaas.providers.sse import split_events
from mlaas.router.dialects.responses_answer import (
    UNREADABLE,
    describe_response,
    encode_usage,
    end_response,
    item_status,
    new_id,
    read_annotations,
    read_logprobs,
    read_reasoning,
    read_sources,
    read_tier,
)
from mlaas.router.dialects.responses_opened import Event, OpenCall, OpenMessage, OpenReasoning


class ResponseEvents:
    """Writes the events of one response while the chunks of a chat come.

    Reasoning and message follow each other, one open at a time. Function calls may come in turns, so all of them stay
    open until the end. Nothing goes out before the first piece of output.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._number = 0
        self._response: dict[str, Any] | None = None
        self._output: list[dict[str, Any]] = []
        self._open: tuple[int, OpenReasoning | OpenMessage] | None = None
        self._calls: dict[int, tuple[int, OpenCall]] = {}
        self._finish_reason: str | None = None
        self._usage: object = None
        self._told: dict[str, Any] = {"service_tier": None}

    def feed(self, events: bytes) -> bytes:
        """Return the events that whole chunks make.

        Raises:
            ProviderFailed: a chunk is none.
        """
        try:
            chunks = [orjson.loads(payload) for payload in split_events(events) if payload != b"[DONE]"]
            return self._write(event for chunk in chunks for event in self._read(chunk))
        except UNREADABLE as error:
            raise ProviderFailed(unreadable("the model", "an event that cannot be read")) from error

    def finish(self, tail: bytes, cost_usd: Decimal | None) -> bytes:
        """Return the events that end the response: what is still open, then `response.completed` or `.incomplete`.

        Raises:
            ProviderFailed: `tail` cannot be read.
        """
        return self.feed(tail) + self._write(self._end(cost_usd))

    def _end(self, cost_usd: Decimal | None) -> Iterable[Event]:
        yield from self._start({})
        last = len(self._output) - 1
        status = item_status(self._finish_reason)
        yield from self._close(status=status if self._open is not None and self._open[0] == last else "completed")
        for index, opened in self._calls.values():
            yield from opened.close(status=status if index == last else "completed")
            yield {"type": "response.output_item.done", "output_index": index, "item": opened.item}
        response = end_response(
            (self._response or {}) | self._told,
            output=self._output,
            finish_reason=self._finish_reason,
            usage=encode_usage(self._usage, cost_usd),
        )
        yield {"type": f"response.{response['status']}", "response": response}

    def _read(self, chunk: dict[str, Any]) -> Iterable[Event]:
        self._usage = chunk.get("usage") or self._usage
        self._told |= read_sources(chunk)
        self._told["service_tier"] = read_tier(chunk) or self._told["service_tier"]
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if any(value for name, value in delta.items() if name != "role"):
                yield from self._start(chunk)
            yield from self._read_thoughts(delta)
            yield from self._read_words(delta, choice)
            for call in delta.get("tool_calls") or ():
                yield from self._read_call(call)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def _start(self, chunk: dict[str, Any]) -> Iterable[Event]:
        if self._response is None:
            created_at_s = int(chunk.get("created") or time.time())
            response = describe_response(self._call, id=new_id("resp"), created_at_s=created_at_s, status="in_progress")
            self._response = {**response, "model": chunk.get("model") or self._call.model}
            yield {"type": "response.created", "response": self._response}
            yield {"type": "response.in_progress", "response": self._response}

    def _read_thoughts(self, delta: Mapping[str, Any]) -> Iterable[Event]:
        text, blocks = read_reasoning(delta), delta.get("thinking_blocks") or []
        if not text and not blocks:
            return
        opened = self._open[1] if self._open is not None else None
        if not isinstance(opened, OpenReasoning):
            yield from self._close()
            opened = OpenReasoning(len(self._output))
            self._open = (len(self._output), opened)
            yield self._announce(opened.item)
        yield from opened.add(text, blocks)

    def _read_words(self, delta: Mapping[str, Any], choice: Mapping[str, Any]) -> Iterable[Event]:
        opened = self._open[1] if self._open is not None else None
        for kind, text in (("output_text", delta.get("content")), ("refusal", delta.get("refusal"))):
            if not text:
                continue
            if not isinstance(opened, OpenMessage):
                yield from self._close()
                opened = OpenMessage(len(self._output))
                self._open = (len(self._output), opened)
                yield self._announce(opened.item)
            yield from opened.add(kind, text, read_logprobs(choice))
        if isinstance(opened, OpenMessage) and delta.get("annotations"):
            yield from opened.cite(read_annotations(delta))

    def _read_call(self, call: Mapping[str, Any]) -> Iterable[Event]:
        key, function = call.get("index", 0), call.get("function") or {}
        if key not in self._calls:
            yield from self._close()
            opened = OpenCall(len(self._output), call)
            self._calls[key] = (len(self._output), opened)
            yield self._announce(opened.item)
        if function.get("arguments"):
            yield from self._calls[key][1].add(function["arguments"])

    def _announce(self, item: dict[str, Any]) -> Event:
        self._output.append(item)
        return {"type": "response.output_item.added", "output_index": len(self._output) - 1, "item": item}

    def _close(self, *, status: str = "completed") -> Iterable[Event]:
        if self._open is not None:
            index, opened = self._open
            self._open = None
            yield from opened.close(status=status)
            yield {"type": "response.output_item.done", "output_index": index, "item": opened.item}

    def _write(self, events: Iterable[Event]) -> bytes:
        # One by one as they are made: an item that is announced changes when it goes on.
        written = []
        for event in events:
            written.append(encode_response_event({**event, "sequence_number": self._number}))
            self._number += 1
        return b"".join(written)
