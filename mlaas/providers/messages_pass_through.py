"""Anthropic's Messages API to a caller who speaks it too: bytes go on as they came.

What changes on the way in, besides model and key, are traces of other models in the history. Thinking that the gateway
wrote an origin into goes to the model that thought it, without the origin, and to no other. Another provider's
signature of a tool call, `extra_content`, is taken off, and so are citations of another provider's search.

What changes on the way out, besides the cost, is thinking of a model that was asked by an alias: it gets its origin,
for the alias's next answer may be of another model, which would refuse it. Who asks for `provider/model` gets it as it
is.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import orjson

from mlaas.providers.base import Answer, Call, Failure, ProviderFailed, Usage
from mlaas.providers.chat import encode_cost
from mlaas.providers.failures import cut_short, unreadable
from mlaas.providers.from_messages import UNREADABLE, StreamUsage, read_answer, read_error_event, read_usage
from mlaas.providers.splice import insert_member, replace_model, set_member
from mlaas.providers.sse import EventBuffer, cut_events, split_events
from mlaas.providers.thinking import MARK_BYTES, is_marked, is_thinking, mark_thinking, read_thinking

ELSEWHERE: Final = ""
"""The `encrypted_index` of a citation that was not made by Anthropic's search, which would not take it back."""

_FOREIGN: Final = "extra_content"
_TRACES: Final = (MARK_BYTES, b'"extra_content"', b'"encrypted_index"')
_DELTA: Final = b"event: content_block_delta"


def encode_pass_through(call: Call, *, model: str) -> bytes:
    """Return the caller's own bytes, asking for `model`."""
    body = call.body if model == call.model else replace_model(call.body, model)
    if not any(trace in body for trace in _TRACES):
        return body
    messages = [own for message in call.fields["messages"] if (own := _own_message(message, model)) is not None]
    return set_member(body, "messages", orjson.dumps(messages))


