"""Whether an answer is good enough, without asking anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import orjson

from mlaas.router.virtual.asking import text_of
from mlaas.router.virtual.config import CheckConfig


def failed_check(check: CheckConfig, choice: Mapping[str, Any]) -> str | None:
    """Return the name of the first check that an answer fails; None when it passes all but the judge's.

    Args:
        check: what is asked of it.
        choice: a choice of a chat completion.
    """
    if check.finish_reason and choice.get("finish_reason") not in check.finish_reason:
        return "finish_reason"
    message = choice["message"]
    if message.get("tool_calls"):
        return None
    text = text_of(message).strip()
    if check.min_chars is not None and len(text) < check.min_chars:
        return "min_chars"
    if check.regex is not None and re.search(check.regex, text) is None:
        return "regex"
    if check.json_schema is not None and not follows_schema(text, check.json_schema):
        return "schema"
    return None


def follows_schema(text: str, schema: Mapping[str, Any]) -> bool:
    """Tell whether a text is JSON that a JSON Schema accepts."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))
