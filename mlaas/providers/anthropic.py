"""Anthropic, through its own Messages API."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from mlaas.providers.base import Answer, Call, Failure, Operation, StreamDecoder, WireRequest
from mlaas.providers.failures import parse_failure
from mlaas.providers.from_messages import MessagesStream, decode_message
from mlaas.providers.messages_pass_through import (
    MessagesPassThrough,
    encode_pass_through,
    pass_message,
    pass_token_count,
)
from mlaas.providers.to_messages import encode_messages_request

_FORWARDED = ("anthropic-version", "anthropic-beta")


class Anthropic:
    """Anthropic's Messages API, or any server that speaks it.

    Messages and counts of tokens pass through; chats are translated.

    Attributes:
        name: the provider's name in `provider/model`.
        base_url: URL that ends where `/messages` begins.
        operations: what it answers.
    """

    default_url = "https://api.anthropic.com/v1"
    operations = frozenset({Operation.CHAT, Operation.MESSAGES, Operation.COUNT_TOKENS})

    def __init__(self, *, name: str, base_url: str, api_key: str | None) -> None:
        self.name = name
        self.base_url = base_url.rstrip("/")
        self._headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "anthropic-version": "2023-06-01",
        }
        if api_key:
            self._headers["x-api-key"] = api_key

    def encode_request(self, call: Call, *, model: str) -> WireRequest:
        """Return the Messages request of a chat, or the caller's own.

        Raises:
            FieldError: the Messages API has nothing like a field of the chat.
        """
        if call.operation is Operation.CHAT:
            value = encode_messages_request(self.name, call.fields, model=model)
            return WireRequest(path="/messages", headers=self._headers, body=orjson.dumps(value))
        forwarded = {name: call.headers[name] for name in _FORWARDED if name in call.headers}
        return WireRequest(
            path=f"/{call.operation.value}",
            headers={**self._headers, **forwarded} if forwarded else self._headers,
            body=encode_pass_through(call, model=model),
        )

    def decode_answer(self, call: Call, body: bytes) -> Answer:
        """Return the message as a chat completion, or as it came.

        Raises:
            ProviderFailed: the answer cannot be read.
        """
        if call.operation is Operation.CHAT:
            return decode_message(self.name, body)
        if call.operation is Operation.COUNT_TOKENS:
            return pass_token_count(self.name, body)
        return pass_message(self.name, body, is_by_alias=self._is_by_alias(call))

    def decode_stream(self, call: Call) -> StreamDecoder:
        """Return a decoder of the Messages API's events."""
        if call.operation is Operation.CHAT:
            return MessagesStream(self.name, call)
        return MessagesPassThrough(self.name, is_by_alias=self._is_by_alias(call))

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """Return what an error answer means."""
        return parse_failure(self.name, status, headers, body)

    def _is_by_alias(self, call: Call) -> bool:
        return not call.model.startswith(f"{self.name}/")
