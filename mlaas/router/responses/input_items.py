"""What a response was made from, as `GET /v1/responses/{id}/input_items` lists it: the whole conversation before it.

Source: OpenAI API reference, responses; openai-python, `ResponseItem`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from mlaas.providers.base import FieldError
from mlaas.router.responses.conversation import Turn

MAX_LIMIT: Final = 100
_DEFAULT_LIMIT: Final = 20
_PARAMETERS: Final = ("after", "limit", "order", "include", "include[]")
_PREFIXES: Final = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def list_input_items(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Return the items that the last turn's response was made from, oldest first, each with an id that stays.

    Args:
        turns: the response and those that it continues, oldest first.
    """
    items: list[dict[str, Any]] = []
    for turn in turns:
        items += [_settle(item, turn.id, index) for index, item in enumerate(orjson.loads(turn.items))]
        if turn is not turns[-1]:
            items += orjson.loads(turn.answer)["output"]
    return items


def page_of(items: Sequence[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of a list as its caller asks for it; `include` asks for nothing that is not there anyway.

    Args:
        items: oldest first.
        query: OpenAI's `after`, `limit` and `order`.

    Raises:
        FieldError: a parameter is not known, or has no such value.
    """
    for name in query:
        if name not in _PARAMETERS:
            raise FieldError(name, f"{name[:60]!r} is not a parameter of this route; there are: after, limit, order")
    order, limit = query.get("order", "desc"), query.get("limit", str(_DEFAULT_LIMIT))
    if order not in ("asc", "desc"):
        raise FieldError("order", "'order' must be asc or desc")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= MAX_LIMIT):
        raise FieldError("limit", f"'limit' must be a number from 1 to {MAX_LIMIT}")
    ordered = list(items) if order == "asc" else list(items)[::-1]
    start = 0
    if after := query.get("after"):
        places = [place for place, item in enumerate(ordered) if item.get("id") == after]
        if not places:
            raise FieldError("after", f"there is no item with the id {after[:100]!r}")
        start = places[0] + 1
    data = ordered[start : start + int(limit)]
    ends = (data[0].get("id"), data[-1].get("id")) if data else (None, None)
    has_more = start + len(data) < len(ordered)
    return {"object": "list", "data": data, "first_id": ends[0], "last_id": ends[1], "has_more": has_more}


def _settle(item: Any, response_id: str, index: int) -> dict[str, Any]:
    """Return an item as a caller may write it, in the form in which it is listed."""
    kind = item.get("type") or "message"
    digest = hashlib.sha256(f"{response_id}/{index}".encode()).hexdigest()
    settled = {"id": f"{_PREFIXES.get(kind, 'item')}_{digest[:32]}", "status": "completed", **item, "type": kind}
    content = item.get("content")
    if kind == "message" and isinstance(content, str):
        is_said = item.get("role") == "assistant"
        part = {"type": "output_text", "text": content, "annotations": []}
        settled["content"] = [part if is_said else {"type": "input_text", "text": content}]
    return settled
