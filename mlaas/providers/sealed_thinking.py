"""Thinking blocks inside the `encrypted_content` of a reasoning item, the one place where the Responses API keeps such.

Callers of the Responses API hand reasoning back without reading it. What Anthropic signed travels there as it is; the
prefix tells it from what OpenAI and xAI encrypt, which only they can read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import orjson

PREFIX = "mlaas-thinking:"


def seal_thinking(blocks: Sequence[Any]) -> str:
    """Return thinking blocks as one opaque text."""
    return PREFIX + base64.b64encode(orjson.dumps(list(blocks))).decode()


def open_thinking(text: str) -> list[dict[str, Any]] | None:
    """Return the thinking blocks of a text, None when it is not ours or was changed on its way."""
    if not text.startswith(PREFIX):
        return None
    try:
        blocks = orjson.loads(base64.b64decode(text[len(PREFIX) :], validate=True))
    except (binascii.Error, ValueError):
        return None
    return blocks if isinstance(blocks, list) and all(isinstance(block, dict) for block in blocks) else None
