"""Any upstream that speaks OpenAI's wire format: bytes pass through but for the model's name and the key."""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from mlaas.providers.base import Call, Failure, Operation, ProviderFailed, StreamDecoder, WireRequest
from mlaas.providers.failures import cut_short, parse_failure, unreadable
from mlaas.providers.sse import EventBuffer, split_events

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_VALUE = re.compile(rb"\s*:\s*(" + _STRING + rb")", re.DOTALL)
_TOKEN = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)


class OpenAICompatible:
    """A provider that answers OpenAI's chat completions and completions at `base_url`.

    Attributes:
        name: the provider's name in `provider/model`.
        base_url: URL that ends where `/chat/completions` begins.
        operations: what the upstream answers.
    """

    operations = frozenset(Operation)

    def __init__(self, *, name: str, base_url: str, api_key: str | None = None) -> None:
        self.name = name
        self.base_url = base_url.rstrip("/")
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"

    def encode_request(self, call: Call, *, model: str) -> WireRequest:
        """Return the caller's own bytes, asking for `model`."""
        body = call.body if model == call.model else replace_model(call.body, model)
        return WireRequest(path=f"/{call.operation.value}", headers=self._headers, body=body)

    def decode_answer(self, call: Call, body: bytes) -> bytes:
        """Return `body` itself, once it has proved to be JSON.

        Raises:
            ProviderFailed: it is not.
        """
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ProviderFailed(unreadable(self.name, "an answer that is not JSON")) from error
        return body

    def decode_stream(self, call: Call) -> StreamDecoder:
        """Return a decoder that passes whole events through and knows when the stream is cut short."""
        return PassThroughStream(self)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """Return what an error answer means."""
        return parse_failure(self.name, status, headers, body)


class PassThroughStream:
    """Passes whole events on as they came. The stream is complete once it has sent `[DONE]`."""

    __slots__ = ("_buffer", "_is_done", "_is_first", "_provider")

    def __init__(self, provider: OpenAICompatible) -> None:
        self._provider = provider
        self._buffer = EventBuffer(provider.name)
        self._is_first = True
        self._is_done = False

    def feed(self, chunk: bytes) -> bytes:
        """Return the whole events that are complete by now.

        Raises:
            ProviderFailed: the first event is an error, which some upstreams send after a status of 200.
        """
        events = self._buffer.feed(chunk)
        if not events:
            return events
        if self._is_first:
            self._is_first = False
            self._check_first(events)
        if b"data: [DONE]" in events or b"data:[DONE]" in events:
            self._is_done = True
        return events

    def finish(self) -> bytes:
        """Return nothing: all of a complete stream has passed.

        Raises:
            ProviderFailed: `[DONE]` has not come.
        """
        if not self._is_done:
            raise ProviderFailed(cut_short(self._provider.name))
        return b""

    def _check_first(self, events: bytes) -> None:
        if b'"error"' not in events:
            return
        for payload in split_events(events):
            try:
                value = orjson.loads(payload)
            except orjson.JSONDecodeError:
                return
            if isinstance(value, dict) and value.get("error"):
                raise ProviderFailed(self._provider.decode_error(_status_of(value["error"]), {}, payload))


def replace_model(body: bytes, model: str) -> bytes:
    """Return a JSON object with its top-level `model` replaced and every other byte as it was.

    Args:
        body: a JSON object, known to be valid, with a top-level string member `model`.
        model: the new value.
    """
    value = orjson.dumps(model)
    # Only one such literal, and no letter of "model" written as an escape: then it is the top-level key.
    if body.count(b'"model"') == 1 and b"\\u006" not in body:
        found = _VALUE.match(body, body.index(b'"model"') + 7)
        if found is not None:
            return body[: found.start(1)] + value + body[found.end(1) :]
    pieces, end = [], 0
    for start, stop in _model_spans(body):
        pieces += [body[end:start], value]
        end = stop
    return b"".join((*pieces, body[end:]))


def _model_spans(body: bytes) -> list[tuple[int, int]]:
    """Return where the values of top-level members called `model` start and stop; a key may come twice."""
    spans, depth, position = [], 0, 0
    while (token := _TOKEN.search(body, position)) is not None:
        position = token.end()
        text = token.group()
        if text in b"[{":
            depth += 1
        elif text in b"]}":
            depth -= 1
        elif depth == 1 and (found := _VALUE.match(body, position)) is not None:
            if orjson.loads(text) == "model":
                spans.append(found.span(1))
            position = found.end()
    return spans


def _status_of(error: object) -> int:
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 500
