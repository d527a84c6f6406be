"""What a request asks of a target, read from its fields before anything is sent; estimates, never a tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

import orjson

from mlaas.providers.base import Call, Operation
from mlaas.router.tasks.classify import classify
from mlaas.router.types import NO_NEED, Need, Route, RoutingPolicy

BYTES_PER_TOKEN: Final = 4
"""Usual bytes of a request for each token of its prompt: English text and code, JSON's own characters included."""
IMAGE_TOKENS: Final = 6_000
"""More than any vendor's count for one image."""
DEFAULT_OUTPUT_TOKENS: Final = 256
"""Expected length of an answer whose request sets no bound."""

_IMAGE_TYPES = ("image_url", "input_image", "image")
_FEATURE_FIELDS = {
    "tools": ("tools",),
    "schema": ("response_format", "text", "output_config"),
    "reasoning": ("reasoning_effort", "reasoning", "thinking"),
}
_BY_TASK = (RoutingPolicy.AUTO, RoutingPolicy.BALANCED)
_OUTPUT_FIELDS = {
    Operation.CHAT: ("max_completion_tokens", "max_tokens"),
    Operation.COMPLETION: ("max_tokens",),
    Operation.RESPONSES: ("max_output_tokens",),
    Operation.MESSAGES: ("max_tokens",),
}
"""By API: the fields that bound an answer, the usual one first. A target may read either of two."""
_CHOICE_FIELDS = ("n", "best_of")


def expected_input_tokens(call: Call) -> int:
    """Return about how many tokens the prompt has; 0 only of an empty one."""
    num_images, num_bytes = _measure(call)
    return num_bytes // BYTES_PER_TOKEN + num_images * IMAGE_TOKENS


def most_input_tokens(call: Call) -> int:
    """Return a number of tokens that the prompt does not exceed: no tokenizer in use makes more tokens than bytes."""
    num_images, num_bytes = _measure(call)
    return num_bytes + num_images * IMAGE_TOKENS


def asked_output_tokens(call: Call) -> int | None:
    """Return the bound that the caller set on what is written, over all choices; None when it set none."""
    if call.operation not in _OUTPUT_FIELDS:
        return 0
    bounds = [bound for name in output_fields(call) if type(bound := call.fields.get(name)) is int]
    return max(0, *bounds) * num_choices(call) if bounds else None


def num_choices(call: Call) -> int:
    """Return how many answers are written, also when the caller only gets the best of them."""
    return max((num for name in _CHOICE_FIELDS if type(num := call.fields.get(name)) is int and num > 0), default=1)


def output_fields(call: Call) -> tuple[str, ...]:
    """Return the fields by which the caller bounds the answer, or else the one by which it could."""
    names = _OUTPUT_FIELDS.get(call.operation, ())
    return tuple(name for name in names if call.fields.get(name) is not None) or names[:1]


def needs_of(call: Call, route: Route, *, has_budget: bool, droppable: Collection[str] = ()) -> Need:
    """Return what a request asks of the targets of its route; nothing is read where there is no choice.

    Args:
        call: the request.
        route: its model's.
        has_budget: whether its key may still spend.
        droppable: fields that may be left out where they cannot be honoured: nobody need have what they ask for.
    """
    if not route.is_alias:
        return NO_NEED
    asked = asked_output_tokens(call)
    return Need(
        task=classify(call.fields) if route.policy in _BY_TASK else "",
        input_tokens=expected_input_tokens(call),
        output_tokens=DEFAULT_OUTPUT_TOKENS if asked is None else asked,
        features=needed_features(call, droppable),
        has_budget=has_budget,
    )


def needed_features(call: Call, droppable: Collection[str] = ()) -> tuple[str, ...]:
    """Return what the target must be able to do: tools, vision, schema, reasoning."""
    fields = call.fields
    features = [
        feature
        for feature, names in _FEATURE_FIELDS.items()
        if any(_asks_for(feature, fields.get(name)) and name not in droppable for name in names)
    ]
    if any(True for _ in _images(fields.get("messages") or fields.get("input"))):
        features.append("vision")
    return tuple(features)


def _asks_for(feature: str, value: Any) -> bool:
    """Tell whether a field's value needs a feature."""
    if feature == "schema":
        return value is not None and b'"json_schema"' in orjson.dumps(value)
    if isinstance(value, dict):
        return value.get("type") != "disabled" and value.get("effort") != "none"
    return bool(value) and value != "none"


def _measure(call: Call) -> tuple[int, int]:
    """Return the number of images, and the bytes of the request without them."""
    images = list(_images(call.fields.get("messages") or call.fields.get("input")))
    return len(images), max(0, len(call.body) - sum(map(_longest_text, images)))


def _images(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the images of messages; text is not looked into."""
    if isinstance(value, list):
        for each in value:
            if isinstance(each, dict):
                if each.get("type") in _IMAGE_TYPES:
                    yield each
                else:
                    yield from _images(each.get("content"))


def _longest_text(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max((_longest_text(child) for child in children), default=0)
