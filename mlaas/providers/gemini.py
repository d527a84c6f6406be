"""Google Gemini, through its OpenAI-compatible endpoint."""

from __future__ import annotations

from mlaas.providers.base import Operation
from mlaas.providers.openai_compatible import OpenAICompatible


class Gemini(OpenAICompatible):
    """Gemini's compatible endpoint. Its errors are a list with one object.

    Passing bytes through keeps `extra_content.google.thought_signature` of tool calls, without which Gemini 3 refuses
    the next turn. Source: ai.google.dev, OpenAI compatibility.
    """

    default_url = "https://generativelanguage.googleapis.com/v1beta/openai"
    operations = frozenset({Operation.CHAT})
