"""A streamed chat completion as the events of a response.

Source: OpenAI API reference, streaming events of responses; openai-python, `ResponseStreamEvent`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson

from mlaas.providers.base import Call, ProviderFailed
from mlaas.providers.failures import unreadable
from mlaas.providers.responses_wire import encode_response_event
from mlaas.providers.sealed_thinking import seal_thinking
from mlaas.providers.sse import split_events
from mlaas.router.dialects.responses_answer import (
    UNREADABLE,
    describe_response,
    encode_call,
    encode_reasoning,
    encode_usage,
    end_response,
    new_id,
    read_annotations,
    read_logprobs,
    read_reasoning,
    read_sources,
    read_tier,
)

_Json = dict[str, Any]


class ResponseEvents:
    """Writes the events of one response while the chunks of a chat come.

    Reasoning and message follow each other, one open at a time. Function calls may come in turns, so all of them stay
    open until the end. Nothing goes out before the first piece of output.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._number = 0
        self._response: _Json | None = None
        self._output: list[_Json] = []
        self._open: _Reasoning | _Message | None = None
        self._calls: dict[int, tuple[int, _Json]] = {}
        self._finish_reason: str | None = None
        self._usage: object = None
        self._told: _Json = {"service_tier": None}

    def feed(self, events: bytes) -> bytes:
        """Return the events that whole chunks make.

        Raises:
            ProviderFailed: a chunk is none.
        """
        try:
            chunks = [orjson.loads(payload) for payload in split_events(events) if payload != b"[DONE]"]
            return b"".join([self._read(chunk) for chunk in chunks])
        except UNREADABLE as error:
            raise ProviderFailed(unreadable("the model", "an event that cannot be read")) from error

    def finish(self, tail: bytes, cost_usd: Decimal | None) -> bytes:
        """Return the events that end the response: what is still open, then `response.completed` or `.incomplete`.

        Raises:
            ProviderFailed: `tail` cannot be read.
        """
        events = self.feed(tail) + self._start({}) + self._close()
        is_whole = self._finish_reason not in ("length", "content_filter")
        for index, item in self._calls.values():
            item["status"] = "completed" if is_whole else "incomplete"
            arguments = {"arguments": item["arguments"]}
            events += self._emit("response.function_call_arguments.done", _place(index, item) | arguments)
            events += self._emit("response.output_item.done", {"output_index": index, "item": item})
        for item in self._output:
            if item["type"] == "message" and not is_whole:
                item["status"] = "incomplete"
        assert self._response is not None
        response = end_response(
            self._response | self._told,
            output=self._output,
            finish_reason=self._finish_reason,
            usage=encode_usage(self._usage, cost_usd),
        )
        return events + self._emit(f"response.{response['status']}", {"response": response})

    def _read(self, chunk: _Json) -> bytes:
        self._usage = chunk.get("usage") or self._usage
        self._told |= read_sources(chunk)
        self._told["service_tier"] = read_tier(chunk) or self._told["service_tier"]
        events = b""
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if any(value for name, value in delta.items() if name != "role"):
                events += self._start(chunk)
            events += self._read_thoughts(delta) + self._read_words(delta, choice)
            for call in delta.get("tool_calls") or ():
                events += self._read_call(call)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        return events

    def _start(self, chunk: _Json) -> bytes:
        if self._response is not None:
            return b""
        created_at_s = int(chunk.get("created") or time.time())
        response = describe_response(self._call, id=new_id("resp"), created_at_s=created_at_s, status="in_progress")
        self._response = {**response, "model": chunk.get("model") or self._call.model}
        created = self._emit("response.created", {"response": self._response})
        return created + self._emit("response.in_progress", {"response": self._response})

    def _read_thoughts(self, delta: Mapping[str, Any]) -> bytes:
        text, blocks = read_reasoning(delta), delta.get("thinking_blocks") or ()
        if not text and not blocks:
            return b""
        events = b""
        if not isinstance(self._open, _Reasoning):
            events = self._close()
            self._open = _Reasoning(self._add(encode_reasoning("", [])))
            events += self._announce(self._open.item)
        self._open.blocks += blocks
        return events + self._write(self._open.add(text) if text else [])

    def _read_words(self, delta: Mapping[str, Any], choice: Mapping[str, Any]) -> bytes:
        events = b""
        for kind, text in (("output_text", delta.get("content")), ("refusal", delta.get("refusal"))):
            if not text:
                continue
            if not isinstance(self._open, _Message):
                events += self._close()
                item: _Json = {"id": new_id("msg"), "type": "message", "role": "assistant"}
                self._open = _Message(self._add({**item, "status": "in_progress", "content": []}))
                events += self._announce(self._open.item)
            events += self._write(self._open.add(kind, text, read_logprobs(choice)))
        if isinstance(self._open, _Message):
            events += self._write(self._open.cite(read_annotations(delta)))
        return events

    def _read_call(self, call: Mapping[str, Any]) -> bytes:
        key, function = call.get("index", 0), call.get("function") or {}
        events = b""
        if key not in self._calls:
            item = self._add(encode_call(call, arguments="", status="in_progress"))
            self._calls[key] = (len(self._output) - 1, item)
            events = self._close() + self._announce(item)
        index, item = self._calls[key]
        if function.get("arguments"):
            item["arguments"] += function["arguments"]
            delta = _place(index, item) | {"delta": function["arguments"]}
            events += self._emit("response.function_call_arguments.delta", delta)
        return events

    def _add(self, item: _Json) -> _Json:
        self._output.append(item)
        return item

    def _announce(self, item: _Json) -> bytes:
        return self._emit("response.output_item.added", {"output_index": self._index_of(item), "item": item})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        opened, self._open = self._open, None
        index = self._index_of(opened.item)
        events = b"".join([self._emit(kind, {"output_index": index, **fields}) for kind, fields in opened.close()])
        return events + self._emit("response.output_item.done", {"output_index": index, "item": opened.item})

    def _write(self, events: list[tuple[str, _Json]]) -> bytes:
        assert self._open is not None or not events
        return b"".join(
            [
                self._emit(kind, {"output_index": self._index_of(self._open.item), **fields})
                for kind, fields in events
                if self._open is not None
            ]
        )

    def _index_of(self, item: _Json) -> int:
        return next(index for index, each in enumerate(self._output) if each is item)

    def _emit(self, kind: str, fields: _Json) -> bytes:
        event = encode_response_event({"type": kind, **fields, "sequence_number": self._number})
        self._number += 1
        return event


