"""Upstreams that speak OpenAI's Responses API themselves: bytes pass through; usage, failures and the end are read.

Source: OpenAI API reference, responses and their streaming events; openai-python, `openai.types.responses`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final, Protocol

import orjson

from mlaas.providers.base import Answer, Call, Failure, Operation, ProviderFailed, StreamDecoder, Usage, WireRequest
from mlaas.providers.chat import encode_cost
from mlaas.providers.failures import cut_short, unreadable
from mlaas.providers.openai_compatible import OpenAICompatible
from mlaas.providers.past_items import ORIGIN, carry_over, is_sealed
from mlaas.providers.sealed_thinking import PREFIX
from mlaas.providers.splice import replace_model, set_member
from mlaas.providers.sse import EventBuffer, cut_events, split_events

_NOTABLE = re.compile(rb'"response\.(?:completed|incomplete|failed)"|"error"|\[DONE\]')
_FOREIGN: Final = (PREFIX.encode(), b'"%b"' % ORIGIN.encode(), b'"extra_content"')
_OPENING: Final = ("response.created", "response.queued", "response.in_progress")
_CLOSING: Final = ("response.completed", "response.incomplete")
_STATUS_OF_CODE: Final = {
    "server_error": 500,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "vector_store_timeout": 504,
    "invalid_prompt": 400,
    "invalid_request_error": 400,
}


class ResponsesReader(Protocol):
    """What a stream of responses asks of its provider."""

    @property
    def name(self) -> str:
        """The provider's name."""

    def parse_response_usage(self, value: object) -> Usage | None:
        """Return the usage that a response states, None when it states none."""

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """Return what an error means."""


class ResponsesCompatible(OpenAICompatible):
    """An OpenAI-compatible provider that also answers `/responses`, and keeps what it answers."""

    operations = OpenAICompatible.operations | {Operation.RESPONSES}

    def encode_request(self, call: Call, *, model: str) -> WireRequest:
        """Return the caller's own bytes, asking for `model`, without reasoning that only other providers can read."""
        if call.operation is not Operation.RESPONSES:
            return super().encode_request(call, model=model)
        body = call.body if model == call.model else replace_model(call.body, model)
        if any(mark in body for mark in _FOREIGN):
            body = set_member(body, "input", orjson.dumps(self._settle_input(call.fields["input"])))
        return WireRequest(path="/responses", headers=self._headers, body=body)

    def decode_answer(self, call: Call, body: bytes) -> Answer:
        """Return `body` itself, and the usage in it.

        Raises:
            ProviderFailed: it is not a JSON object, or reports an error.
        """
        if call.operation is not Operation.RESPONSES:
            return super().decode_answer(call, body)
        return Answer(body=body, usage=self.parse_response_usage(parse_response(self, body).get("usage")))

    def decode_stream(self, call: Call) -> StreamDecoder:
        """Return a decoder that passes events through and holds back the end of the stream."""
        return ResponsesStream(self) if call.operation is Operation.RESPONSES else super().decode_stream(call)

    def parse_response_usage(self, value: object) -> Usage | None:
        """Return the usage that a response states, None when it states none."""
        return parse_response_usage(value)

    def _settle_input(self, items: Any) -> Any:
        if not isinstance(items, list):
            return items
        return [
            {name: value for name, value in item.items() if name != "extra_content"} if isinstance(item, dict) else item
            for item in carry_over(items, reader=self.name)
            if not is_sealed(item)
        ]


def parse_response_usage(value: object) -> Usage | None:
    """Return the usage that a response states, None when it states none that makes sense.

    `input_tokens` includes what was read from and written to the cache, `output_tokens` includes the reasoning.
    Source: openai-python, `ResponseUsage`; perplexity-py, `ResponsesUsage`, whose details have names of their own.
    """
    if not isinstance(value, Mapping):
        return None
    prompt, output = _count(value.get("input_tokens")), _count(value.get("output_tokens"))
    if prompt is None or output is None:
        return None
    read = min(_detail(value, "input_tokens_details", "cached_tokens", "cache_read_input_tokens"), prompt)
    written = _detail(value, "input_tokens_details", "cache_write_tokens", "cache_creation_input_tokens")
    written = min(written, prompt - read)
    return Usage(
        input_tokens=prompt - read - written,
        cache_read_tokens=read,
        cache_write_tokens=written,
        output_tokens=output,
        reasoning_tokens=min(_detail(value, "output_tokens_details", "reasoning_tokens"), output),
    )


