"""A stored response as the events that it would have come in: each text in one piece.

Source: openai-python, `ResponseStreamEvent`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from mlaas.providers.base import FieldError
from mlaas.providers.responses_wire import encode_response_event

_CLOSING: Final = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
}

_EMPTY: Final[Mapping[str, dict[str, Any]]] = {"message": {"content": []}, "function_call": {"arguments": ""}}

Event = dict[str, Any]


def replay_response(response: Mapping[str, Any], *, after: int) -> bytes:
    """Return the events of a response that has ended.

    Args:
        response: as it is stored.
        after: the number of the last event that is left out; -1 leaves out none.

    Raises:
        FieldError: it has not ended, or was cancelled, for which there is no event.
    """
    status = str(response.get("status"))
    if status not in _CLOSING:
        why = f"response {response.get('id')} is {status}, and only one that has ended is streamed again"
        raise FieldError("stream", f"{why}; leave 'stream' out")
    numbered = enumerate(_events(response, _CLOSING[status]))
    return b"".join(
        encode_response_event({**event, "sequence_number": number}) for number, event in numbered if number > after
    )


def _events(response: Mapping[str, Any], closing: str) -> Iterator[Event]:
    began: Event = {"status": "in_progress", "output": [], "usage": None}
    ended = ("completed_at", "error", "incomplete_details")
    opened = {**response, **began, **{name: None for name in ended if name in response}}
    yield {"type": "response.created", "response": opened}
    yield {"type": "response.in_progress", "response": opened}
    for index, item in enumerate(response.get("output") or ()):
        yield from _item_events(item, index)
    yield {"type": closing, "response": response}


def _item_events(item: Mapping[str, Any], index: int) -> Iterator[Event]:
    place = {"item_id": item.get("id"), "output_index": index}
    kind = item.get("type")
    empty = _EMPTY.get(str(kind))
    announced = item if empty is None else {**item, "status": "in_progress", **empty}
    yield {"type": "response.output_item.added", "output_index": index, "item": announced}
    if kind == "message":
        yield from _message_events(item, place)
    elif kind == "function_call":
        yield from _call_events(item, place)
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _message_events(item: Mapping[str, Any], place: Event) -> Iterator[Event]:
    for index, part in enumerate(item.get("content") or ()):
        there = {**place, "content_index": index}
        if part.get("type") == "refusal":
            yield {"type": "response.content_part.added", **there, "part": {**part, "refusal": ""}}
            yield {"type": "response.refusal.delta", **there, "delta": part["refusal"]}
            yield {"type": "response.refusal.done", **there, "refusal": part["refusal"]}
        else:
            text, logprobs = part.get("text") or "", part.get("logprobs") or []
            empty = {**part, "text": "", "annotations": [], "logprobs": []}
            yield {"type": "response.content_part.added", **there, "part": empty}
            yield {"type": "response.output_text.delta", **there, "delta": text, "logprobs": logprobs}
            for number, annotation in enumerate(part.get("annotations") or ()):
                cited = {"annotation_index": number, "annotation": annotation}
                yield {"type": "response.output_text.annotation.added", **there, **cited}
            yield {"type": "response.output_text.done", **there, "text": text, "logprobs": logprobs}
        yield {"type": "response.content_part.done", **there, "part": part}


def _call_events(item: Mapping[str, Any], place: Event) -> Iterator[Event]:
    arguments = item.get("arguments") or ""
    yield {"type": "response.function_call_arguments.delta", **place, "delta": arguments}
    yield {"type": "response.function_call_arguments.done", **place, "name": item.get("name"), "arguments": arguments}
