"""Tokens as the two families of APIs report them."""

from __future__ import annotations

from typing import Any

from mlaas.providers.base import Usage


def encode_chat_usage(usage: Usage) -> dict[str, Any]:
    """Return the `usage` of a chat completion. Source: OpenAI's `CompletionUsage`."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
