"""Any upstream that speaks OpenAI's wire format: bytes pass through but for the model's name and the key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import orjson

from mlaas.providers.base import (
    Answer,
    Call,
    Failure,
    Operation,
    ProviderFailed,
    StreamDecoder,
    Usage,
    WireRequest,
)
from mlaas.providers.chat import is_usage_asked, parse_usage
from mlaas.providers.failures import parse_failure, unreadable
from mlaas.providers.pass_through import PassThroughStream
from mlaas.providers.splice import add_member, rename_member, replace_model, set_member


class OpenAICompatible:
    """A provider that answers OpenAI's chat completions, completions and embeddings at `base_url`.

    Attributes:
        name: the provider's name in `provider/model`.
        base_url: URL that ends where `/chat/completions` begins.
        operations: what the upstream answers.
        foreign_fields: members of a past message, or of its tool calls, that another provider wrote for itself and
            this one must not see.
        newly_bounded: models that take `max_tokens` of a chat only under its newer name, `max_completion_tokens`.
    """

    operations = frozenset({Operation.CHAT, Operation.COMPLETION, Operation.EMBEDDINGS})
    foreign_fields: ClassVar[frozenset[str]] = frozenset({"thinking_blocks", "extra_content", "search_results"})
    newly_bounded: ClassVar[re.Pattern[str] | None] = None

    def __init__(self, *, name: str, base_url: str, api_key: str | None = None) -> None:
        self.name = name
        self.base_url = base_url.rstrip("/")
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"

    def encode_request(self, call: Call, *, model: str) -> WireRequest:
        """Return the caller's own bytes, asking for `model` and, in a stream, for its usage."""
        body = call.body if model == call.model else replace_model(call.body, model)
        if call.operation is Operation.CHAT:
            body = self.encode_messages(call, body, model=model)
            if "max_tokens" in call.fields and self._is_newly_bounded(call, model):
                body = rename_member(body, "max_tokens", "max_completion_tokens")
        if call.is_stream and not is_usage_asked(call):
            body = ask_for_usage(call, body)
        return WireRequest(path=f"/{call.operation.value}", headers=self._headers, body=body)

    def encode_messages(self, call: Call, body: bytes, *, model: str) -> bytes:
        """Return the body of a chat without what other providers left in its history."""
        if not any(has_foreign(message, self.foreign_fields) for message in call.fields["messages"]):
            return body
        messages = [strip_message(message, self.foreign_fields) for message in call.fields["messages"]]
        return set_member(body, "messages", orjson.dumps(messages))

    def _is_newly_bounded(self, call: Call, model: str) -> bool:
        known = self.newly_bounded
        return known is not None and known.match(model) is not None and "max_completion_tokens" not in call.fields

    def decode_answer(self, call: Call, body: bytes) -> Answer:
        """Return `body` itself, and the usage in it.

        Raises:
            ProviderFailed: it is not a JSON object, or reports an error.
        """
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ProviderFailed(unreadable(self.name, "an answer that is not JSON")) from error
        if isinstance(value, list) and value:
            value = value[0]  # Gemini lists its errors
        if not isinstance(value, dict):
            raise ProviderFailed(unreadable(self.name, "an answer that is not a JSON object"))
        if value.get("error"):
            raise ProviderFailed(self.decode_error_event(body))
        return Answer(body=body, usage=self.parse_usage(value.get("usage")))

    def decode_stream(self, call: Call) -> StreamDecoder:
        """Return a decoder that passes events through and holds back the end of the stream."""
        return PassThroughStream(self, is_usage_asked=is_usage_asked(call))

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """Return what an error answer means."""
        return parse_failure(self.name, status, headers, body)

    def decode_error_event(self, payload: bytes) -> Failure:
        """Return what an error means that came with a status of 200."""
        value = orjson.loads(payload)
        error = (value[0] if isinstance(value, list) else value)["error"]
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
        return self.decode_error(status, {}, payload)

    def parse_usage(self, value: object) -> Usage | None:
        """Return the usage that the member `usage` of an answer or event states, None when it states none."""
        return parse_usage(value)


def ask_for_usage(call: Call, body: bytes) -> bytes:
    """Return the body of a streamed request that also asks for the usage."""
    if "stream_options" not in call.fields:
        return add_member(body, "stream_options", b'{"include_usage":true}')
    options = call.fields["stream_options"] or {}
    return set_member(body, "stream_options", orjson.dumps({**options, "include_usage": True}))


def has_foreign(message: Mapping[str, Any], foreign: frozenset[str]) -> bool:
    """Whether a message, or one of its tool calls, has a member that `strip_message` would leave out."""
    if message.get("role") != "assistant":
        return False
    calls = message.get("tool_calls") or ()
    return not foreign.isdisjoint(message) or any(
        isinstance(call, dict) and not foreign.isdisjoint(call) for call in calls
    )


def strip_message(message: Mapping[str, Any], foreign: frozenset[str]) -> dict[str, Any]:
    """Return a message without the `foreign` members of itself and of its tool calls."""
    kept = {key: value for key, value in message.items() if key not in foreign}
    if isinstance(kept.get("tool_calls"), list):
        kept["tool_calls"] = [
            {key: value for key, value in call.items() if key not in foreign} if isinstance(call, dict) else call
            for call in kept["tool_calls"]
        ]
    return kept
