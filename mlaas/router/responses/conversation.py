"""A conversation as one input: what was said before, and what is said now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import orjson

from mlaas.providers.base import Call, FieldError
from mlaas.providers.past_items import ORIGIN


class Turn(Protocol):
    """A stored response, as far as it is read here."""

    @property
    def id(self) -> str:
        """Of the response."""

    @property
    def status(self) -> str:
        """OpenAI's `status`."""

    @property
    def provider(self) -> str:
        """Who answered."""

    @property
    def items(self) -> str:
        """What the caller said, JSON."""

    @property
    def answer(self) -> str:
        """The response, JSON."""


def read_input(fields: Mapping[str, Any]) -> list[Any]:
    """Return the input of a request as items."""
    given = fields["input"]
    return [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else list(given)


def continue_conversation(call: Call, turns: Sequence[Turn]) -> Call:
    """Return a call that says the whole conversation, and refers to none.

    Instructions of earlier turns are not carried over, as at OpenAI.

    Args:
        call: a request with a `previous_response_id`.
        turns: the response of that id and those before it, oldest first.

    Raises:
        FieldError: the last of them has not ended well, so there is nothing to continue.
    """
    last = turns[-1]
    if last.status not in ("completed", "incomplete"):
        why = f"response {last.id} is {last.status}; only a response that was completed can be continued"
        raise FieldError("previous_response_id", why)
    items: list[Any] = []
    for turn in turns:
        items += orjson.loads(turn.items)
        items += [{**item, ORIGIN: turn.provider} for item in orjson.loads(turn.answer)["output"]]
    return with_fields(call, {"input": items + read_input(call.fields)}, without=("previous_response_id",))


def with_fields(call: Call, changed: Mapping[str, Any], *, without: Sequence[str] = ()) -> Call:
    """Return the call with some fields changed and some left out."""
    fields = {name: value for name, value in {**call.fields, **changed}.items() if name not in without}
    return replace(call, fields=fields, body=orjson.dumps(fields))
