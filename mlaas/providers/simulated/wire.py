"""The seam between the simulator's server and the formats it speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

import orjson

from mlaas.providers.simulated.refusals import Refusal
from mlaas.providers.simulated.script import Prompt, Script

Json = dict[str, Any]


class Wire(Protocol):
    """One wire format."""

    def read(self, body: Mapping[str, Any]) -> Prompt:
        """Return what a request asks for.

        Raises:
            BadRequest: it is not a request of this format.
        """

    def answer(self, body: Mapping[str, Any], script: Script, vendor: str) -> Json:
        """Return a whole answer, as JSON values."""

    def events(self, body: Mapping[str, Any], script: Script, vendor: str) -> Sequence[bytes]:
        """Return the events of a streamed answer."""

    def error_event(self, vendor: str, refusal: Refusal) -> bytes:
        """Return the event that reports an error inside a stream."""


def encode_event(value: Any, name: str | None = None) -> bytes:
    """Return one server-sent event."""
    head = f"event: {name}\n" if name else ""
    return b"%bdata: %b\n\n" % (head.encode(), orjson.dumps(value))


def bill_usd(script: Script) -> Decimal:
    """Return what the simulator's vendors bill: $1 for a million tokens read, $2 for a million written."""
    return Decimal(script.input_tokens + 2 * script.output_tokens) / 1_000_000


def read_text(content: Any) -> list[str]:
    """Return the texts of a message's content, a string or a list of parts."""
    if isinstance(content, str):
        return [content]
    parts = [part for part in content or () if isinstance(part, dict)]
    return [part["text"] for part in parts if isinstance(part.get("text"), str)]