def parse_response(provider: ResponsesReader, body: bytes) -> dict[str, Any]:
    """Return a whole response.

    Raises:
        ProviderFailed: it is not a JSON object, or says that it failed.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ProviderFailed(unreadable(provider.name, "an answer that is not JSON")) from error
    if not isinstance(value, dict):
        raise ProviderFailed(unreadable(provider.name, "an answer that is not a JSON object"))
    if value.get("error") or value.get("status") == "failed":
        raise ProviderFailed(failure_of(provider, value))
    return value


def failure_of(provider: ResponsesReader, value: Mapping[str, Any]) -> Failure:
    """Return what a failed response, or an event that reports a failure, means."""
    response = value.get("response")
    error = value.get("error") or (response.get("error") if isinstance(response, dict) else None) or value
    if isinstance(error, dict) and error.get("code") is None and isinstance(error.get("type"), str):
        error = {**error, "code": error["type"]}
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and 400 <= code < 600:
        status = code
    else:
        status = _STATUS_OF_CODE.get(str(code), 400 if "image" in str(code) else 500)
    return provider.decode_error(status, {}, orjson.dumps({"error": error}))


class ResponsesStream:
    """Passes the events of one streamed response on as they came, and holds back the event that ends it.

    Events before the first output wait for it, so that an upstream which fails until then can still be replaced.

    Attributes:
        usage: as the last event states it.
        num_deltas: events with a piece of output passed on.
        is_verbatim: whether `rewrite` leaves all events alone, so that most need not be parsed.
    """

    is_verbatim: ClassVar[bool] = True

    def __init__(self, provider: ResponsesReader) -> None:
        self.usage: Usage | None = None
        self.num_deltas = 0
        self._provider = provider
        self._buffer = EventBuffer(provider.name)
        self._opening = b""
        self._is_open = False
        self._last: dict[str, Any] | None = None
        self._held = b""
        self._failure: Failure | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Return the whole events that are complete by now, but for those that end the stream.

        Raises:
            ProviderFailed: an event reports a failure, or cannot be read.
        """
        if self._failure is not None:
            raise ProviderFailed(self._failure)
        events = self._buffer.feed(chunk)
        if self.is_verbatim and self._is_open and self._last is None and _is_plain(events):
            self.num_deltas += events.count(b'.delta"')
            return events
        return self._read(events)

    def finish(self, cost_usd: Decimal | None) -> bytes:
        """Return the last event, its usage with the cost.

        Raises:
            ProviderFailed: that event has not come.
        """
        if self._failure is not None:
            raise ProviderFailed(self._failure)
        if self._last is None:
            raise ProviderFailed(cut_short(self._provider.name))
        usage = self._last["response"].get("usage")
        if cost_usd is None or not isinstance(usage, dict):
            return self._opening + self._held
        usage["cost_usd"] = orjson.Fragment(encode_cost(cost_usd))
        return self._opening + encode_response_event(self._last)

    def rewrite(self, value: dict[str, Any]) -> list[dict[str, Any]] | None:
        """Return the events that go out in place of one; None leaves it as it came."""
        return None

    def _read(self, events: bytes) -> bytes:
        """Read events one by one. What came before an event that breaks the stream still goes out."""
        passed = b""
        try:
            for event in cut_events(events):
                passed += self._read_event(event)
        except ProviderFailed as error:
            if not passed:
                raise
            self._failure = error.failure
        return passed

    def _read_event(self, event: bytes) -> bytes:
        payload = b"\n".join(split_events(event))
        if self._last is not None or payload == b"[DONE]":
            return b""
        if not payload:
            return self._pass(event, has_output=False)
        value = self._parse(payload)
        kind = value.get("type")
        if kind in ("response.failed", "error") or value.get("error"):
            raise ProviderFailed(failure_of(self._provider, value))
        rewritten = self.rewrite(value)
        if rewritten is not None:
            event = b"".join(map(encode_response_event, rewritten))
        if kind in _CLOSING:
            self._close(rewritten[-1] if rewritten else value, event)
            return b""
        self.num_deltas += isinstance(kind, str) and kind.endswith(".delta")
        return self._pass(event, has_output=kind not in _OPENING)

    def _close(self, value: dict[str, Any], event: bytes) -> None:
        if not isinstance(value.get("response"), dict):
            raise ProviderFailed(unreadable(self._provider.name, "a last event without its response"))
        self.usage = self._provider.parse_response_usage(value["response"].get("usage"))
        self._last, self._held = value, event

    def _parse(self, payload: bytes) -> dict[str, Any]:
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise ProviderFailed(unreadable(self._provider.name, "an event that is not JSON")) from error
        if not isinstance(value, dict):
            raise ProviderFailed(unreadable(self._provider.name, "an event that is not a JSON object"))
        return value

    def _pass(self, event: bytes, *, has_output: bool) -> bytes:
        if self._is_open:
            return event
        self._opening += event
        if not has_output:
            return b""
        self._is_open = True
        opening, self._opening = self._opening, b""
        return opening


def encode_response_event(value: Mapping[str, Any]) -> bytes:
    """Return one event of a streamed response."""
    return b"event: %b\ndata: %b\n\n" % (str(value["type"]).encode(), orjson.dumps(value))


def _is_plain(events: bytes) -> bool:
    """Whether events are whole JSON objects, as far as bytes tell, with nothing to take note of."""
    return events.count(b"}\n\n") == events.count(b"\n\n") and _NOTABLE.search(events) is None


def _detail(value: Mapping[str, Any], group: str, *names: str) -> int:
    details = value.get(group)
    if not isinstance(details, Mapping):
        return 0
    return next((count for name in names if (count := _count(details.get(name))) is not None), 0)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
