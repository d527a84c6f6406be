"""OpenAI's own client, following a streamed response event by event."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent


def follow(values: Iterable[dict[str, Any]]) -> list[Any]:
    """Return the events that `client.responses.stream` would yield, with its snapshots."""
    state = ResponseStreamState(input_tools=omit, text_format=omit)
    return [
        each for value in values for each in state.handle_event(construct_type(type_=ResponseStreamEvent, value=value))
    ]