def _own_message(message: Mapping[str, Any], model: str) -> Mapping[str, Any] | None:
    """Return a message without what other models left in it, None when they left all of it."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    blocks = []
    for block in content:
        if not is_thinking(block) or not is_marked(block):
            blocks.append(_without_foreign(block))
        elif (own := read_thinking(block, model=model)) is not None:
            blocks.append(own[1])
    return {**message, "content": blocks} if blocks or not content else None


def _without_foreign(block: Any) -> Any:
    match block:
        case {"type": "tool_use", "extra_content": _}:
            return {key: value for key, value in block.items() if key != _FOREIGN}
        case {"type": "text", "citations": list(citations)}:
            own = [each for each in citations if not _is_foreign(each)]
            return block if len(own) == len(citations) else {**block, "citations": own}
    return block


def _is_foreign(citation: Any) -> bool:
    """Whether a citation is of another provider's search: Anthropic's own names a place in its own results."""
    return isinstance(citation, dict) and citation.get("encrypted_index") == ELSEWHERE


def pass_message(name: str, body: bytes, *, is_by_alias: bool) -> Answer:
    """Return a message as it came, and what it used.

    Args:
        name: the provider, for messages.
        body: the answer.
        is_by_alias: its thinking gets its origin.

    Raises:
        ProviderFailed: the answer is an error, or no message.
    """
    try:
        answer = read_answer(name, body)
        if is_by_alias and any(is_thinking(block) for block in answer["content"]):
            content = [
                mark_thinking(block, model=answer["model"], place=place) if is_thinking(block) else block
                for place, block in enumerate(answer["content"])
            ]
            body = orjson.dumps({**answer, "content": content})
        return Answer(body=body, usage=read_usage(answer.get("usage")))
    except UNREADABLE as error:
        raise ProviderFailed(unreadable(name, "an answer that cannot be read")) from error


def pass_token_count(name: str, body: bytes) -> Answer:
    """Return a count of tokens as it came; counting uses none.

    Raises:
        ProviderFailed: the answer is no count.
    """
    try:
        int(orjson.loads(body)["input_tokens"])
    except UNREADABLE as error:
        raise ProviderFailed(unreadable(name, "an answer that cannot be read")) from error
    return Answer(body=body, usage=Usage())


class MessagesPassThrough:
    """Passes the events of a streamed message on as they came.

    Events before the first piece of content wait for it, so that an upstream which fails until then can still be
    replaced by another. `message_delta` and `message_stop` are held back to the end.

    Args:
        name: the provider, for messages.
        is_by_alias: the message's thinking gets its origin.

    Attributes:
        usage: what the stream used; None until its end, and when the upstream does not say.
        num_deltas: pieces of content passed on.
    """

    __slots__ = (
        "_buffer",
        "_failure",
        "_is_by_alias",
        "_is_done",
        "_is_open",
        "_last",
        "_model",
        "_name",
        "_opening",
        "_spent",
        "num_deltas",
        "usage",
    )

    def __init__(self, name: str, *, is_by_alias: bool) -> None:
        self.usage: Usage | None = None
        self.num_deltas = 0
        self._name = name
        self._model = ""
        self._is_by_alias = is_by_alias
        self._buffer = EventBuffer(name)
        self._opening = b""
        self._is_open = False
        self._last: list[bytes] = []
        self._spent = StreamUsage()
        self._is_done = False
        self._failure: Failure | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Return the whole events that are complete by now, but for those that begin and end the message.

        Raises:
            ProviderFailed: an event is an error, or cannot be read.
        """
        self._check()
        events = self._buffer.feed(chunk)
        if not events:
            return b""
        passed = events if self._is_open and self._is_plain(events) else self._read(events)
        self.num_deltas += passed.count(_DELTA)
        opened = self._open(passed)
        if not opened:
            self._check()
        return opened

    def finish(self, cost_usd: Decimal | None) -> bytes:
        """Return the last events, with `cost_usd` in their usage.

        Raises:
            ProviderFailed: `message_stop` has not come, or an event before it could not be read.
        """
        self._check()
        if not self._is_done:
            raise ProviderFailed(cut_short(self._name))
        last = b"".join(self._last)
        if cost_usd is not None:
            last = b"".join(insert_member(event, "usage", "cost_usd", encode_cost(cost_usd)) for event in self._last)
        return self._opening + last

    def _check(self) -> None:
        if self._failure is not None:
            raise ProviderFailed(self._failure)

    def _open(self, events: bytes) -> bytes:
        if self._is_open:
            return events
        self._opening += events
        if not self.num_deltas:
            return b""
        self._is_open = True
        opening, self._opening = self._opening, b""
        return opening

    def _is_plain(self, events: bytes) -> bool:
        """Return whether events, as far as bytes tell, are JSON objects that each carry a piece of content."""
        num_deltas = events.count(_DELTA)
        if not num_deltas == events.count(b"event: ") == events.count(b"}\n\n") == events.count(b"\n\n"):
            return False
        return not (self._is_by_alias and b"signature_delta" in events)

    def _read(self, events: bytes) -> bytes:
        """Read events one by one. What came before one that breaks the stream still goes out."""
        passed = b""
        try:
            for event in cut_events(events):
                payload = b"\n".join(split_events(event))
                passed += self._read_event(event, payload) if payload else event
        except ProviderFailed as error:
            self._failure = error.failure
        except UNREADABLE:
            self._failure = unreadable(self._name, "an event that cannot be read")
        return passed

    def _read_event(self, event: bytes, payload: bytes) -> bytes:
        """Take note of an event and return what goes on at once."""
        value = orjson.loads(payload)
        match value["type"]:
            case "message_start":
                self._model = value["message"].get("model") or ""
                self._spent.start(value["message"])
            case "message_delta":
                self._spent.update(value)
                self._last.append(event)
                return b""
            case "message_stop":
                self._is_done = True
                self.usage = self._spent.read()
                self._last.append(event)
                return b""
            case "error":
                raise ProviderFailed(read_error_event(self._name, value, payload))
            case "content_block_start" | "content_block_delta" if self._is_by_alias:
                return self._mark(event, value)
        return event

    def _mark(self, event: bytes, value: dict[str, Any]) -> bytes:
        """Return an event of a block, with its origin if it seals one of thinking."""
        block, delta = value.get("content_block") or {}, value.get("delta") or {}
        if block.get("type") == "redacted_thinking":
            value["content_block"] = mark_thinking(block, model=self._model, place=value["index"])
        elif delta.get("type") == "signature_delta":
            sealed = mark_thinking({**delta, "type": "thinking"}, model=self._model, place=value["index"])
            value["delta"] = {**delta, "signature": sealed["signature"]}
        else:
            return event
        return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), orjson.dumps(value))