class _Reasoning:
    """A reasoning item that is being written: its text is its summary."""

    def __init__(self, item: _Json) -> None:
        self.item = item
        self.blocks: list[Any] = []

    def add(self, text: str) -> list[tuple[str, _Json]]:
        events: list[tuple[str, _Json]] = []
        place = {"item_id": self.item["id"], "summary_index": 0}
        if not self.item["summary"]:
            self.item["summary"].append({"type": "summary_text", "text": ""})
            part = {"type": "summary_text", "text": ""}
            events.append(("response.reasoning_summary_part.added", place | {"part": part}))
        self.item["summary"][0]["text"] += text
        return [*events, ("response.reasoning_summary_text.delta", place | {"delta": text})]

    def close(self) -> list[tuple[str, _Json]]:
        self.item["encrypted_content"] = seal_thinking(self.blocks) if self.blocks else None
        place = {"item_id": self.item["id"], "summary_index": 0}
        return [
            event
            for part in self.item["summary"]
            for event in (
                ("response.reasoning_summary_text.done", place | {"text": part["text"]}),
                ("response.reasoning_summary_part.done", place | {"part": part}),
            )
        ]


class _Message:
    """A message that is being written: parts of text and of refusal."""

    def __init__(self, item: _Json) -> None:
        self.item = item

    def add(self, kind: str, text: str, logprobs: list[_Json]) -> list[tuple[str, _Json]]:
        events: list[tuple[str, _Json]] = []
        content = self.item["content"]
        if not content or content[-1]["type"] != kind:
            events = self._close_part()
            empty = {"refusal": ""} if kind == "refusal" else {"text": "", "annotations": [], "logprobs": []}
            content.append({"type": kind, **empty})
            # A copy: the part itself grows until its event is written.
            part = {"type": kind, **{name: value[:0] for name, value in empty.items()}}
            events.append(("response.content_part.added", self._place() | {"part": part}))
        part = content[-1]
        if kind == "refusal":
            part["refusal"] += text
            return [*events, ("response.refusal.delta", self._place() | {"delta": text})]
        part["text"] += text
        part["logprobs"] += logprobs
        return [*events, ("response.output_text.delta", self._place() | {"delta": text, "logprobs": logprobs})]

    def cite(self, annotations: list[_Json]) -> list[tuple[str, _Json]]:
        part = self.item["content"][-1]
        if part["type"] != "output_text":
            return []
        first = len(part["annotations"])
        part["annotations"] += annotations
        return [
            (
                "response.output_text.annotation.added",
                self._place() | {"annotation_index": index, "annotation": annotation},
            )
            for index, annotation in enumerate(annotations, first)
        ]

    def close(self) -> list[tuple[str, _Json]]:
        self.item["status"] = "completed"
        return self._close_part()

    def _close_part(self) -> list[tuple[str, _Json]]:
        if not self.item["content"]:
            return []
        part = self.item["content"][-1]
        done = ("response.content_part.done", self._place() | {"part": part})
        if part["type"] == "refusal":
            return [("response.refusal.done", self._place() | {"refusal": part["refusal"]}), done]
        said = {"text": part["text"], "logprobs": part["logprobs"]}
        return [("response.output_text.done", self._place() | said), done]

    def _place(self) -> _Json:
        return {"item_id": self.item["id"], "content_index": len(self.item["content"]) - 1}


def _place(index: int, item: Mapping[str, Any]) -> _Json:
    return {"item_id": item["id"], "output_index": index}
