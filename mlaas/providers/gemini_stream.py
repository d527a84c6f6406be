"""Chunks of Gemini's compatible endpoint, set right where they differ from OpenAI's."""

from __future__ import annotations

from typing import Any

import orjson

from mlaas.providers.base import ProviderFailed
from mlaas.providers.pass_through import EventReader, PassThroughStream
from mlaas.providers.sse import encode_event, split_events


class GeminiStream(PassThroughStream):
    """A stream in which reasons to stop and the usage come last, and each tool call has an index of its own.

    Gemini may state a `finish_reason` with every chunk of tool calls, at which clients stop to read, the usage with any
    chunk, and the index 0 with each of several calls, so that clients glue their arguments together. A call comes
    whole, in one chunk. Every chunk is read here, and passed on as it came when nothing is wrong with it.
    """

    __slots__ = ("_calls", "_head", "_reasons", "_stated_usage")

    def __init__(self, provider: EventReader, *, is_usage_asked: bool) -> None:
        super().__init__(provider, is_usage_asked=is_usage_asked)
        self._head: dict[str, Any] = {}
        self._calls: dict[int, int] = {}
        self._reasons: dict[int, str] = {}
        self._stated_usage: dict[str, Any] | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Return the whole events that are complete by now, but for those that end the stream.

        Raises:
            ProviderFailed: an event is an error, or cannot be read.
        """
        if self._failure is not None:
            raise ProviderFailed(self._failure)
        return self._read(self._buffer.feed(chunk))

    def _read_event(self, event: bytes) -> bytes:
        payload = b"\n".join(split_events(event))
        if payload == b"[DONE]":
            return self._stop() + super()._read_event(event)
        if not payload:
            return super()._read_event(event)
        value = self._parse(payload)
        if not self._head:
            self._head = {key: value.get(key) for key in ("id", "object", "created", "model")}
        is_changed = self._take_usage(value)
        for choice in value.get("choices") or ():
            is_changed |= self._take_reason(choice) | self._number_calls(choice)
        return super()._read_event(encode_event(orjson.dumps(value)) if is_changed else event)

    def _take_usage(self, value: dict[str, Any]) -> bool:
        if not isinstance(value.get("usage"), dict):
            return False
        self._stated_usage = value.pop("usage")
        return True

    def _take_reason(self, choice: dict[str, Any]) -> bool:
        if not choice.get("finish_reason"):
            return False
        self._reasons[choice.get("index", 0)] = choice["finish_reason"]
        choice["finish_reason"] = None
        return True

    def _number_calls(self, choice: dict[str, Any]) -> bool:
        is_changed = False
        for call in (choice.get("delta") or {}).get("tool_calls") or ():
            index = choice.get("index", 0)
            number = self._calls.get(index, 0)
            self._calls[index] = number + 1
            is_changed |= call.get("index") != number
            call["index"] = number
        return is_changed

    def _stop(self) -> bytes:
        """Return the chunks that state why each choice ends, and keep the one with the usage for the end."""
        events = b""
        for index, reason in self._reasons.items():
            stated = "tool_calls" if reason == "stop" and index in self._calls else reason
            choices = [{"index": index, "delta": {}, "finish_reason": stated}]
            events += super()._read_event(encode_event(orjson.dumps({**self._head, "choices": choices})))
        if self._stated_usage is not None:
            last = {**self._head, "choices": [], "usage": self._stated_usage}
            events += super()._read_event(encode_event(orjson.dumps(last)))
        return events
