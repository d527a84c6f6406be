"""How many tokens a prompt has, about, without a tokenizer: for callers who ask before they send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

BYTES_PER_TOKEN: Final = 3.5
"""UTF-8 bytes of text for each token. English prose has 4 to 4.5, code and JSON 3 to 3.5, Chinese and Russian 3 to 4:
the estimate is about right for code, and up to a quarter too high for English."""
IMAGE_TOKENS: Final = 1600
"""An image at the size to which Anthropic scales large ones down: width x height / 750. Source: Anthropic, vision."""

_TOKENS_PER_MESSAGE: Final = 4
_PROMPT_FIELDS: Final = ("system", "messages", "instructions", "input", "prompt")
_SCHEMA_FIELDS: Final = ("tools", "response_format", "output_config", "text")
_IMAGES: Final = ("image", "image_url", "input_image")
# No part of what a model reads: structure, references, hints and what is opaque to all but its writer.
_UNREAD: Final = frozenset(
    {
        "type",
        "role",
        "id",
        "tool_use_id",
        "tool_call_id",
        "call_id",
        "cache_control",
        "signature",
        "data",
        "thinking_blocks",
        "encrypted_content",
    }
)


def estimate_input_tokens(fields: Mapping[str, Any]) -> int:
    """Return about how many tokens a request's input has; at least 1.

    Counted are the texts of every API's prompt, tools and schemas as JSON, a constant for each message and image, and
    token ids one by one. Not counted are documents and audio.

    Args:
        fields: a request of any API, decoded.
    """
    num_bytes = num_tokens = 0
    stack: list[Any] = [fields.get(name) for name in _PROMPT_FIELDS]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            num_bytes += len(value) if value.isascii() else len(value.encode(errors="replace"))
        elif isinstance(value, list):
            num_tokens += sum(type(each) is int for each in value)
            stack += value
        elif isinstance(value, dict):
            if value.get("type") in _IMAGES:
                num_tokens += IMAGE_TOKENS
                continue
            num_tokens += _TOKENS_PER_MESSAGE if "role" in value else 0
            stack += [each for key, each in value.items() if key not in _UNREAD]
    num_bytes += sum(len(orjson.dumps(fields[name])) for name in _SCHEMA_FIELDS if fields.get(name))
    return max(1, num_tokens + round(num_bytes / BYTES_PER_TOKEN))
