"""What a request asks of a target, read from its fields before anything is sent; estimates, never a tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
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
_FEATURE_BY_FIELD = (
    ("tools", "tools"),
    ("response_format", "schema"),
    ("text", "schema"),
    ("output_config", "schema"),
    ("reasoning_effort", "reasoning"),
    ("reasoning", "reasoning"),
    ("thinking", "reasoning"),
)
_BY_TASK = (RoutingPolicy.AUTO, RoutingPolicy.BALANCED)
_OUTPUT_FIELDS = {
    Operation.CHAT: ("max_completion_tokens", "max_tokens"),
    Operation.COMPLETION: ("max_tokens",),
    Operation.RESPONSES: ("max_output_tokens",),
    Operation.MESSAGES: ("max_tokens",),
}
"""By API: the fields that bound an answer, the usual one first. A target may read either of two."""
_CHOICE_FIELDS = ("n", "best_of")


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """How long a request's prompt is, and how long its answer may get.

    Attributes:
        num_bytes: of the request, its images left out.
        num_images: in its messages.
        asked_output_tokens: the bound that the caller set on what is written, over all choices; None: none.
    """

    num_bytes: int
    num_images: int
    asked_output_tokens: int | None

    @property
    def input_tokens(self) -> int:
        """About how many tokens the prompt has; 0 only of an empty one."""
        return self.num_bytes // BYTES_PER_TOKEN + self.num_images * IMAGE_TOKENS

    @property
    def most_input_tokens(self) -> int:
        """What the prompt does not exceed: no tokenizer in use makes more tokens than bytes."""
        return self.num_bytes + self.num_images * IMAGE_TOKENS

    @property
    def output_tokens(self) -> int:
        """About how many tokens the answer will have."""
        return DEFAULT_OUTPUT_TOKENS if self.asked_output_tokens is None else self.asked_output_tokens


def extent_of(call: Call) -> Extent:
    """Return how long a request is. It is read once for each, and handed to all who ask."""
    images = list(_images(call.fields.get("messages") or call.fields.get("input")))
    return Extent(
        num_bytes=max(0, len(call.body) - sum(map(_longest_text, images))) if images else len(call.body),
        num_images=len(images),
        asked_output_tokens=asked_output_tokens(call),
    )


def asked_output_tokens(call: Call) -> int | None:
    """Return the bound that the caller set on what is written, over all choices; None when it set none."""
    names = _OUTPUT_FIELDS.get(call.operation)
    if names is None:
        return 0
    bounds = [bound for name in names if type(bound := call.fields.get(name)) is int]
    return max(0, *bounds) * num_choices(call) if bounds else None


def num_choices(call: Call) -> int:
    """Return how many answers are written, also when the caller only gets the best of them."""
    return max((num for name in _CHOICE_FIELDS if type(num := call.fields.get(name)) is int and num > 0), default=1)


def output_fields(call: Call) -> tuple[str, ...]:
    """Return the fields by which the caller bounds the answer, or else the one by which it could."""
    names = _OUTPUT_FIELDS.get(call.operation, ())
    return tuple(name for name in names if call.fields.get(name) is not None) or names[:1]


def needs_of(call: Call, route: Route, *, extent: Extent, has_budget: bool, droppable: Collection[str] = ()) -> Need:
    """Return what a request asks of the targets of its route; nothing is read where there is no choice.

    Args:
        call: the request.
        route: its model's.
        extent: the request's.
        has_budget: whether its key may still spend.
        droppable: fields that may be left out where they cannot be honoured: nobody need have what they ask for.
    """
    if not route.is_alias:
        return NO_NEED
    return Need(
        task=classify(call.fields) if route.policy in _BY_TASK else "",
        input_tokens=extent.input_tokens,
        output_tokens=extent.output_tokens,
        features=_needed_features(call.fields, droppable, has_images=extent.num_images > 0),
        has_budget=has_budget,
    )


def _needed_features(fields: Mapping[str, Any], droppable: Collection[str], *, has_images: bool) -> tuple[str, ...]:
    """Return what the target must be able to do: tools, schema, reasoning, vision."""
    needed = dict.fromkeys(
        feature
        for name, feature in _FEATURE_BY_FIELD
        if name in fields and name not in droppable and _asks_for(feature, fields[name])
    )
    return (*needed, "vision") if has_images else tuple(needed)


def _asks_for(feature: str, value: Any) -> bool:
    """Tell whether a field's value needs a feature."""
    if feature == "schema":
        return value is not None and b'"json_schema"' in orjson.dumps(value)
    if isinstance(value, dict):
        return value.get("type") != "disabled" and value.get("effort") != "none"
    return bool(value) and value != "none"


def _images(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the images of messages; text is not looked into."""
    if isinstance(value, list):
        for each in value:
            if isinstance(each, dict):
                if each.get("type") in _IMAGE_TYPES:
                    yield each
                elif isinstance(content := each.get("content"), list):
                    yield from _images(content)


def _longest_text(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max((_longest_text(child) for child in children), default=0)
