"""The seam between the router and the APIs that callers use."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Protocol

from mlaas.providers.base import Call, Failure, Operation


class StreamTranslator(Protocol):
    """Turns the events of one streamed chat completion into those of another API."""

    def feed(self, events: bytes) -> bytes:
        """Take whole events of a chat completion and return events of this API, or nothing yet."""

    def finish(self, tail: bytes, cost_usd: Decimal | None) -> bytes:
        """Return the events that end the stream.

        Args:
            tail: the last events of the chat completion: usage, if any, and `[DONE]`.
            cost_usd: added to the usage as `cost_usd`.
        """


class Dialect(Protocol):
    """One API in front of the gateway."""

    @property
    def operation(self) -> Operation:
        """The route that speaks this API."""

    def check(self, fields: Mapping[str, Any]) -> None:
        """Check what the gateway itself relies on; ranges and everything deeper is for the upstream.

        Raises:
            FieldError: a field is missing or has the wrong type.
        """

    def to_chat(self, call: Call) -> Call:
        """Return the same request as a chat.

        Raises:
            FieldError: a chat cannot say what a field asks for.
        """

    def own_name(self, call: Call, field: str) -> str:
        """Return what this API calls a field of the chat that a call has become."""

    def from_chat(self, call: Call, answer: bytes) -> bytes:
        """Return a chat completion as this API's answer."""

    def stream_from_chat(self, call: Call) -> StreamTranslator:
        """Return a translator for one streamed chat completion, whose usage is asked for."""

    def encode_error(self, failure: Failure) -> bytes:
        """Return the body of an error answer."""

    def encode_stream_error(self, failure: Failure) -> bytes:
        """Return the events that end a stream which broke after it had begun."""
