"""A stream in OpenAI's wire format, passed on as it came.

This is the gateway's hottest loop. Nearly every chunk is whole events with a piece of text each; a few byte searches
tell so, and the chunk goes on untouched and unparsed. Only what may be the beginning, the usage, an error or the end is
read event by event.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Protocol

import orjson

from mlaas.providers.base import Failure, ProviderFailed, Usage
from mlaas.providers.chat import encode_cost
from mlaas.providers.failures import cut_short, unreadable
from mlaas.providers.splice import insert_member
from mlaas.providers.sse import EventBuffer, cut_events, split_events


class EventReader(Protocol):
    """What a stream asks of its provider."""

    @property
    def name(self) -> str:
        """The provider's name."""

    def parse_usage(self, value: object) -> Usage | None:
        """Return the usage that an event states, None when it states none."""

    def decode_error_event(self, payload: bytes) -> Failure:
        """Return what an event with an `error` means."""


class PassThroughStream:
    """Passes whole events on as they came. The stream is complete once it has sent `[DONE]`.

    Events before the first content (the role alone, comments) wait for it, so that an upstream which fails until then
    can still be replaced by another.

    Attributes:
        usage: as the upstream stated it last.
        num_deltas: events with content passed on.
    """

    __slots__ = (
        "_buffer",
        "_failure",
        "_is_plain",
        "_is_usage_asked",
        "_last",
        "_opening",
        "_provider",
        "_terminator",
        "num_deltas",
        "usage",
    )

    def __init__(self, provider: EventReader, *, is_usage_asked: bool) -> None:
        self.usage: Usage | None = None
        self.num_deltas = 0
        self._provider = provider
        self._is_usage_asked = is_usage_asked
        self._buffer = EventBuffer(provider.name)
        self._opening = b""
        self._is_plain = False
        self._last = b""
        self._terminator = b""
        self._failure: Failure | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Return the whole events that are complete by now, but for those that end the stream.

        Raises:
            ProviderFailed: an event is an error, which some upstreams send after a status of 200, or cannot be read.
        """
        if self._failure is not None:
            raise ProviderFailed(self._failure)
        if self._is_plain and chunk.endswith(b"\n\n") and not self._buffer.held and not self._last:
            num_events = chunk.count(b"\n\n")
            if (
                chunk.count(b"}\n\n") == num_events
                and b'prompt_tokens"' not in chunk
                and b'"error"' not in chunk
                and b"[DONE]" not in chunk
            ):
                self.num_deltas += num_events
                return chunk
        return self._read(self._buffer.feed(chunk))

    def finish(self, cost_usd: Decimal | None) -> bytes:
        """Return the last events: the usage, if the caller asked for it, and `[DONE]`.

        Raises:
            ProviderFailed: `[DONE]` has not come, or an event before it could not be read.
        """
        if self._failure is not None:
            raise ProviderFailed(self._failure)
        if not self._terminator:
            raise ProviderFailed(cut_short(self._provider.name))
        last = self._last
        if cost_usd is not None and self._is_usage_asked:
            last = insert_member(last, "usage", "cost_usd", encode_cost(cost_usd))
        return self._opening + last + self._terminator

    def _read(self, events: bytes) -> bytes:
        """Read events one by one. What came before an event that breaks the stream still goes out."""
        passed = b""
        try:
            for event in cut_events(events):
                passed += self._read_event(event)
        except ProviderFailed as error:
            self._failure = error.failure
        except (AttributeError, TypeError):
            self._failure = unreadable(self._provider.name, "an event that is not a chunk of an answer")
        if self._failure is not None and not passed:
            raise ProviderFailed(self._failure)
        return passed

    def _read_event(self, event: bytes) -> bytes:
        payload = b"\n".join(split_events(event))
        if not payload:
            return self._pass(event, has_content=False)
        if payload == b"[DONE]":
            self._terminator = event
            return b""
        value = self._parse(payload)
        earlier, self._last = self._last, b""
        choices = value.get("choices")
        usage = self._provider.parse_usage(value.get("usage"))
        if usage is not None:
            self.usage = usage
            if not choices:
                # Upstreams send it because we asked; the caller gets it only if he did.
                self._last = event if self._is_usage_asked else b""
                return earlier
            if any(choice.get("finish_reason") for choice in choices):
                self._last = self._pass(event, has_content=True)
                return earlier
        return earlier + self._pass(event, has_content=has_content(choices))

    def _parse(self, payload: bytes) -> dict[str, Any]:
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise ProviderFailed(unreadable(self._provider.name, "an event that is not JSON")) from error
        if isinstance(value, list) and value:
            value = value[0]  # Gemini lists its errors, in a stream too
        if not isinstance(value, dict):
            raise ProviderFailed(unreadable(self._provider.name, "an event that is not a JSON object"))
        if value.get("error"):
            raise ProviderFailed(self._provider.decode_error_event(payload))
        return value

    def _pass(self, event: bytes, *, has_content: bool) -> bytes:
        self.num_deltas += has_content
        if self._is_plain:
            return event
        if not has_content:
            self._opening += event
            return b""
        self._is_plain = True
        opening, self._opening = self._opening, b""
        return opening + event


def has_content(choices: object) -> bool:
    """Whether the choices of a chunk hold more than a role."""
    return isinstance(choices, list) and any(_is_filled(choice) for choice in choices)


def _is_filled(choice: Mapping[str, Any]) -> bool:
    delta = choice.get("delta") or {}
    return bool(choice.get("text") or choice.get("finish_reason") or any(delta[key] for key in delta if key != "role"))
