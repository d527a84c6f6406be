"""Anthropic, through its own Messages API."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from mlaas.providers.base import Call, Failure, Operation, StreamDecoder, WireRequest
from mlaas.providers.failures import parse_failure
from mlaas.providers.from_messages import MessagesStream, decode_message
from mlaas.providers.to_messages import encode_messages_request


class Anthropic:
    """Anthropic's Messages API, or any server that speaks it.

    Attributes:
        name: the provider's name in `provider/model`.
        base_url: URL that ends where `/messages` begins.
        operations: chat only.
    """

    default_url = "https://api.anthropic.com/v1"
    operations = frozenset({Operation.CHAT})

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
        """Return the Messages request of a chat.

        Raises:
            FieldError: the Messages API has nothing like a field of the request.
        """
        value = encode_messages_request(self.name, call.fields, model=model)
        return WireRequest(path="/messages", headers=self._headers, body=orjson.dumps(value))

    def decode_answer(self, call: Call, body: bytes) -> bytes:
        """Return the message as a chat completion.

        Raises:
            ProviderFailed: the answer cannot be read.
        """
        return decode_message(self.name, body)

    def decode_stream(self, call: Call) -> StreamDecoder:
        """Return a decoder of the Messages API's events."""
        return MessagesStream(self.name, call)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """Return what an error answer means."""
        return parse_failure(self.name, status, headers, body)
